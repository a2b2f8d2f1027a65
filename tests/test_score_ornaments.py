"""Ornaments of scores, as notes worked out by hand."""

import numpy as np
import pytest

from modeling_pianobind.notes_pianobind import read_midi
from modeling_pianobind.score_ornaments_pianobind import Ornament, with_ornaments

from .test_scores import ABC, ATTRIBUTES, KERN, MEI, REPEAT, musicxml, note

D_MAJOR = ATTRIBUTES.replace("<time>", "<key><fifths>2</fifths></key><time>")
NATURAL = "<accidental-mark>natural</accidental-mark>"
FAST = 0.125 / 0.6  # quarters that an eighth of a second takes at 100 quarters a minute


def ornate(signs: str, step: str = "E", quarters: float = 2, before: str = "", attributes: str = D_MAJOR) -> str:
    sign = f"<notations><ornaments>{signs}</ornaments></notations>"
    return musicxml(f'<measure number="1">{attributes}{before}{note(step, 4, quarters, sign)}</measure>')


@pytest.mark.parametrize(
    ("signs", "pitches", "onsets"),
    [
        ("<trill-mark/>", [64, 66] * 5, np.arange(9) * 2 / 9),
        (f"<trill-mark/>{NATURAL}", [64, 65] * 5, np.arange(9) * 2 / 9),
        ("<mordent/>", [64, 62, 64], [0, FAST, 2 * FAST]),
        ("<inverted-mordent/>", [64, 66, 64], [0, FAST, 2 * FAST]),
        ("<turn/>", [66, 64, 62, 64], [0, FAST, 2 * FAST, 3 * FAST]),
        ("<inverted-turn/>", [62, 64, 66, 64], [0, FAST, 2 * FAST, 3 * FAST]),
        ("<delayed-turn/>", [64, 66, 64, 62, 64], [0, 2 - 4 * FAST, 2 - 3 * FAST, 2 - 2 * FAST, 2 - FAST]),
    ],
)
def test_an_ornament_of_a_half_note_plays_neighbours_of_its_key(signs, pitches, onsets):
    pytest.importorskip("verovio")
    notes = read_midi(ornate(signs).encode())
    assert notes.pitch.tolist() == pitches[: len(onsets)]
    np.testing.assert_allclose(notes.onset, np.array(onsets) * 0.6, atol=0.01)
    np.testing.assert_allclose((notes.onset + notes.duration)[:-1], notes.onset[1:], atol=1e-3)
    assert notes.seconds == pytest.approx(1.2, abs=0.01)


def test_an_accidental_earlier_in_the_measure_holds_for_the_neighbour():
    pytest.importorskip("verovio")
    plain = ATTRIBUTES.replace("<beats>2", "<beats>3")
    sharp = note("F", 4, 1).replace("<step>F</step>", "<step>F</step><alter>1</alter>")
    notes = read_midi(ornate("<trill-mark/>", before=sharp, attributes=plain).encode())
    assert set(notes.pitch[1:].tolist()) == {64, 66}
    assert set(read_midi(ornate("<trill-mark/>", attributes=plain).encode()).pitch.tolist()) == {64, 65}
    assert set(read_midi(ornate("<trill-mark/>", "B", attributes=D_MAJOR).encode()).pitch.tolist()) == {71, 73}


def test_a_chord_is_trilled_at_its_top_and_a_repeat_plays_the_trill_again():
    pytest.importorskip("verovio")
    third = note("G", 4, 2).replace("<note>", "<note><chord/>")
    score = ornate("<trill-mark/>").replace("</measure>", f"{third}{REPEAT}</measure>")
    notes = read_midi(score.encode())
    assert notes.pitch.tolist().count(64) == 2, "the lower note is held"
    assert notes.pitch.tolist().count(67) == 10 and notes.pitch.tolist().count(69) == 8


@pytest.mark.parametrize(
    "content",
    [
        MEI.replace('<note pname="e"', '<note xml:id="e" pname="e"').replace(
            "</measure>\n</section>", '<trill startid="#e"/></measure>\n</section>'
        ),
        KERN.replace("2ee", "2eet"),
        ABC.replace("e2", "Te2"),
    ],
)
def test_every_format_has_trills(content):
    pytest.importorskip("verovio")
    notes = read_midi(content.encode())
    assert notes.pitch[:2].tolist() == [60, 62] and len(notes) > 10
    assert notes.pitch[2:].tolist() == ([76, 77] * len(notes))[: len(notes) - 2]


def notes_of(*rows) -> dict[str, np.ndarray]:
    return dict(zip(("time", "duration", "pitch"), np.array(rows, np.int32).T, strict=True))


def test_trills_take_eight_notes_a_second_at_the_tempo_of_their_place():
    notes = notes_of((0, 960, 60), (1920, 960, 60), (1920, 960, 40))
    trills = [Ornament(0.0, 60, "trill", 2, 1), Ornament(2.0, 60, "trill", 1, 1)]
    played = with_ornaments(notes, trills, 960, 8, [(0, 60.0), (1920, 120.0)])
    assert {name: array.dtype for name, array in played.items()} == dict.fromkeys(notes, np.dtype(np.int32))
    late = played["time"] >= 1920
    assert sorted(played["pitch"][~late].tolist()) == [60] * 5 + [62] * 4, "a second"
    assert sorted(played["pitch"][late].tolist()) == [40, 60, 60, 60, 61, 61], "half a second"
    assert played["time"][late & (played["pitch"] == 61)].tolist() == [1920 + 192, 1920 + 576]
    assert played["duration"][~late].sum() == 960


def test_ornaments_without_their_note_or_room_change_nothing():
    notes = notes_of((0, 960, 60), (960, 4, 62), (1920, 960, 127))
    none = [Ornament(0.0, 61, "turn", 2, 1), Ornament(1.0, 62, "turn", 2, 1), Ornament(2.0, 127, "trill", 1, 1)]
    assert with_ornaments(notes, none, 960, 8, [(0, 100.0)]) is notes


def test_long_trills_of_a_damaged_score_stay_few():
    notes = notes_of(*((0, 2_000_000_000, key) for key in range(21, 109)))
    trills = [Ornament(0.0, key, "trill", 2, 1) for key in range(21, 109)]
    played = with_ornaments(notes, trills, 960, 8, [(0, 5.0)])
    assert 88 * 3 < len(played["time"]) <= 100_000
