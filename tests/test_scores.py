"""Scores: reading, marks, bad input."""

import io
import time
import zipfile

import numpy as np
import pytest

from modeling_pianobind import score_pianobind
from modeling_pianobind.notes_pianobind import read_midi
from modeling_pianobind.score_marks_pianobind import Measure, beats_of_words, tempo_changes, velocities
from modeling_pianobind.score_pianobind import read_score

pytest.importorskip("verovio")


def musicxml(measures: str, name: str = "Piano", parts: str = "", more: str = "") -> str:
    """One part of measures in 2/4, two divisions a quarter."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<score-partwise version="3.1"><part-list><score-part id="P1"><part-name>{name}</part-name></score-part>{parts}
</part-list><part id="P1">{measures}</part>{more}</score-partwise>"""


def note(step: str, octave: int = 4, quarters: float = 1, extra: str = "") -> str:
    pitch = f"<pitch><step>{step}</step><octave>{octave}</octave></pitch>"
    kind = {0.5: "eighth", 1: "quarter", 2: "half"}[quarters]
    return f"<note>{pitch}<duration>{int(2 * quarters)}</duration><voice>1</voice><type>{kind}</type>{extra}</note>"


ATTRIBUTES = "<attributes><divisions>2</divisions><time><beats>2</beats><beat-type>4</beat-type></time></attributes>"


def words(text: str) -> str:
    return f"<direction><direction-type><words>{text}</words></direction-type></direction>"


def dynamic(sign: str) -> str:
    return f"<direction><direction-type><dynamics><{sign}/></dynamics></direction-type></direction>"


def two_measures(first: str = "", second: str = "", barline: str = "") -> str:
    return (
        f'<measure number="1">{ATTRIBUTES}{first}{note("C")}{note("D")}</measure>'
        f'<measure number="2">{second}{note("E", 5, 2)}{barline}</measure>'
    )


REPEAT = '<barline location="right"><repeat direction="backward"/></barline>'
SIMPLE = musicxml(two_measures(words("Andante") + dynamic("p"), dynamic("f"), REPEAT))
TIMEWISE = (
    SIMPLE.replace("score-partwise", "score-timewise")
    .replace('<part id="P1">', "")
    .replace("</part>", "")
    .replace('number="1">', 'number="1"><part id="P1">')
    .replace('number="2">', 'number="2"><part id="P1">')
    .replace("</measure>", "</part></measure>")
)
KERN = "**kern\t**dynam\n*Ipiano\t*\n*M2/4\t*\n!!!OMD: Andante\n=1\t=1\n4c\tp\n4d\t.\n=2\t=2\n2ee\tf\n==\t==\n*-\t*-\n"
ABC = "X:1\nT:Tune\nQ:1/4=76\nM:2/4\nL:1/4\nK:C\n!p!CD|!f!e2|\n"
MEI = """<?xml version="1.0"?><mei xmlns="http://www.music-encoding.org/ns/mei" meiversion="5.0"><music><body><mdiv>
<score><scoreDef meter.count="2" meter.unit="4"><staffGrp><staffDef n="1" lines="5" clef.shape="G" clef.line="2"/>
</staffGrp></scoreDef><section><measure n="1"><staff n="1"><layer n="1"><note pname="c" oct="4" dur="4"/><note
pname="d" oct="4" dur="4"/></layer></staff><tempo tstamp="1">Andante</tempo><dynam tstamp="1">p</dynam></measure>
<measure n="2"><staff n="1"><layer n="1"><note pname="e" oct="5" dur="2"/></layer></staff>
<dynam tstamp="1">f</dynam></measure>
</section></score></mdiv></body></music></mei>"""


def zipped(content, member="score.xml", listed=None, container=True):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        if container:
            archive.writestr("META-INF/container.xml", f'<rootfile full-path="{listed or member}"/>')
        archive.writestr(member, content)
    return stream.getvalue()


def test_a_score_is_read_with_tempo_words_dynamics_and_repeats():
    notes = read_midi(SIMPLE.encode())
    beat = 60 / 76
    assert notes.pitch.tolist() == [60, 62, 76] * 2
    np.testing.assert_allclose(notes.onset, np.array([0, 1, 2, 4, 5, 6]) * beat, atol=1e-3)
    assert notes.velocity[0] == notes.velocity[3] < notes.velocity[2]
    starts, names = read_score(SIMPLE.encode()).measure_starts()
    np.testing.assert_allclose(starts, np.array([0, 2, 4, 6]) * beat, atol=1e-3)
    assert names == ["1", "2", "1", "2"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.musicxml", SIMPLE), ("a.xml", SIMPLE.encode("utf-16")), ("b.xml", TIMEWISE), ("a.mxl", zipped(SIMPLE)),
     ("a.krn", KERN), ("a.abc", ABC), ("a.mei", MEI)],
)  # fmt: skip
def test_every_format_gives_the_same_notes(name, content, tmp_path):
    path = tmp_path / name
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(content)
    for notes in (read_midi(path), read_midi(content)):
        assert notes.pitch.tolist()[:3] == [60, 62, 76]
        assert notes.onset[1] == pytest.approx(60 / (88 if name == "a.krn" else 76), abs=1e-3)
        assert notes.velocity[0] < notes.velocity[2]


def test_pedal_marks_become_pedal():
    pedal = "<direction><direction-type><pedal type='{}'/></direction-type></direction>"
    score = musicxml(two_measures(pedal.format("start"), pedal.format("stop")))
    notes = read_midi(score.encode())
    assert notes.pedal[0] > 0.3 and notes.pedal[2] == 0


@pytest.mark.parametrize(
    ("text", "beats"),
    [("Andante", 76), ("Allegro ma non troppo", 116), ("ANDANTINO", 84), ("Sehr langsam", 42), ("Vif", 152),
     ("Slowly", 54), ("Ped.", None), ("Lebhaft und mit Humor", 132), ("x" * 100 + " presto", None),
     ("Adagio sostenuto", 54), ("Andante maestoso", 76), ("Maestoso", 116), ("Allegro vivace", 144),
     ("Mäßig schnell", 116), ("Pas vite", 112), ("Assez vif", 138), ("Quickly, with spirit", 152), ("Con brio", 144)],
)  # fmt: skip
def test_tempo_words(text, beats):
    assert beats_of_words(text) == beats


@pytest.mark.parametrize("tempo", ["0.0001", "0", "-60", "100000000"])
def test_a_tempo_that_nobody_can_play_is_none(tempo):
    notes = read_midi(musicxml(two_measures(f'<sound tempo="{tempo}"/>')).encode())
    np.testing.assert_allclose(notes.onset, np.array([0, 1, 2]) * 0.6, atol=1e-3)


def mark(text, at=0.0, what="dir", **more):
    return {"what": what, "text": text, "at": at, **more}


def test_tempi_follow_the_meter_and_come_back():
    measures = [
        Measure(0, "1", (6, 8), [mark("Allegretto")]),
        Measure(3, "2", (6, 8), [mark("più mosso")]),
        Measure(6, "3", (6, 8), [mark("a tempo")]),
    ]
    assert tempo_changes(measures, []) == [(0, 168.0), (3, pytest.approx(201.6)), (6, 168.0)]
    measures[1].marks[0]["text"] = "meno mosso, più lento"
    assert tempo_changes(measures, [])[1] == (3, pytest.approx(139.44)), "slower than before, and no lento"
    # A number in the file stands above the words beside it.
    assert tempo_changes(measures, [(0.0, 90.0)])[0] == (0.0, 90.0)
    assert tempo_changes([Measure(0, "1")], []) == [(0, 100.0)]


def test_a_hairpin_leads_to_the_next_dynamic():
    measures = [
        Measure(0, "1", (4, 4), [mark("p", what="dynam"), mark("", what="hairpin", form="cres", end=[1, 0.0])]),
        Measure(4, "2", (4, 4), [mark("f", what="dynam"), mark("sf", 2.0, "dynam")]),
    ]
    loud = velocities(measures, np.arange(8.0))
    assert loud[0] == 50 and loud[4] == 84 and (np.diff(loud[:5]) > 0).all()
    assert loud[6] == 100 and loud[7] == 84


def test_a_hundred_thousand_marks_take_seconds():
    texts = ("Presto", "più mosso", "cresc.", "f", "sf")
    marks = [mark(texts[number % 5], number * 1e-4, ("dir", "dynam")[number % 5 > 2]) for number in range(100_000)]
    measures = [Measure(0, "1", (4, 4), marks)]
    begin = time.process_time()
    tempo_changes(measures, [(number * 1e-4, 100.0) for number in range(100_000)])
    velocities(measures, np.linspace(0, 10, 100_000))
    assert time.process_time() - begin < 10


VOICE = '<score-part id="P2"><part-name>Voice</part-name></score-part>'
SUNG = f'<part id="P2"><measure number="1">{ATTRIBUTES}{note("G", 5, 2)}</measure></part>'
SONG = musicxml(two_measures(), parts=VOICE, more=SUNG)


def test_piano_and_voice_give_the_piano_and_say_so():
    with pytest.warns(UserWarning, match="its piano part is taken, without Voice") as said:
        notes = read_midi(SONG.encode())
    assert notes.pitch.tolist() == [60, 62, 76] and len(said) == 1


def test_solo_only_refuses_a_score_with_a_voice(tmp_path, recwarn):
    (tmp_path / "song.musicxml").write_text(SONG)
    for source in (SONG.encode(), tmp_path / "song.musicxml", read_score(SONG.encode())):
        with pytest.raises(ValueError, match="not for a piano alone, it has a part for Voice; leave it out"):
            read_midi(source, solo_only=True)
    assert len(read_midi(SIMPLE.encode(), solo_only=True)) == 6 and not recwarn.list


BOMB = zipped(SIMPLE[:-20] + " " * (30 << 20))
ENTITIES = SIMPLE.replace("<score-partwise", '<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><score-partwise', 1)
EXTERNAL = SIMPLE.replace(
    "<score-partwise", '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><score-partwise', 1
)
STAVES = "".join(f'<score-part id="Q{n}"><part-name>Piano</part-name></score-part>' for n in range(100))
STAFF_PARTS = "".join(
    f'<part id="Q{n}"><measure number="1">{ATTRIBUTES}{note("C")}</measure></part>' for n in range(100)
)
BAD = {
    "bomb.mxl": (BOMB, "larger than 24 MB"),
    "entities.xml": (ENTITIES, "declares entities"),
    "external.xml": (EXTERNAL, "declares entities"),
    "paths.mxl": (zipped(SIMPLE, "../../x.xml", "/etc/passwd"), "holds no score"),
    "empty.mxl": (zipped(SIMPLE, container=False), "holds no score"),
    "cut.mxl": (zipped(SIMPLE)[:100], "archive is damaged"),
    "other.xml": ("<?xml version='1.0'?><!-- <mei> --><svg><note/></svg>", "this XML is not a score .it holds <svg>"),
    "cut.musicxml": (SIMPLE[: len(SIMPLE) // 2], "XML is damaged or cut off"),
    "empty.mei": ("", "the file is empty"),
    "text.abc": ("no music here", "not MusicXML, MEI, Humdrum or ABC"),
    "silent.musicxml": (musicxml(""), "silent.musicxml: "),
    "violin.musicxml": (musicxml(two_measures(), "Violin I"), "parts for Violin I"),
    "song.musicxml": (musicxml(two_measures(), "Soprano"), "voices alone .Soprano"),
    "staves.musicxml": (musicxml(two_measures(), parts=STAVES, more=STAFF_PARTS), "it has 101 staves"),
    "binary.krn": ("**kern\0\1\2", "the content is not text"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_score_is_one_clear_line(name, tmp_path):
    content, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=message) as caught:
        read_midi(path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "large.musicxml"
    with path.open("wb") as handle:
        handle.truncate(100 << 20)
    with pytest.raises(ValueError, match="larger than 24 MB"):
        read_midi(path)


def test_without_verovio_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("modeling_pianobind.score_pianobind.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "pianobind\[scores\]"'):
        read_midi(SIMPLE.encode())


@pytest.fixture
def no_readers():
    score_pianobind.stop_workers()
    yield
    score_pianobind.stop_workers()


def test_a_reader_that_dies_takes_down_nothing_else(monkeypatch, tmp_path, no_readers):
    (tmp_path / "dies.py").write_text("import os, sys; sys.stdin.buffer.read(9); os.abort()")
    with monkeypatch.context() as changed:
        changed.setattr(score_pianobind, "WORKER", str(tmp_path / "dies.py"))
        with pytest.raises(ValueError, match="its process ended"):
            read_midi(SIMPLE.encode())
    assert len(read_midi(SIMPLE.encode())) == 6
    worker = score_pianobind.idle_workers.get()
    worker.process.kill()  # as the system does when memory runs out
    worker.process.wait()
    score_pianobind.idle_workers.put(worker)
    assert len(read_midi(SIMPLE.encode())) == 6


def test_a_reader_that_earlier_scores_have_worn_out_is_replaced(monkeypatch, no_readers):
    assert len(read_midi(SIMPLE.encode())) == 6
    worn, started = score_pianobind.idle_workers.get(), score_pianobind.ScoreWorker
    monkeypatch.setattr(worn, "ask", lambda question: setattr(worn, "asked", 9))  # its process has ended
    score_pianobind.idle_workers.put(worn)
    assert len(read_midi(SIMPLE.encode())) == 6 and not worn.is_alive
    made = []
    monkeypatch.setattr(score_pianobind, "ScoreWorker", lambda: made.append(1) or started())
    monkeypatch.setattr(score_pianobind, "MAX_SCORES_A_WORKER", 2)
    for _ in range(4):
        read_midi(SIMPLE.encode())
    assert len(made) == 2


def test_a_reader_that_takes_too_long_is_ended(monkeypatch, tmp_path, no_readers):
    (tmp_path / "sleeps.py").write_text("import time; time.sleep(600)")
    monkeypatch.setattr(score_pianobind, "WORKER", str(tmp_path / "sleeps.py"))
    monkeypatch.setattr(score_pianobind, "MAX_SECONDS", 0.5)
    with pytest.raises(ValueError, match="did not finish"):
        read_midi(SIMPLE.encode())
