"""MIDI file -> piano notes in seconds; `midi_pianobind` turns them into note rows."""

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import symusic

from .inputs_pianobind import SCORE_EXTENSIONS, content_kind, content_modality
from .score_pianobind import ScoreReading, read_score
from .standard_midi_pianobind import PIANO_PROGRAMS, tick_clock

LOWEST_KEY, HIGHEST_KEY = 21, 108  # A0 and C8 as MIDI pitches
MAX_HOURS = 24.0  # longer files are damaged: a single wrong time can mean a century
MAX_NOTES = 300_000  # eight hours at ten notes a second; more would take the tower minutes
MAX_PEDAL_SECONDS = 10.0  # a string has decayed by then, however long the pedal stays down


@dataclass
class PianoNotes:
    """Notes sorted by onset, then pitch; one array entry a note.

    Attributes:
        onset (`np.ndarray` float64): seconds from the start of the piece.
        duration (`np.ndarray` float32): seconds that the key is held.
        pitch (`np.ndarray` int64): MIDI pitch, 21 (A0) to 108 (C8).
        velocity (`np.ndarray` int64): 1 to 127.
        pedal (`np.ndarray` float32): seconds that the sustain pedal lets the note ring on after the key is released.
    """

    onset: np.ndarray
    duration: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    pedal: np.ndarray

    def __len__(self) -> int:
        return len(self.onset)

    @property
    def seconds(self) -> float:
        """Time from 0 to the last key release."""
        return float((self.onset + self.duration).max()) if len(self) else 0.0

    def take(self, index: slice | np.ndarray) -> "PianoNotes":
        """The notes at `index` (slice, mask or positions), times unchanged."""
        return type(self)(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def crop(self, start_seconds: float, end_seconds: float) -> "PianoNotes":
        """The notes that begin in `[start_seconds, end_seconds)`, their onsets counted from `start_seconds`."""
        first, last = np.searchsorted(self.onset, (start_seconds, end_seconds))
        notes = self.take(slice(first, last))
        notes.onset = notes.onset - start_seconds
        return notes


class PrintedNotes(PianoNotes):
    """Notes of a score, as printed; `PianoBindMidiProcessor.windows` gives them the irregularities of playing."""


def read_midi(source: Any, solo_only: bool = False) -> PianoNotes:
    """Reads the notes of a MIDI file or a score.

    Args:
        source (`str`, `Path`, `bytes`, `symusic.Score` or `PianoNotes`): a file, its content, or what was read of it;
            what is a score (MusicXML, MEI, Humdrum, ABC) is known by its content.
        solo_only (`bool`): refuse a file with other instruments or voices; by default only its piano part is read.
    Returns:
        `PianoNotes`, all the piano's tracks and channels together; of a score `PrintedNotes`.
    Raises:
        FileNotFoundError, PermissionError, IsADirectoryError: the file cannot be opened.
        ValueError: the content is not MIDI, is damaged, holds no piano notes, or other instruments if `solo_only`.
    """
    if isinstance(source, PianoNotes):
        if not len(source):
            raise ValueError("the given PianoNotes hold no note; leave the piece out.")
        return source
    name = name_of(source)
    notes = notes_from_score(score_from(source, name, solo_only), name, solo_only)
    return PrintedNotes(**vars(notes)) if _is_printed(source) else notes


def _is_printed(source: Any) -> bool:
    """Whether a source of `read_midi` is a score: a file by its name, its content by the first bytes."""
    if isinstance(source, (str, Path)):
        return str(source).lower().endswith(SCORE_EXTENSIONS)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return content_modality(bytes(source[:12])) == "score"
    return isinstance(source, ScoreReading)


def name_of(source: Any) -> str:
    """Name of a source in error messages."""
    if isinstance(source, ScoreReading):
        return source.name
    return str(source) if isinstance(source, (str, Path)) else "the given MIDI"


def score_from(source: Any, name: str, solo_only: bool = False) -> symusic.Score:
    """Parses MIDI or a score into a symusic score in ticks; of a score with voices its piano part, with a warning.

    Args:
        source, solo_only: as in `read_midi`.
        name (`str`): of the file, for messages.
    Raises:
        OSError, ValueError: as `read_midi`.
    """
    if isinstance(source, symusic.core.ScoreTick):
        return source
    if _is_printed(source):
        return _piano_part(source if isinstance(source, ScoreReading) else read_score(source, name), solo_only)
    if isinstance(source, (str, Path)):
        with open(source, "rb") as handle:
            source = handle.read()
    content = bytes(source)
    _check_header(content, name)
    _check_chunks(content, name)
    try:
        # The zeros end a time or size that runs on beyond the last byte, which symusic does not check.
        return symusic.Score.from_midi(content + bytes(8))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"{name}: the MIDI data is damaged ({error}); export the file again.") from error


def _piano_part(reading: ScoreReading, solo_only: bool) -> symusic.Score:
    voices = ", ".join(reading.voices)
    if voices and solo_only:
        raise ValueError(f"{reading.name}: not for a piano alone, it has a part for {voices}; leave it out.")
    if voices:
        warnings.warn(
            f"{reading.name}: its piano part is taken, without {voices} (--solo-only refuses such files).",
            stacklevel=3,
        )
    return reading.midi


def _check_header(content: bytes, name: str) -> None:
    if not content:
        raise ValueError(f"{name}: the file is empty; copy or export it again.")
    kind = content_kind(content[:12])
    if kind == "a RIFF MIDI (.rmi) file":
        raise ValueError(f"{name}: this is a RIFF MIDI (.rmi) file; export it as a Standard MIDI File (.mid).")
    if content_modality(content[:12]) != "midi":
        raise ValueError(
            f"{name}: the content is {kind or 'not a MIDI file'}, whatever its name says; "
            "rename it, or export it as MIDI."
        )
    if len(content) < 14:
        raise ValueError(f"{name}: the file ends within its header ({len(content)} bytes); copy or export it again.")
    midi_type, division = int.from_bytes(content[8:10], "big"), int.from_bytes(content[12:14], "big")
    if midi_type > 1:
        raise ValueError(
            f"{name}: this is a Type {midi_type} MIDI file (separate sequences, not one piece); "
            "export it as Type 0 or Type 1."
        )
    if division & 0x8000 or division == 0:
        raise ValueError(
            f"{name}: its time division is {'SMPTE frames' if division else 'zero'}, not ticks a quarter note; "
            "export it with ticks a quarter note (PPQ)."
        )


def _check_chunks(content: bytes, name: str) -> None:
    """Refuses content that symusic does not check and that makes it access memory out of bounds."""
    tracks, at = int.from_bytes(content[10:12], "big"), 14
    while tracks:
        end = at + 8 + int.from_bytes(content[at + 4 : at + 8], "big")
        if end > len(content):
            raise ValueError(
                f"{name}: the MIDI data is damaged (the file ends within its tracks); copy or export it again."
            )
        if content[at : at + 4] == b"MTrk":
            tracks -= 1
            # Few files have these bytes: the slow walk through all events is rare.
            if re.search(rb"[\x8f\x9f][\x80-\xff]", content[at + 8 : end]) and not _keys_fit(content[at + 8 : end]):
                raise ValueError(f"{name}: the MIDI data is damaged (a note of a key above 127); export it again.")
        at = end


def _keys_fit(track: bytes) -> bool:
    """Whether no note of channel 16 has a key above 127, which is beyond symusic's table of sounding notes.

    Also False if a track has events that do not belong in a file, or a time or size of more than four bytes, from
    whose middle symusic would continue.
    """

    def quantity(at):
        value = 0
        for end in range(at, at + 4):
            value = value << 7 | track[end] & 0x7F
            if track[end] < 0x80:
                return value, end + 1
        raise OverflowError

    at = running = 0
    try:
        while at < len(track):
            start = quantity(at)[1]
            status = track[start]
            if status < 0x80:
                at = start + running - 1
                if not running:
                    return False
                continue
            if status in (0xF0, 0xFF):
                size, end = quantity(start + (2 if status == 0xFF else 1))
                if track[start : start + 2] == b"\xff\x2f":
                    return True
                at, running = end + size, 0  # the standard has no running status after these; symusic does
                continue
            if status > 0xF0 or (status in (0x8F, 0x9F) and track[start + 1] > 127):
                return False
            running = 2 if 0xC0 <= status < 0xE0 else 3
            at = start + running
    except OverflowError:
        return False
    except IndexError:
        pass  # the track ends within an event, which symusic refuses
    return True


def check_length(score: symusic.Score, start_ticks: np.ndarray, seconds: float, name: str) -> None:
    """Refuses implausible times.

    Args:
        score (`symusic.Score`): whose tempo changes have times too.
        start_ticks (`np.ndarray` of shape `(notes,)`): negative if a time does not fit in 31 bits.
        seconds (`float`): when the last note ends.
    """
    first_tick = min(start_ticks.min(), score.tempos.numpy()["time"].min(initial=0))
    if first_tick < 0 or seconds > 3600 * MAX_HOURS:
        raise ValueError(
            f"{name}: its last note ends after more than {MAX_HOURS:g} hours; its times are damaged, export it again."
        )


def piano_tracks(score: symusic.Score, name: str, solo_only: bool = False) -> list:
    """The piano's tracks that hold notes; what else a score holds is left out with a warning.

    Args:
        score (`symusic.Score`): in ticks.
        name (`str`): of the file, for messages.
        solo_only (`bool`): refuse a score of several instruments instead.
    Raises:
        ValueError: there is no note of a piano, or there are millions.
    """
    tracks = [track for track in score.tracks if len(track.notes)]
    if (notes := sum(len(track.notes) for track in tracks)) > MAX_NOTES:
        raise ValueError(
            f"{name}: it has {notes:,} notes, and a piece may have {MAX_NOTES:,}; split it, or export it again."
        )
    if not tracks:
        raise ValueError(f"{name}: there is no note in it; leave it out, or check how it was exported.")
    others = other_instruments(score)
    names = ", ".join(sorted(set(others)))
    if others and (solo_only or len(others) == len(tracks)):
        raise ValueError(
            f"{name}: not a piano piece, it has notes for {names}; keep only its piano tracks (programs 1-8)."
        )
    if others:
        taken = len(tracks) - len(others)
        warnings.warn(
            f"{name}: its {taken} piano {'track is' if taken == 1 else 'tracks are'} taken; notes for {names} are "
            "left out (--solo-only refuses such files).",
            stacklevel=2,
        )
    return [track for track in tracks if _is_piano(track)]


def other_instruments(score: symusic.Score) -> list[str]:
    """The instrument of each track that holds notes and is not a piano's."""
    return [_instrument(track) for track in score.tracks if len(track.notes) and not _is_piano(track)]


def _is_piano(track: symusic.Track) -> bool:
    return not track.is_drum and track.program in PIANO_PROGRAMS


def notes_from_score(score: symusic.Score, name: str, solo_only: bool = False) -> PianoNotes:
    """Piano notes of a symusic score in ticks; see `read_midi`."""
    tracks = piano_tracks(score, name, solo_only)
    seconds = tick_clock(score)
    arrays = [track.notes.numpy() for track in tracks]
    start_ticks = np.concatenate([array["time"] for array in arrays]).astype(np.int64)
    length_ticks = np.concatenate([array["duration"] for array in arrays]).astype(np.int64)
    pitch = np.concatenate([array["pitch"] for array in arrays]).astype(np.int64)
    velocity = np.concatenate([array["velocity"] for array in arrays]).astype(np.int64)
    onset, release = seconds(start_ticks), seconds(start_ticks + np.maximum(length_ticks, 0))
    check_length(score, start_ticks, release.max(), name)

    on_piano = (pitch >= LOWEST_KEY) & (pitch <= HIGHEST_KEY)
    if not on_piano.any():
        raise ValueError(f"{name}: none of its notes lies on a piano (MIDI pitch 21 to 108); check its transposition.")
    if not on_piano.all():
        warnings.warn(
            f"{name}: {(~on_piano).sum()} of {len(pitch)} notes lie outside the piano's 88 keys and are left out.",
            stacklevel=2,
        )
    # A pedal may stand in a track without notes, of any program; that of another instrument is not the piano's.
    pedals = [track for track in score.tracks if len(track.pedals) and (not len(track.notes) or _is_piano(track))]
    pedal_ticks = [track.pedals.numpy() for track in pedals]
    pedal = _pedal_seconds(release, pedal_ticks, seconds)
    order = np.argsort(start_ticks * 128 + pitch, kind="stable")  # one key sorts faster than lexsort's two
    order = order[on_piano[order]]
    return PianoNotes(
        onset[order],
        (release - onset)[order].astype(np.float32),
        pitch[order],
        np.clip(velocity[order], 1, 127),
        pedal[order].astype(np.float32),
    )


def _instrument(track: symusic.Track) -> str:
    return "drums (channel 10)" if track.is_drum else f"program {track.program + 1}"


def _pedal_seconds(
    release: np.ndarray, pedal_ticks: list[dict[str, np.ndarray]], seconds: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """How long each note rings on after its release, because the pedal is down at that moment."""
    if not pedal_ticks:
        return np.zeros_like(release)
    down = seconds(np.concatenate([array["time"] for array in pedal_ticks]).astype(np.int64))
    length = np.concatenate([array["duration"] for array in pedal_ticks]).astype(np.int64)
    up = seconds(np.concatenate([array["time"] for array in pedal_ticks]).astype(np.int64) + length)
    order = np.argsort(down, kind="stable")
    down, up = down[order], np.maximum.accumulate(up[order])
    held = np.searchsorted(down, release, side="right") - 1
    ring = np.where(held >= 0, up[np.maximum(held, 0)] - release, 0.0)
    return np.clip(ring, 0.0, MAX_PEDAL_SECONDS)


def window_starts(seconds: float, window_seconds: float, hop_seconds: float) -> np.ndarray:
    """Window rule of recordings and MIDI: a window begins at each hop, and the last one reaches the end.

    Returns:
        `np.ndarray` of shape `(windows,)`: start of each window in seconds; at least one.
    """
    count = 1 + max(0, math.ceil((seconds - window_seconds) / hop_seconds - 1e-9))
    return np.arange(count) * hop_seconds


__all__ = [
    "HIGHEST_KEY",
    "LOWEST_KEY",
    "PianoNotes",
    "PrintedNotes",
    "check_length",
    "name_of",
    "notes_from_score",
    "other_instruments",
    "piano_tracks",
    "read_midi",
    "score_from",
    "tick_clock",
    "window_starts",
]
