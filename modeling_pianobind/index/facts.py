"""Facts of a file for filters and name search: length, tempo, key, and the names in its metadata."""

import math
import os
import warnings
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soundfile

from ..inputs_pianobind import SCORE_EXTENSIONS, gives_notes
from ..notes_pianobind import PianoNotes, notes_from_score, other_instruments, score_from
from ..score_pianobind import ScoreReading, read_score
from ..standard_midi_pianobind import tick_clock

if TYPE_CHECKING:
    import symusic

KEY_NAMES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
SAME_TONICS = {"d flat": 1, "d sharp": 3, "g flat": 6, "g sharp": 8, "a sharp": 10, "c flat": 11, "e sharp": 5}
MODES = ("major", "minor")
KEYS = tuple(f"{tonic} {mode}" for mode in MODES for tonic in KEY_NAMES)  # by their number in `FileFacts`
MAX_WEIGHT_SECONDS = 2.0  # longest duration that weighs a note in the key histogram
# A file's beats are those of the music where most onsets are on them; of notes at random times, less than half are.
GRID_STEPS, GRID_TOLERANCE_BEATS, GRID_SHARE = (4, 3), 0.02, 0.8
FRAME_SECONDS, BEAT_SECONDS, BEAT_OCTAVES = 0.01, 0.5, 0.9
MIN_BPM, MAX_BPM = 30.0, 300.0
TEMPO_SECONDS = 600.0  # of a piece from which its tempo is measured
MAX_NAME_CHARACTERS = 300


class FileFacts(NamedTuple):
    """Facts of a file as numbers; nan where unknown.

    Attributes:
        seconds (`float`): its length.
        tempo (`float`): beats a minute.
        key (`float`): 0 to 11 for C to B major, 12 to 23 for C to B minor.
        other_tracks (`float`): tracks of other instruments, or sung parts of a score, which were left out.
    """

    seconds: float
    tempo: float = math.nan
    key: float = math.nan
    other_tracks: float = 0.0


def read_facts(
    path: str | os.PathLike, spans: np.ndarray, reading: ScoreReading | None = None
) -> tuple[FileFacts, str]:
    """Reads the facts of a file, and the names in it, on one line.

    Args:
        path: of a file that was embedded.
        spans (`np.ndarray` of shape `(windows, 2)`): its windows in seconds, at least one.
        reading (`ScoreReading`, *optional*): what was read of it already.
    """
    try:
        if not gives_notes(path):
            return FileFacts(float(spans.max())), _tags(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when the file was embedded
            if reading is None and str(path).lower().endswith(SCORE_EXTENSIONS):
                reading = read_score(path)
            score = score_from(reading or path, str(path))
            notes = notes_from_score(score, str(path))
    except (OSError, ValueError):  # a file without readable facts keeps its embedding
        return FileFacts(float(spans.max())), ""
    names = " ".join(dict.fromkeys(track.name for track in score.tracks if len(track.notes)))
    others = reading.voices if reading else other_instruments(score)
    facts = FileFacts(notes.seconds, tempo_of(notes, score), key_of(notes), len(others))
    return facts, _line(names)


def _tags(path: str | os.PathLike) -> str:
    """Title, artist and album of a recording, as its container states them."""
    try:
        with soundfile.SoundFile(path) as sound:
            tags = sound.copy_metadata()
    except (soundfile.LibsndfileError, UnicodeDecodeError):
        return ""
    return _line(" ".join(tags[name] for name in ("title", "artist", "album", "genre") if tags.get(name)))


def _line(text: str) -> str:
    return " ".join(text.encode("utf-8", "ignore").decode().replace("\0", " ").split())[:MAX_NAME_CHARACTERS]


def key_of(notes: PianoNotes) -> int:
    """The key whose profile fits a piece's notes best, as in `FileFacts`."""
    weights = np.minimum(np.maximum(notes.duration, 0.03), MAX_WEIGHT_SECONDS)
    histogram = np.bincount(notes.pitch % 12, weights=weights, minlength=12)
    return int(np.argmax([(profile @ (histogram - histogram.mean())) for profile in transposed_profiles()]))


@cache
def transposed_profiles() -> np.ndarray:
    """Krumhansl and Kessler's profiles on all tonics, centred and of unit length: `(24, 12)`."""
    from ..note_statistics_pianobind import KEY_PROFILES  # needs torch, which has embedded the file

    profiles = np.stack([np.roll(profile, tonic) for profile in KEY_PROFILES for tonic in range(12)])
    profiles -= profiles.mean(axis=1, keepdims=True)
    return profiles / np.linalg.norm(profiles, axis=1, keepdims=True)


def tempo_of(notes: PianoNotes, score: "symusic.Score") -> float:
    """Beats a minute: as the file states them where its notes lie on its beats, else as the onsets repeat.

    A free performance often states 120, the default of MIDI.

    Args:
        notes (`PianoNotes`), score (`symusic.Score`): of the same file.
    """
    ticks = np.unique(np.concatenate([track.notes.numpy()["time"] for track in score.tracks if len(track.notes)]))
    beats = ticks / score.ticks_per_quarter
    off = np.min([np.abs(beats * steps - np.rint(beats * steps)) / steps for steps in GRID_STEPS], axis=0)
    seconds = tick_clock(score)(ticks)
    if len(ticks) > 3 and (off < GRID_TOLERANCE_BEATS).mean() >= GRID_SHARE and seconds[-1] > seconds[0]:
        return float(np.clip(60 * (beats[-1] - beats[0]) / (seconds[-1] - seconds[0]), MIN_BPM, MAX_BPM))
    return measured_tempo(notes.onset)


def measured_tempo(onset: np.ndarray) -> float:
    """Beats a minute by the autocorrelation of onsets, weighted towards beats that people feel; nan for too few notes.

    Source: Ellis, Beat Tracking by Dynamic Programming, 2007, for the weight of each lag.
    """
    onset = onset[onset < onset[0] + TEMPO_SECONDS]
    if len(np.unique(onset)) < 8:
        return math.nan
    frames = np.rint((onset - onset[0]) / FRAME_SECONDS).astype(int)
    onset_strength = np.sqrt(np.bincount(frames))  # a chord counts more than one note, less than all its notes
    onset_strength = np.convolve(onset_strength, (0.25, 0.5, 1.0, 0.5, 0.25), "same")
    spectrum = np.fft.rfft(onset_strength - onset_strength.mean(), 2 * len(onset_strength))
    repeats = np.fft.irfft(np.abs(spectrum) ** 2)[: len(onset_strength)]
    lags = np.arange(
        round(60 / MAX_BPM / FRAME_SECONDS), min(len(onset_strength), round(60 / MIN_BPM / FRAME_SECONDS))
    )
    if not len(lags):
        return math.nan
    weight = np.exp(-0.5 * (np.log2(lags * FRAME_SECONDS / BEAT_SECONDS) / BEAT_OCTAVES) ** 2)
    return float(60 / (FRAME_SECONDS * lags[np.argmax(repeats[lags] * weight)]))


def parse_key(text: str) -> int:
    """The key that a text such as "D minor", "f# major" or "Bb" names, as in `FileFacts`.

    Raises:
        ValueError: it names none.
    """
    words = text.replace("♯", "#").replace("♭", "b").strip().split()
    mode = words.pop().lower() if words and words[-1].lower() in MODES else "major"
    tonic = " ".join(words)
    if tonic[1:] in ("#", "b", "-sharp", "-flat"):
        tonic = tonic[0] + {"#": " sharp", "b": " flat"}.get(tonic[1:], tonic[1:].replace("-", " "))
    tonics = {name.lower(): place for place, name in enumerate(KEY_NAMES)} | SAME_TONICS
    if tonic.lower() not in tonics:
        raise ValueError(f'{text!r} is not a key; write it as "D minor", "F# major" or "Bb"')
    return tonics[tonic.lower()] + 12 * MODES.index(mode)


def key_name(key: float) -> str:
    """The name of a key of `FileFacts`; "" where it is not known."""
    return "" if math.isnan(key) else KEYS[int(key)]


__all__ = [
    "KEYS",
    "KEY_NAMES",
    "FileFacts",
    "key_name",
    "key_of",
    "measured_tempo",
    "parse_key",
    "read_facts",
    "tempo_of",
    "transposed_profiles",
]
