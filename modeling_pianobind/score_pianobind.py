"""Scores (MusicXML, MEI, Humdrum, ABC) -> what MIDI gives: notes with tempo, dynamics and pedal; and their measures.

verovio (extra `[scores]`) reads them in a process of its own (`score_worker_pianobind`), since it is C++ and takes
whatever bytes it is given.
"""

import atexit
import base64
import binascii
import contextlib
import io
import json
import lzma
import os
import queue
import re
import signal
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from xml.parsers.expat import ExpatError, ParserCreate

import numpy as np
import symusic

from .decoding_pianobind import MissingDecoderError
from .score_marks_pianobind import Measure, tempo_changes, velocities
from .score_ornaments_pianobind import Ornament, with_ornaments
from .score_worker_pianobind import __file__ as WORKER
from .standard_midi_pianobind import PIANO_PROGRAMS, tick_clock

MAX_SCORE_BYTES = 24 << 20  # six times the longest piano score of the corpus
MAX_CONTAINER_BYTES = 1 << 16
MAX_SECONDS = 300.0  # of the clock for one score; the worker allows itself far fewer of CPU
MAX_SCORES_A_WORKER = 50  # verovio keeps some memory of each
MAX_STAVES = 12
MIN_TEMPO, MAX_TEMPO = 5.0, 1500.0  # quarters a minute
TICKS = 960  # of a quarter, or the next multiple of verovio's
OUT_OF_TIME = {-getattr(signal, "SIGXCPU", 0)} - {0}  # exit status of a worker that used its CPU time up
ENCODINGS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
DECLARED = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
FULL_PATH = re.compile(rb"""full-path\s*=\s*["']([^"']{1,1000})["']""")
# What zipfile raises for damaged archives: it trusts the offsets in them.
DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)
ROOTS = {"score-partwise": "xml", "score-timewise": "timewise", "mei": "mei"}
VOICES = re.compile(
    r"\b(voice|voices|vocal|vocals|soprano|mezzo|alto|contralto|tenor|baritone|bariton|choir|chorus|chor|singer|gesang|"
    r"singstimme|stimme|canto|voce|chant|voix|solo voice|melody|lyrics)\b"
)
OTHERS = re.compile(
    r"\b(violin\w*|viola|violas|viole|cello|violoncello|violoncelle|contrabass\w*|kontrabass|double bass|bass guitar|"
    r"guitar|gitarre|guitare|chitarra|flute|flöte|flûte|flauto|piccolo|oboe|hautbois|clarinet\w*|klarinette\w*|"
    r"bassoon|fagott\w*|basson|saxophone|sax|horn|trumpet|trompete|tromba|trompette|trombone|posaune|tuba|timpani|"
    r"pauken|drum|drums|drumset|percussion|harp|harfe|arpa|marimba|vibraphone|xylophone|glockenspiel|organ|orgel|"
    r"orgue|organo|violino|mandolin\w*|accordion|banjo|ukulele|recorder|blockflöte|strings|violon\w*|alt ?sax\w*)\b"
)
CHOIR_PROGRAMS = range(52, 55)


@dataclass
class ScoreReading:
    """What was read of a score.

    Attributes:
        midi (`symusic.Score`): its piano part, in ticks.
        measures (`list[Measure]`): as they are played, repeats and all.
        name (`str`): what error messages call it.
        voices (`list[str]`): the sung parts that were left out.
    """

    midi: symusic.Score
    measures: list[Measure]
    name: str
    voices: list[str] = field(default_factory=list)

    def measure_starts(self) -> tuple[np.ndarray, list[str]]:
        """When each measure begins, in seconds, and its name."""
        ticks = np.array([round(measure.start * self.midi.ticks_per_quarter) for measure in self.measures], np.int64)
        return tick_clock(self.midi)(ticks), [measure.name for measure in self.measures]

    def measures_of(self, spans: np.ndarray) -> np.ndarray:
        """The numbers of the first and last measure of spans of seconds.

        Returns:
            `np.ndarray` of shape `(len(spans), 2)`, int32; 0 where a measure has no number.
        """
        starts, names = self.measure_starts()
        if not names:
            return np.zeros((len(spans), 2), np.int32)
        numbers = np.array(
            [int(digits[0][:6]) if (digits := re.findall(r"\d+", name)) else 0 for name in names], np.int32
        )
        first = np.searchsorted(starts, spans[:, 0] + 1e-3, side="right") - 1
        last = np.searchsorted(starts, spans[:, 1] - 1e-3, side="left") - 1
        return numbers[np.stack([np.maximum(first, 0), np.maximum(last, np.maximum(first, 0))], axis=1)]


def read_score(source: str | os.PathLike | bytes, name: str | None = None) -> ScoreReading:
    """Reads a score.

    Args:
        source (`str`, `Path` or `bytes`): a file, or its content.
        name (`str`, *optional*): what error messages call it.
    Raises:
        OSError: the file cannot be opened.
        ValueError: it is not a score, damaged, too large, or for other instruments.
        MissingDecoderError: verovio is not installed.
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else "the given score")
    answer = ask_verovio(*_text_and_kind(source, name), "read", name)
    measures = [
        Measure(float(start), label, tuple(meter) if meter else None, marks)
        for start, label, meter, marks in answer["measures"]
    ]
    kept, voices = _piano_staves(answer["staves"], name)
    try:
        content = base64.b64decode(answer["midi"], validate=True)
        if len(kept) < len(answer["staves"]):
            content = _without_staves(content, answer["staves"], kept, name)
        midi = symusic.Score.from_midi(content)
    except (binascii.Error, RuntimeError, IndexError) as error:
        raise ValueError(f"{name}: verovio made no music of this score; export it again.") from error
    ornaments = [Ornament(*values) for values in answer["ornaments"]]
    return ScoreReading(_played(midi, measures, ornaments), measures, name, voices)


@dataclass
class DrawnPage:
    """A page of a score.

    Attributes:
        svg (`str`): the drawing.
        size (`tuple[float, float]`): width and height of its coordinates.
        boxes (`dict[int, tuple]`): left, top, width and height of the measures on it, by their places in the order in
            which they are played.
    """

    svg: str
    size: tuple[float, float]
    boxes: dict[int, tuple[float, float, float, float]]


def draw_score(source: str | os.PathLike | bytes, measure: int, name: str | None = None) -> DrawnPage:
    """Draws the page with a measure.

    Args:
        measure (`int`): its place in the order in which measures are played.
        source, name: as in `read_score`.
    Raises:
        OSError, ValueError: as `read_score`; or there is no such measure.
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else "the given score")
    answer = ask_verovio(*_text_and_kind(source, name), "draw", name, measure)
    return DrawnPage(answer["svg"], tuple(answer["size"]), {place: tuple(box) for place, *box in answer["boxes"]})


def _text_and_kind(source: str | os.PathLike | bytes, name: str) -> tuple[str, str]:
    """A score's text, and the worker's name of its format."""
    if isinstance(source, (str, Path)):
        with open(source, "rb") as handle:
            source = handle.read(MAX_SCORE_BYTES + 1)
    content = bytes(source)
    if not content:
        raise ValueError(f"{name}: the file is empty; copy or export it again.")
    _check_size(content, name)
    if content.startswith(b"PK\x03\x04"):
        content = _unpacked(content, name)
    text = _decoded(content, name)
    start = text.lstrip()
    if start.startswith("<"):
        return text, _xml_kind(text, name)
    if re.search(r"^\*\*kern\b", text, re.MULTILINE) or "\t**kern" in text:
        return text, "humdrum"
    if re.search(r"^X:", text, re.MULTILINE) and re.search(r"^K:", text, re.MULTILINE):
        return text, "abc"
    raise ValueError(f"{name}: the content is not MusicXML, MEI, Humdrum or ABC; export it as MusicXML.")


def _xml_kind(text: str, name: str) -> str:
    """What the worker calls a format of XML, by its first element; the XML is whole, and declares no entities."""
    tags = []

    def refuse(*_):
        raise ValueError(f"{name}: its XML declares entities, which no score needs; export it again.")

    parser = ParserCreate("utf-8")
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = lambda tag, _: tags or tags.append(tag.rpartition(":")[2])
    try:
        parser.Parse(text.encode(), True)
    except ExpatError as error:
        raise ValueError(f"{name}: its XML is damaged or cut off ({error}); copy or export it again.") from error
    if tags[0] not in ROOTS:
        raise ValueError(
            f"{name}: this XML is not a score (it holds <{tags[0][:40]}>, not <score-partwise> or <mei>); "
            "export it as MusicXML or MEI."
        )
    return ROOTS[tags[0]]


def _check_size(content: bytes, name: str) -> None:
    if len(content) > MAX_SCORE_BYTES:
        raise ValueError(
            f"{name}: it is larger than {MAX_SCORE_BYTES >> 20} MB, and no piano score is; export one piece."
        )


def _unpacked(content: bytes, name: str) -> bytes:
    """The score in a compressed MusicXML file; nothing is written to disk, so no name in it can lead anywhere."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            listed = FULL_PATH.search(_member(archive, "META-INF/container.xml"))
            score = _member(archive, listed[1].decode("utf-8", "replace"), MAX_SCORE_BYTES + 1) if listed else b""
    except KeyError as error:
        raise ValueError(
            f"{name}: this ZIP archive holds no score; give a .mxl that a notation program wrote."
        ) from error
    except DAMAGED_ZIP as error:
        raise ValueError(f"{name}: the archive is damaged, or has a password; export it again.") from error
    if not score:
        raise ValueError(f"{name}: the archive names no score, or an empty one; export it again as MusicXML.")
    _check_size(score, name)
    return score


def _member(archive: zipfile.ZipFile, member: str, limit: int = MAX_CONTAINER_BYTES) -> bytes:
    with archive.open(member) as handle:
        return handle.read(limit)  # whatever size the archive states


def _decoded(content: bytes, name: str) -> str:
    declared = DECLARED.match(content)
    encoding = next((named for mark, named in ENCODINGS if content.startswith(mark)), None)
    encoding = encoding or (declared[1].decode().lower() if declared else "utf-8")
    try:
        text = content.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        text = content.decode("latin-1")  # old programs write it whatever they declare
    if "\0" in text:
        raise ValueError(f"{name}: the content is not text; export it again as MusicXML.")
    return text


class ScoreWorker:
    """A process with verovio; `asked` counts the scores that it was given."""

    def __init__(self):
        self.asked = 0
        self.process = subprocess.Popen(
            [sys.executable, "-EP", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, question: dict) -> dict | None:
        """The answer; None if the process ended. Raises TimeoutError if it takes too long, by the clock or of CPU."""
        content, process = json.dumps(question).encode(), self.process
        self.asked += 1
        timer = threading.Timer(MAX_SECONDS, process.kill)
        timer.start()
        try:
            process.stdin.write(len(content).to_bytes(8, "little") + content)
            process.stdin.flush()
            head = process.stdout.read(8)
            answer = process.stdout.read(int.from_bytes(head, "little")) if len(head) == 8 else b""
        except (BrokenPipeError, OSError):
            answer = b""
        finally:
            late = not timer.is_alive()
            timer.cancel()
        if answer:
            return json.loads(answer)
        if late or self.process.wait() in OUT_OF_TIME:
            raise TimeoutError
        return None

    def stop(self) -> None:
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):  # of a question that was still being written
            self.process.communicate()


# Workers that wait for a question; as many are started as threads read scores at once.
idle_workers: queue.SimpleQueue = queue.SimpleQueue()


def ask_verovio(text: str, kind: str, do: str, name: str, measure: int = 0) -> dict:
    if find_spec("verovio") is None:
        raise MissingDecoderError(f'{name}: reading scores needs verovio; run pip install "pianobind[scores]".')
    question = {"text": text, "kind": kind, "do": do, "measure": measure}
    worker = _waiting_worker()
    try:
        answer = worker.ask(question)
        if answer is None and worker.asked > 1:  # what earlier scores left in it may be the cause
            worker.stop()
            worker = ScoreWorker()
            answer = worker.ask(question)
    except TimeoutError as error:
        worker.stop()
        raise ValueError(f"{name}: verovio did not finish in the time that it may take; export it again.") from error
    except BaseException:
        worker.stop()  # a late answer must not reach the next request
        raise
    if answer is None:
        worker.stop()
        raise ValueError(f"{name}: verovio cannot read it (its process ended); export the score again.")
    if worker.asked < MAX_SCORES_A_WORKER:
        idle_workers.put(worker)
    else:
        worker.stop()
    if "error" in answer:
        raise ValueError(f"{name}: {answer['error']}; check the score, or export it again.")
    return answer


def _waiting_worker() -> ScoreWorker:
    while True:
        try:
            worker = idle_workers.get_nowait()
        except queue.Empty:
            return ScoreWorker()
        if worker.is_alive:
            return worker


@atexit.register
def stop_workers() -> None:
    while not idle_workers.empty():
        idle_workers.get().stop()


def _piano_staves(staves: list, name: str) -> tuple[set[str], list[str]]:
    """The numbers of the staves that a pianist plays, and the names of the voices that sing to them.

    Raises:
        ValueError: there are other instruments than piano and voices, or no piano, or too many staves.
    """
    if len(staves) > MAX_STAVES:
        raise ValueError(
            f"{name}: it has {len(staves)} staves, and a piano score two to four; extract the piano part."
        )
    kinds = {number: _part(names, program) for number, names, program in staves}
    others = sorted({" ".join(names[:1]) or f"program {int(program) + 1}"
                     for number, names, program in staves if kinds[number] == "other"})  # fmt: skip
    if others:
        raise ValueError(f"{name}: not a piano score, it has parts for {', '.join(others)}; keep only its piano part.")
    kept = {number for number, kind in kinds.items() if kind == "piano"}
    voices = sorted({" ".join(names[:1]) or "a voice" for number, names, _ in staves if kinds[number] == "voice"})
    if not kept and voices:
        raise ValueError(f"{name}: not a piano score, it has voices alone ({', '.join(voices)}); leave it out.")
    return kept, voices


def _part(names: list[str], program: str | None) -> str:
    """Player of a staff: "piano", "voice" or "other"; a staff that says nothing is a piano's."""
    said = " ".join(names).casefold()
    number = int(program) if program and program.isdecimal() else 0
    if re.search(r"piano|klavier|clavier|pianoforte|harpsichord|cembalo|clavecin|keyboard|celesta", said):
        return "piano"
    if VOICES.search(said) or number in CHOIR_PROGRAMS:
        return "voice"
    if OTHERS.search(said) or number not in PIANO_PROGRAMS:
        return "other"
    return "piano"


def _without_staves(midi: bytes, staves: list, kept: set[str], name: str) -> bytes:
    """MIDI whose tracks are one of tempi, then one for each staff, without the staves that are not kept."""
    chunks, at = [], 14
    while at + 8 <= len(midi):
        end = at + 8 + int.from_bytes(midi[at + 4 : at + 8], "big")
        chunks.append(midi[at:end])
        at = end
    if len(chunks) != len(staves) + 1:
        raise ValueError(f"{name}: its staves cannot be told apart; export its piano part alone.")
    tracks = [chunk for chunk, (number, *_) in zip(chunks[1:], staves, strict=True) if number in kept]
    return midi[:10] + (len(tracks) + 1).to_bytes(2, "big") + midi[12:14] + chunks[0] + b"".join(tracks)


def _played(midi: symusic.Score, measures: list[Measure], ornaments: list[Ornament]) -> symusic.Score:
    """Notes and pedals with tempi, loudness and ornaments by the score's marks."""
    scale = max(1, TICKS // midi.ticks_per_quarter)  # so that slow tempi keep the onsets of ornaments apart
    out = symusic.Score(midi.ticks_per_quarter * scale)
    written = [(tempo.time / midi.ticks_per_quarter, tempo.qpm) for tempo in midi.tempos]
    numbered = {
        measure.start + mark["at"]
        for measure in measures
        for mark in measure.marks
        if mark.keys() & {"midi.bpm", "mm"}
    }
    # Tempi out of range are errors of the score.
    written = [(at, qpm) for at, qpm in written if MIN_TEMPO <= qpm <= MAX_TEMPO]
    # verovio writes 120 where a score says nothing.
    written = [(at, qpm) for at, qpm in written if at > 0 or round(qpm) != 120 or 0.0 in numbered]
    for at, quarters in tempo_changes(measures, written):
        quarters = min(max(quarters, MIN_TEMPO), MAX_TEMPO)  # after many a "più mosso"
        out.tempos.append(symusic.Tempo(round(at * out.ticks_per_quarter), quarters))
    tempi = [(tempo.time, tempo.qpm) for tempo in out.tempos]
    for track in midi.tracks:
        notes = track.notes.numpy()
        notes = {"time": notes["time"] * scale, "duration": notes["duration"] * scale, "pitch": notes["pitch"]}
        notes = with_ornaments(notes, ornaments, out.ticks_per_quarter, scale, tempi)
        loud = velocities(measures, notes["time"] / out.ticks_per_quarter)
        played = symusic.Track(track.name, 0)
        played.notes = symusic.Note.from_numpy(**notes, velocity=loud.astype(np.int8))
        pedals = track.pedals.numpy()
        played.pedals = symusic.Pedal.from_numpy(pedals["time"] * scale, pedals["duration"] * scale)
        out.tracks.append(played)
    return out


__all__ = ["DrawnPage", "ScoreReading", "draw_score", "read_score"]
