"""How well the windows of two pieces of music follow each other: what tells a piece from others of its kind.

The mean of a piece's windows says what kind of music it is. That a recording is of this very piece is said by its
windows one by one, in their order.
"""

from dataclasses import dataclass

import numpy as np

MIN_OVERLAP = 0.8  # of the shorter piece: nobody plays less of it
# What lies beside the other piece is as like it as so much of what any two of their windows are. Chosen on the `valid`
# split: 1 forgives missing parts, by which recordings are told from others; 0 never finds a piece by an excerpt.
UNMATCHED_SHARE = 0.8
MAX_TICKS = 100_000  # eleven days of windows; times beyond are damaged, and would make a clock of any size


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

    Both lie on one clock whose ticks are a hop apart, so that windows left out for their silence shift nothing. What
    begins at one tick counts as one: parts of a dense window, and both towers' of a recording that was transcribed.

    Args:
        example, piece (`Example`): of at least one window each.
    Returns:
        `float`: at most 1; nan where windows or spans are damaged.
    """
    begins = example.spans[:, 0], piece.spans[:, 0]
    steps = np.concatenate([np.diff(one) for one in begins])
    hop_seconds = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    if not all(np.ptp(one) < MAX_TICKS * hop_seconds for one in begins):  # not so of nan
        return float("nan")
    (first, first_heard), (second, second_heard) = (_ticks(one, hop_seconds) for one in (example, piece))
    heard = first_heard[:, None] & second_heard
    with np.errstate(invalid="ignore"):  # of damaged windows, which whoever asks finds by the result
        cosines = first @ second.T
    beside = UNMATCHED_SHARE * cosines[heard].mean()
    shift = np.arange(len(second))[None] - np.arange(len(first))[:, None] + len(first) - 1  # a cosine's diagonal
    gains = np.bincount(shift.ravel(), ((cosines - beside) * heard).ravel())
    lengths = np.bincount(shift.ravel())
    # All windows of the example count; of a longer piece's windows beside it, only the root of their share does.
    count, others = first_heard.sum(), second_heard.sum()
    enough = lengths >= np.ceil(MIN_OVERLAP * min(cosines.shape))
    return float(beside + gains[enough].max() / np.sqrt(count * max(count, others)))


def _ticks(example: Example, hop_seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """What begins at each tick of the clock.

    Returns:
        `(ticks, dim)` float32: a window, the mean direction of several, or zeros; and `(ticks,)`: whether any begins.
    """
    begins = example.spans[:, 0] - example.spans[:, 0].min()
    tick = np.rint(begins / hop_seconds).astype(int)
    counts = np.bincount(tick)
    if (np.diff(tick) == 1).all():  # as of nearly all music; the rest takes ten times as long
        return np.asarray(example.windows, np.float32), counts > 0
    windows = np.zeros((len(counts), example.windows.shape[1]), np.float32)
    np.add.at(windows, tick, example.windows)
    with np.errstate(invalid="ignore", divide="ignore"):
        windows[counts > 1] /= np.linalg.norm(windows[counts > 1], axis=1, keepdims=True)
    return windows, counts > 0


__all__ = ["Example", "alignment"]
