"""Notes compared at any tempo, and the files of a folder that are the same piece."""

import csv
import io
import json

import numpy as np
import pytest

from modeling_pianobind import EmbeddingIndex
from modeling_pianobind.index import note_alignment
from modeling_pianobind.index.alignment import Example
from modeling_pianobind.index.duplicates import find_duplicates
from modeling_pianobind.index.note_alignment import NoteLine, confidences, match
from modeling_pianobind.index.table import FileTable
from modeling_pianobind.notes_pianobind import PianoNotes


def music(seed: int, count: int = 400) -> PianoNotes:
    """A melody that strays over the keys, with a bass."""
    random = np.random.default_rng(seed)
    pitch = np.clip(64 + np.cumsum(random.integers(-4, 5, count)), 40, 100)
    pitch[::4] = random.choice([36, 41, 43, 48], len(pitch[::4]))
    onset = np.cumsum(random.choice([0.15, 0.3], count))
    full = np.full(count, 0.2, np.float32)
    return PianoNotes(onset, full, pitch, np.full(count, 70), np.zeros_like(full))


def played(notes: PianoNotes, seed: int, tempo: float, extra: float = 0.0, missing: float = 0.0) -> PianoNotes:
    """The same at another tempo that wanders, with notes added and left out."""
    random = np.random.default_rng(seed)
    kept = random.random(len(notes)) >= missing
    speed = tempo * np.exp(np.cumsum(random.normal(0, 0.03, len(notes))))
    onset = np.cumsum(np.diff(notes.onset, prepend=0) / speed)
    twice = np.flatnonzero(random.random(len(notes)) < extra)
    order = np.sort(np.concatenate([np.flatnonzero(kept), twice]), kind="stable")
    return PianoNotes(*(array[order] for array in (onset, notes.duration, notes.pitch, notes.velocity, notes.pedal)))


LINES = [NoteLine.of(music(seed)) for seed in range(40)]


@pytest.mark.parametrize("tempo", [0.4, 1.0, 2.5])
def test_a_performance_at_any_tempo_is_its_piece_alone(tempo):
    query = NoteLine.of(played(music(7), 1, tempo, extra=0.1, missing=0.1))
    sure = confidences(query, LINES)
    assert sure[7] > 0.5 and np.delete(sure, 7).max() == 0
    # The other way round, and as one of several lengths.
    assert confidences(LINES[7], [query, *LINES[:7]])[0] > 0.5
    assert match(LINES[7], query).confidence > 0.5


def test_an_excerpt_is_found_with_its_place():
    whole = music(7)
    part = played(whole.take(slice(150, 290)), 2, 1.5)
    aligned = match(NoteLine.of(part), LINES[7])
    assert aligned.confidence > 0.5
    assert aligned.second_span[0] == pytest.approx(whole.onset[150], abs=4)
    assert aligned.second_span[1] == pytest.approx(whole.onset[289], abs=4)
    assert confidences(LINES[7], [NoteLine.of(part)])[0] > 0.5  # the shorter one may be either


def test_the_batched_paths_are_those_of_single_pairs():
    pieces = [NoteLine.of(music(seed, 60 + 37 * seed)) for seed in range(20)]
    for query in (pieces[3], pieces[12]):
        single = [confidences(query, [piece])[0] for piece in pieces]
        np.testing.assert_allclose(confidences(query, pieces), single, atol=1e-5)


def test_best_sums_by_hand():
    rows = np.array([[0.1, 0.9, 0.0, 0.0], [0.0, 0.0, 0.2, 0.8], [0.5, 0.0, 0.0, 0.4]], np.float32)
    sums = note_alignment.best_path_sums(rows)
    # Two rows to one column: 0.9, then 0 beside column 2 (row 1), then 0 in column 2; or 0.9 + 0.2 + 0.4.
    assert sums[3] == pytest.approx(1.5)
    mean, path = note_alignment.best_path(rows)
    assert mean == pytest.approx(0.5) and path.tolist() == [[0, 1], [1, 2], [2, 3]]


def test_too_few_notes_say_nothing():
    few = NoteLine.of(music(7, 20))
    assert confidences(few, LINES)[7] == 0 == confidences(LINES[7], [few])[0]
    assert match(few, LINES[7]) is None and len(NoteLine.of(None)) == 0


def test_notes_of_a_chord_may_come_in_any_order():
    notes = music(7)
    spread = played(notes, 0, 1.0)
    chord = PianoNotes(
        np.array([0.0, 0.01, 0.02]), *(np.array(values) for values in ([1, 1, 1], [64, 60, 67], [70] * 3, [0] * 3))
    )
    assert NoteLine.of(chord).pitch.tolist() == [60, 64, 67]
    assert len(NoteLine.of(spread)) == len(notes)


def unit(*numbers):
    row = np.zeros(8, np.float32)
    row[list(numbers)] = 1
    return row / np.linalg.norm(row)


def index_of(files: dict) -> EmbeddingIndex:
    """Files of one window each: name -> (hash, direction, notes)."""
    rows = [
        (name, name, digest, row, row[None].astype(np.float16), np.array([[0.0, 20.0]]), NoteLine.of(notes), None)
        for name, (digest, row, notes) in files.items()
    ]
    return EmbeddingIndex(table=FileTable.from_rows(rows))


def test_search_by_example_puts_the_same_notes_first_and_the_file_itself_before_them():
    alike, other = unit(0, 1), unit(0, 2)
    index = index_of({
        "b.mid": ("", alike, music(1)), "performance.mid": ("", other, played(music(7), 1, 0.5)),
        "self.mid": ("", unit(0), music(7)),
    })  # fmt: skip
    hits = index.search_like(Example(unit(0), unit(0)[None], np.array([[0.0, 20.0]]), music(7)))
    assert [hit.path for hit in hits] == ["self.mid", "performance.mid", "b.mid"]
    plain = index.search_like(Example(unit(0), unit(0)[None], np.array([[0.0, 20.0]])))
    assert hits[2].score == plain[2].score  # what has other notes keeps its score


def test_an_index_keeps_notes_and_measures(tmp_path):
    row = ("a.musicxml", "a", "x", unit(0), unit(0)[None].astype(np.float16), np.array([[0.0, 20.0]]))
    index = EmbeddingIndex(table=FileTable.from_rows([(*row, NoteLine.of(music(7)), np.array([[17, 24]]))]))
    index.save(tmp_path / "index")
    loaded = EmbeddingIndex.load(tmp_path / "index")
    hit = loaded.search(unit(0))[0][0]
    assert (hit.start_measure, hit.end_measure) == (17, 24)
    np.testing.assert_array_equal(loaded.example(0).notes.pitch, NoteLine.of(music(7)).pitch)


FILES = {
    "a/copy.mid": ("x", unit(0), music(7)),
    "a/piece.mid": ("x", unit(0), music(7)),
    "a/performance.mid": ("y", unit(0, 1), played(music(7), 1, 0.6, 0.05)),
    "a/score.musicxml": ("z", unit(0, 3), played(music(7), 2, 1.5, 0.0, 0.05)),
    "d/full.mid": ("p", unit(6), music(8)),
    "d/easy.mid": ("q", unit(6, 7), played(music(8), 3, 0.9, 0.0, 0.25)),
    "b/other.mid": ("v", unit(0, 2), music(3)),
    "b/encoded.mid": ("w", unit(4), music(5)),
    "b/encoded again.mid": ("u", unit(4), music(5)),
    "c/recording.mp3": ("t", unit(5), None),
    "c/recording.flac": ("s", unit(5), None),
    "c/unlike.mp3": ("r", unit(0, 5), None),
}


def test_duplicates_by_kind():
    groups = find_duplicates(index_of(FILES))
    assert [group.paths for group in groups] == [
        ["a/copy.mid", "a/performance.mid", "a/piece.mid", "a/score.musicxml"],
        ["b/encoded again.mid", "b/encoded.mid"],
        ["c/recording.flac", "c/recording.mp3"],
        ["d/easy.mid", "d/full.mid"],
    ]
    kinds = {(pair.first, pair.second): pair for group in groups for pair in group.pairs}
    assert kinds["a/copy.mid", "a/piece.mid"].kind == "same file"
    assert kinds["a/performance.mid", "a/piece.mid"].kind == "other performance"
    assert kinds["a/piece.mid", "a/score.musicxml"].kind == "score and performance"
    assert kinds["b/encoded again.mid", "b/encoded.mid"].kind == "same performance"
    assert kinds["d/easy.mid", "d/full.mid"].kind == "arrangement"
    assert kinds["a/performance.mid", "a/piece.mid"].second_span[1] > 60
    assert 0.5 <= kinds["c/recording.flac", "c/recording.mp3"].confidence <= 0.9


def test_the_command_prints_lines_json_and_csv(tmp_path, capsys, monkeypatch):
    from modeling_pianobind import cli
    from modeling_pianobind.commands import duplicates as duplicates_command

    class Known:
        def __init__(self, *_):
            pass

        def open(self):
            return index_of(FILES), []

    monkeypatch.setattr(duplicates_command, "Collection", Known)
    (tmp_path / "piece.mid").touch()
    assert cli.main(["duplicates", str(tmp_path)]) == 0
    assert "10 of 12 files in 4 groups" in capsys.readouterr().out
    assert cli.main(["duplicates", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["pairs"][0]["first"] == "a/copy.mid"
    assert cli.main(["duplicates", str(tmp_path), "--csv"]) == 0
    assert len(list(csv.DictReader(io.StringIO(capsys.readouterr().out)))) == 9
    assert cli.main(["duplicates", str(tmp_path), "--confidence", "2"]) == 2
    assert "from 0 to 1" in capsys.readouterr().err
