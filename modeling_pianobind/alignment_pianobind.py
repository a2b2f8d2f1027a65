"""How well the windows of two pieces of music follow each other: what tells a piece from others of its kind.

The mean of a piece's windows says what kind of music it is. That a recording is of this very piece is said by its
windows one by one, in their order.
"""

from dataclasses import dataclass

import numpy as np

LEAST_OVERLAP = 0.8  # of the shorter piece: nobody plays less of it
# What lies beside the other piece is as like it as so much of what any two of their windows are. Chosen on the `valid`
# split: 1 forgives missing parts, by which recordings are told from others; 0 never finds a piece by an excerpt.
BESIDE = 0.8


@dataclass(frozen=True)
class Example:
    """Music to search by; an `EmbeddedFile` is one too.

    Attributes:
        embedding (`np.ndarray` of shape `(dim,)`): unit length.
        windows (`np.ndarray` of shape `(windows, dim)`): unit length; may be empty.
        spans (`np.ndarray` of shape `(windows, 2)`): start and end of each window in seconds.
    """

    embedding: np.ndarray
    windows: np.ndarray
    spans: np.ndarray


def alignment(example: Example, piece: Example) -> float:
    """Mean cosine of the windows of two pieces, laid beside each other where they fit best.

    A recording that was transcribed has two sequences of windows, one of each tower; the pair that fits best counts.

    Args:
        example, piece (`Example`): of at least one window each.
    Returns:
        `float`: at most 1.
    """
    return max(
        _aligned(first, second)
        for first in _sequences(example.windows, example.spans)
        for second in _sequences(piece.windows, piece.spans)
    )


def _sequences(windows, spans) -> list[np.ndarray]:
    """Windows as float32, one array each time that they begin anew."""
    return np.split(np.asarray(windows, np.float32), np.flatnonzero(np.diff(spans[:, 0]) <= 0) + 1)


def _aligned(example, piece) -> float:
    with np.errstate(invalid="ignore"):  # of damaged windows, which whoever asks finds by the result
        cosines = example @ piece.T
    count, others = cosines.shape
    shift = np.arange(others)[None] - np.arange(count)[:, None] + count - 1  # which diagonal a cosine lies on
    sums = np.bincount(shift.ravel(), cosines.ravel())
    lengths = np.bincount(shift.ravel())
    beside = BESIDE * cosines.mean()
    # All windows of the example count; of a longer piece's windows beside it, only the root of their share does.
    gains = (sums - lengths * beside) / np.sqrt(count * max(count, others))
    return float(beside + gains[lengths >= np.ceil(LEAST_OVERLAP * min(count, others))].max())


__all__ = ["Example", "alignment"]
