"""Facts of the MIDI standards: programs of pianos, and the conversion of ticks to seconds."""

from collections.abc import Callable

import numpy as np
import symusic

PIANO_PROGRAMS = range(8)  # General MIDI's piano family, counted from 0
LAST_TICK = 2**31  # beyond the range of a MIDI file


def tick_clock(score: symusic.Score) -> Callable[[np.ndarray], np.ndarray]:
    """A function of ticks -> seconds by the tempo map, in float64: float32 is off by milliseconds after an hour."""
    tempos = score.tempos.numpy()
    ticks, microseconds = tempos["time"].astype(np.int64), tempos["mspq"].astype(np.float64)
    order = np.argsort(ticks, kind="stable")
    # The standard's 120 beats a minute hold until the first tempo event; the last one holds for ever.
    ticks = np.concatenate([[0], ticks[order], [LAST_TICK]])
    tick_seconds = np.concatenate([[500_000.0], microseconds[order]]) / 1e6 / score.ticks_per_quarter
    starts = np.concatenate([[0.0], np.cumsum(np.diff(ticks) * tick_seconds)])
    return lambda at: np.interp(at, ticks, starts)


__all__ = ["LAST_TICK", "PIANO_PROGRAMS", "tick_clock"]
