"""Alignment of the windows of two pieces: identifies the same piece among pieces of the same kind.

The mean of a piece's windows describes the kind of music; the sequence of its windows identifies the piece.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

MIN_OVERLAP = 0.8  # share of the shorter piece; an overlap below it is not a match
# Score of an unmatched window, as a fraction of the pair's mean cosine. Chosen on the `valid` split: with 1, missing
# parts cost nothing and recordings of other pieces match; with 0, an excerpt never finds its piece.
UNMATCHED_SHARE = 0.8
MAX_TICKS = 100_000  # eleven days of windows; larger times are damaged and would allocate any amount of memory


@dataclass(frozen=True)
class Example:
    """Music to search by; an `EmbeddedFile` has the same attributes.

    Attributes:
        embedding (`np.ndarray` of shape `(dim,)`): unit length.
        windows (`np.ndarray` of shape `(windows, dim)`): unit length; may be empty.
        spans (`np.ndarray` of shape `(windows, 2)`): start and end of each window in seconds.
        notes (`NoteLine` or `PianoNotes`, *optional*): where they are known.
    """

    embedding: np.ndarray
    windows: np.ndarray
    spans: np.ndarray
    notes: Any = None


def alignment(example: Example, piece: Example) -> float:
    """Mean cosine of the windows of two pieces at the best shift in time.

    Windows are placed on a clock whose ticks are one hop apart, so that windows omitted for silence shift nothing.
    Windows that begin at the same tick are averaged: parts of a dense window, and both towers' windows of a
    transcribed recording.

    Args:
        example, piece (`Example`): of at least one window each.
    Returns:
        `float`: at most 1; nan if windows or spans are damaged.
    """
    begins = example.spans[:, 0], piece.spans[:, 0]
    steps = np.concatenate([np.diff(starts) for starts in begins])
    hop_seconds = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    if not all(np.ptp(starts) < MAX_TICKS * hop_seconds for starts in begins):  # False for nan
        return float("nan")
    (first, first_present), (second, second_present) = (_ticks(music, hop_seconds) for music in (example, piece))
    present = first_present[:, None] & second_present
    with np.errstate(invalid="ignore"):  # of damaged windows; the caller checks the result
        cosines = first @ second.T
    unmatched = UNMATCHED_SHARE * cosines[present].mean()
    shift = np.arange(len(second))[None] - np.arange(len(first))[:, None] + len(first) - 1  # diagonal of each cosine
    gains = np.bincount(shift.ravel(), ((cosines - unmatched) * present).ravel())
    lengths = np.bincount(shift.ravel())
    # All windows of the example count. A longer piece's further windows count with the root of their share.
    count, others = first_present.sum(), second_present.sum()
    enough = lengths >= np.ceil(MIN_OVERLAP * min(cosines.shape))
    return float(unmatched + gains[enough].max() / np.sqrt(count * max(count, others)))


def _ticks(example: Example, hop_seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """The window that begins at each tick of the clock.

    Returns:
        `(ticks, dim)` float32: a window, the mean direction of several, or zeros; and `(ticks,)`: whether any begins.
    """
    begins = example.spans[:, 0] - example.spans[:, 0].min()
    tick = np.rint(begins / hop_seconds).astype(int)
    counts = np.bincount(tick)
    if (np.diff(tick) == 1).all():  # true of nearly all music; the general case takes ten times as long
        return np.asarray(example.windows, np.float32), counts > 0
    windows = np.zeros((len(counts), example.windows.shape[1]), np.float32)
    np.add.at(windows, tick, example.windows)
    with np.errstate(invalid="ignore", divide="ignore"):
        windows[counts > 1] /= np.linalg.norm(windows[counts > 1], axis=1, keepdims=True)
    return windows, counts > 0


__all__ = ["Example", "alignment"]
