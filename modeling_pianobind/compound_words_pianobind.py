"""Compound words: the note rows of MIDI-BERT and of the published PianoBind, which count beats instead of seconds."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .notes_pianobind import PianoNotes, check_length, name_of, piano_tracks, score_from, window_starts
from .standard_midi_pianobind import tick_clock

FIELD_SIZES = (4, 18, 88, 66)  # bar, position, pitch, duration; the last two ids of each are PAD and MASK
BEAT_TICKS = 480
GRID_TICKS, GRID_PLACES = BEAT_TICKS // 4, 16  # a sixteenth; a bar has 16 of them, whatever the file's time signature
DURATION_TICKS, DURATIONS = 60, 64
LOWEST_PITCH, HIGHEST_PITCH = 22, 107


@dataclass
class CompoundNotes(PianoNotes):
    """`PianoNotes` with their place in the score; sorted by onset, then track, then pitch.

    Attributes:
        grid (`np.ndarray` int64): sixteenths from the start of the piece.
        duration_steps (`np.ndarray` int64): 0 to 63, for 1 to 64 thirty-second notes.
        grid_seconds (`np.ndarray` float64): time of that sixteenth, to a hundredth of a second.
    """

    grid: np.ndarray
    duration_steps: np.ndarray
    grid_seconds: np.ndarray

    def crop(self, start_seconds: float, end_seconds: float) -> "CompoundNotes":
        """The notes that begin in `[start_seconds, end_seconds)`, times counted from `start_seconds`."""
        notes = super().crop(start_seconds, end_seconds)
        notes.grid_seconds = notes.grid_seconds - start_seconds
        return notes


def read_compound_notes(source: Any, solo_only: bool = False) -> CompoundNotes:
    """Reads the notes of a MIDI file with their places in the score.

    Args:
        source (`str`, `Path`, `bytes`, `symusic.Score` or `CompoundNotes`): a file, its content, or notes.
        solo_only (`bool`): as in `read_midi`.
    Returns:
        `CompoundNotes`, without the notes below 22 or above 107, which the vocabulary does not have.
    Raises:
        FileNotFoundError, PermissionError, IsADirectoryError: the file cannot be opened.
        ValueError: the content is not MIDI, is damaged, holds no piano notes, or other instruments if `solo_only`; or
            `source` is `PianoNotes` of seconds, which have no bars.
    Source: the rules of MIDI-BERT's data preparation (arXiv 2107.05223, section 3.1). Differs: a file of another
        resolution than 480 ticks a beat is rescaled.
    """
    if isinstance(source, CompoundNotes):
        return source
    if isinstance(source, PianoNotes):
        raise ValueError(
            "these PianoNotes do not know their bars; pass the MIDI file, or this processor's `read` of it."
        )
    name = name_of(source)
    score = score_from(source, name, solo_only)
    arrays = [track.notes.numpy() for track in piano_tracks(score, name, solo_only)]
    start, length, pitch, velocity = (
        np.concatenate([array[field] for array in arrays]).astype(np.int64)
        for field in ("time", "duration", "pitch", "velocity")
    )
    track = np.repeat(np.arange(len(arrays)), [len(array["time"]) for array in arrays])
    known = (pitch >= LOWEST_PITCH) & (pitch <= HIGHEST_PITCH)
    if not known.any():
        raise ValueError(f"{name}: none of its notes lies between MIDI pitch 22 and 107; check its transposition.")
    order = np.lexsort((pitch, track, start))
    order = order[known[order]]
    start, length, pitch, velocity = start[order], np.maximum(length[order], 0), pitch[order], velocity[order]

    seconds, resolution = tick_clock(score), score.ticks_per_quarter
    begin, end = (_rescaled(ticks, resolution) for ticks in (start, start + length))
    last = max(-(-begin[-1] // GRID_TICKS) - 1, 0)  # the original's grid ends before the last note's own start
    grid = np.minimum((begin + GRID_TICKS // 2 - 1) // GRID_TICKS, last)  # the nearest; between two, the earlier
    steps = -((DURATION_TICKS // 2 - (end - begin)) // DURATION_TICKS) - 1
    onset, release = seconds(start), seconds(start + length)
    check_length(score, start, release.max(), name)
    return CompoundNotes(
        onset=onset,
        duration=(release - onset).astype(np.float32),
        pitch=pitch,
        velocity=np.clip(velocity, 1, 127),
        pedal=np.zeros(len(pitch), np.float32),
        grid=grid,
        duration_steps=np.clip(steps, 0, DURATIONS - 1),
        grid_seconds=np.round(seconds(grid * GRID_TICKS * resolution / BEAT_TICKS), 2),
    )


def _rescaled(ticks: np.ndarray, resolution: int) -> np.ndarray:
    return (ticks * 2 * BEAT_TICKS + resolution) // (2 * resolution)


def compound_words(notes: CompoundNotes) -> np.ndarray:
    """Writes notes as compound words.

    Returns:
        `np.ndarray` of shape `(notes, 4)`, int64: bar (0 for a bar's first note, else 1), position (0 to 15), pitch
        (0 is MIDI pitch 22), duration (0 is a thirty-second note).
    """
    bar = notes.grid // GRID_PLACES
    continues = np.diff(bar, prepend=-1) == 0
    position, pitch = notes.grid % GRID_PLACES, notes.pitch - LOWEST_PITCH
    return np.stack([continues.astype(np.int64), position, pitch, notes.duration_steps], axis=1)


def compound_windows(
    notes: CompoundNotes, window_seconds: float, hop_seconds: float, max_notes: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Cuts a piece into windows that begin with a bar.

    A window runs from the bar whose first note is nearest to its start up to the bar after the one nearest to its end,
    or up to the piece's last bar, and keeps its first `max_notes` words. As in the original, the piece's last bar is
    thus left out, unless a window would hold nothing else.

    Returns:
        words (`list[np.ndarray]`): of shape `(notes, 4)`, one for each window in which a note begins.
        spans (`np.ndarray` of shape `(windows, 2)`): start and end of each window in seconds.
    """
    words = compound_words(notes)
    bars = np.flatnonzero(words[:, 0] == 0)
    starts = window_starts(notes.seconds, window_seconds, hop_seconds)
    begins = np.searchsorted(notes.onset, starts) < np.searchsorted(notes.onset, starts + window_seconds)
    begins[-1] |= not begins.any()  # all notes begin as the piece ends, and last no time
    starts = starts[begins]
    ends = starts + window_seconds
    times = notes.grid_seconds[bars]
    first, last = _nearest(times, starts), _nearest(times, ends)
    begin, end = bars[first], bars[np.minimum(last + 1, len(bars) - 1)]
    end = np.where(end > begin, end, len(words))
    cut = [words[b:e][:max_notes] for b, e in zip(begin, end, strict=True)]
    return cut, np.stack([starts, np.minimum(ends, notes.seconds)], axis=1)


def _nearest(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """For each moment the index of the nearest of the sorted `times`; between two the earlier, of equals the first."""
    after = np.minimum(np.searchsorted(times, moments), len(times) - 1)
    before = np.searchsorted(times, times[np.maximum(after - 1, 0)])
    return np.where(np.abs(times[before] - moments) <= np.abs(times[after] - moments), before, after)


__all__ = ["CompoundNotes", "compound_windows", "compound_words", "read_compound_notes"]
