"""MIDI -> note rows: the integers that the MIDI tower reads."""

import math
import reprlib
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin

from .compound_words_pianobind import FIELD_SIZES as COMPOUND_FIELD_SIZES
from .compound_words_pianobind import compound_windows, compound_words, read_compound_notes
from .inputs_pianobind import check_numbers
from .notes_pianobind import LOWEST_KEY, PianoNotes, PrintedNotes, read_midi, window_starts
from .score_playing_pianobind import as_played

PERFORMANCE_FIELDS = ("pitch", "onset_gap", "duration", "velocity", "pedal")
MIN_SETTINGS = {
    "window_seconds": 0.1,
    "hop_seconds": 0.01,  # a day of music has millions of windows then
    "max_notes": 1,
    "onset_gap_bins": 3,
    "duration_bins": 3,
    "velocity_bins": 1,
    "pedal_bins": 3,
}


class PianoBindMidiProcessor(FeatureExtractionMixin):
    """Turns MIDI into note rows, cut in windows of real time.

    A row of the default vocabulary has five fields: pitch (88 keys), time since the previous onset, duration, velocity
    and pedal (how long the sustain pedal lets the note ring on after its release). Times are logarithmic bins of
    seconds, so tempo and touch reach the model. The last two ids of each field are PAD and MASK.

    Args:
        representation (`str`): "performance" is the default vocabulary; "compound_word" that of the published
            PianoBind, whose rows have four fields (bar, position, pitch, duration) and whose windows begin with a bar,
            keep at most `max_notes` notes and are padded to that many.
        window_seconds (`float`): length of a window.
        hop_seconds (`float`): time between the starts of two windows.
        max_notes (`int`): a window with more notes is split into equal parts of at most this many.
        onset_gap_bins, duration_bins, pedal_bins, velocity_bins (`int`): vocabulary of a field without PAD and MASK.
        onset_gap_range, duration_range, pedal_range (`tuple[float, float]`): shortest and longest time in seconds that
            a field distinguishes; shorter ones are in bin 0, longer ones in the last bin.
        solo_only (`bool`): refuse MIDI files with other instruments and scores with voices; by default only their
            piano part is read.
    """

    model_input_names = ["midi_ids", "midi_attention_mask"]

    def __init__(
        self,
        representation: str = "performance",
        window_seconds: float = 20.0,
        hop_seconds: float = 10.0,
        max_notes: int = 512,
        onset_gap_bins: int = 128,
        duration_bins: int = 64,
        velocity_bins: int = 32,
        pedal_bins: int = 32,
        onset_gap_range: tuple[float, float] = (0.01, 10.0),
        duration_range: tuple[float, float] = (0.02, 10.0),
        pedal_range: tuple[float, float] = (0.05, 10.0),
        solo_only: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if representation not in ("performance", "compound_word"):
            raise ValueError(
                f"`representation` is {reprlib.repr(representation)}; it must be 'performance' or 'compound_word'."
            )
        self.representation = representation
        self.window_seconds = window_seconds
        self.hop_seconds = hop_seconds
        self.max_notes = max_notes
        self.onset_gap_bins = onset_gap_bins
        self.duration_bins = duration_bins
        self.velocity_bins = velocity_bins
        self.pedal_bins = pedal_bins
        self.onset_gap_range = _checked_range("onset_gap_range", onset_gap_range)
        self.duration_range = _checked_range("duration_range", duration_range)
        self.pedal_range = _checked_range("pedal_range", pedal_range)
        self.solo_only = bool(solo_only)
        check_numbers(self, MIN_SETTINGS)
        if hop_seconds > window_seconds:
            raise ValueError(
                f"`hop_seconds` is {hop_seconds} with windows of {window_seconds} s; "
                "it must be at most `window_seconds`, or notes would be skipped."
            )

    @property
    def field_sizes(self) -> tuple[int, ...]:
        """Vocabulary of each field, PAD and MASK included; `PianoBindMidiConfig.field_sizes` must equal it."""
        if self._compound:
            return COMPOUND_FIELD_SIZES
        return tuple(
            size + 2 for size in (88, self.onset_gap_bins, self.duration_bins, self.velocity_bins, self.pedal_bins)
        )

    @property
    def pad_row(self) -> np.ndarray:
        """The row of a place that holds no note."""
        return np.array(self.field_sizes, np.int64) - 2

    @property
    def _compound(self) -> bool:
        return self.representation == "compound_word"

    def read(self, source: Any) -> PianoNotes:
        """Reads MIDI into the notes that `windows` takes; see `read_midi`, or `read_compound_notes`."""
        read = read_compound_notes if self._compound else read_midi
        return read(source, self.solo_only)

    def rows(self, notes: PianoNotes) -> np.ndarray:
        """Writes notes as rows.

        Args:
            notes (`PianoNotes`): sorted by onset.
        Returns:
            `np.ndarray` of shape `(notes, 5)`, int64: pitch (0 = A0), bins of onset gap, duration, velocity, pedal;
            or compound words of shape `(notes, 4)`.
        """
        if self._compound:
            return compound_words(read_compound_notes(notes))
        rows = np.empty((len(notes), 5), np.int64)
        rows[:, 0] = notes.pitch - LOWEST_KEY
        gaps = np.diff(notes.onset, prepend=notes.onset[:1])
        rows[:, 1] = time_bins(gaps, self.onset_gap_bins, self.onset_gap_range)
        rows[:, 2] = time_bins(notes.duration, self.duration_bins, self.duration_range)
        rows[:, 3] = notes.velocity * self.velocity_bins // 128
        rows[:, 4] = time_bins(notes.pedal, self.pedal_bins, self.pedal_range)
        return rows

    def notes(self, rows: np.ndarray) -> PianoNotes:
        """Reads rows of the default vocabulary back as notes; times are the middles of their bins.

        Raises:
            ValueError: the rows are compound words, which have no tempo.
        """
        if self._compound:
            raise ValueError("compound words hold beats without a tempo, so they cannot be read back in seconds.")
        gaps = bin_seconds(rows[:, 1], self.onset_gap_bins, self.onset_gap_range)
        return PianoNotes(
            np.cumsum(gaps),
            bin_seconds(rows[:, 2], self.duration_bins, self.duration_range).astype(np.float32),
            rows[:, 0] + LOWEST_KEY,
            (rows[:, 3] * 128 + 64) // self.velocity_bins,
            bin_seconds(rows[:, 4], self.pedal_bins, self.pedal_range).astype(np.float32),
        )

    def windows(self, notes: PianoNotes) -> tuple[list[np.ndarray], np.ndarray]:
        """Cuts a piece into windows of rows; windows without a note are left out.

        Args:
            notes (`PianoNotes`): of `read`; those of a score are cut as they are played (`as_played`).
        Returns:
            rows (`list[np.ndarray]`): of shape `(notes, fields)`, one a window.
            spans (`np.ndarray` of shape `(windows, 2)`): start and end of each window in seconds.
        """
        if self._compound:
            return compound_windows(read_compound_notes(notes), self.window_seconds, self.hop_seconds, self.max_notes)
        if isinstance(notes, PrintedNotes):
            notes = as_played(notes)
        starts = window_starts(notes.seconds, self.window_seconds, self.hop_seconds)
        first = np.searchsorted(notes.onset, starts)
        last = np.searchsorted(notes.onset, starts + self.window_seconds)
        last[-1] = len(notes)  # with one that begins as the piece ends, and lasts no time
        parts = -(-(last - first) // self.max_notes)  # rounded up: 0 for a window without notes
        window = np.repeat(np.arange(len(starts)), parts)
        part = np.arange(len(window)) - np.repeat(np.cumsum(parts) - parts, parts)
        count, parts = (last - first)[window], parts[window]
        begin, end = first[window] + part * count // parts, first[window] + (part + 1) * count // parts
        left = np.where(part == 0, starts[window], notes.onset[np.minimum(begin, len(notes) - 1)])
        window_end = np.minimum(starts[window] + self.window_seconds, max(notes.seconds, self.window_seconds))
        right = np.where(part == parts - 1, window_end, notes.onset[np.minimum(end, len(notes) - 1)])
        rows = self.rows(notes)
        cut = [rows[b:e].copy() for b, e in zip(begin, end, strict=True)]
        for piece in cut:
            piece[0, 1] = 0  # a window has no earlier note
        return cut, np.stack([left, np.minimum(right, max(notes.seconds, 0.0))], axis=1)

    def pad(self, windows: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows of rows -> one batch.

        Returns:
            `(windows, notes, fields)` int64 and the mask `(windows, notes)`, 1 where there is a note.
        """
        longest = max(len(rows) for rows in windows)
        if self._compound:
            longest = max(longest, self.max_notes)
        ids = np.tile(self.pad_row, (len(windows), longest, 1))
        mask = np.zeros((len(windows), longest), np.int64)
        for row, rows in enumerate(windows):
            ids[row, : len(rows)] = rows
            mask[row, : len(rows)] = 1
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def __call__(self, midi: Any, return_tensors: str | None = None) -> BatchFeature:
        """Reads MIDI of any length.

        Args:
            midi: one or a list of paths, bytes, symusic scores or `PianoNotes`.
            return_tensors (`str`, *optional*): "pt" or "np".
        Returns:
            `midi_ids` of shape `(batch, notes, fields)` and `midi_attention_mask` of shape `(batch, notes)`: 0 is
            padding, `k` is the `k`-th window of that piece (1 throughout for a piece of one window). Windows overlap,
            so the notes of a long piece occur once for each window that contains them.
        """
        pieces = midi if isinstance(midi, (list, tuple)) else [midi]
        windows = [self.windows(self.read(piece))[0] for piece in pieces]
        ids, mask = self.pad([np.concatenate(rows) for rows in windows])
        for row, rows in enumerate(windows):
            lengths = torch.tensor([len(window) for window in rows])
            mask[row, : int(lengths.sum())] = torch.repeat_interleave(torch.arange(1, len(rows) + 1), lengths)
        data = {"midi_ids": ids, "midi_attention_mask": mask}
        if return_tensors != "pt":
            data = {key: value.numpy() for key, value in data.items()}
        return BatchFeature(data, tensor_type=return_tensors)


def _checked_range(name: str, seconds: object) -> tuple[float, float]:
    """Two times in seconds, the shorter one first."""
    numbers = isinstance(seconds, (list, tuple)) and all(type(value) in (int, float) for value in seconds)
    if not numbers or len(seconds) != 2 or not 0 < seconds[0] < seconds[1] < float("inf"):
        raise ValueError(f"`{name}` is {reprlib.repr(seconds)}; it must be two times above 0, the shorter one first.")
    return tuple(seconds)


def time_bins(seconds: np.ndarray, bins: int, time_range: tuple[float, float]) -> np.ndarray:
    """Logarithmic bins of time: 0 below the range, then `bins - 1` of equal ratio."""
    shortest, longest = time_range
    ratio = math.log(longest / shortest)
    below = shortest * math.exp(-ratio)  # anything that far below the range, since 0 has no logarithm
    place = np.log(np.maximum(seconds, below, dtype=np.float64) / shortest) * ((bins - 2) / ratio)
    return np.clip(np.floor(place + 1.5), 0, bins - 1).astype(np.int64)


def bin_seconds(index: np.ndarray, bins: int, time_range: tuple[float, float]) -> np.ndarray:
    """The middle of each bin of `time_bins` in seconds; 0 for bin 0."""
    shortest, longest = time_range
    middle = shortest * (longest / shortest) ** ((np.asarray(index) - 1) / (bins - 2))
    return np.where(np.asarray(index) == 0, 0.0, middle)


__all__ = ["PERFORMANCE_FIELDS", "PianoBindMidiProcessor", "bin_seconds", "time_bins"]
