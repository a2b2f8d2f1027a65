"""The notes of a score as a pianist might play them, for towers that have learnt from performances.

A score strikes all notes of a chord at once, equally loud, and releases them on the beat. Towers embed that as a kind
of music of its own, far from performances of the same piece.
"""

import numpy as np

from .notes_pianobind import PianoNotes

ONSET_SECONDS = 0.015  # standard deviation of a note's onset from the printed one
LENGTH_SHARE, LENGTH_SPREAD = 0.86, 0.3  # of the printed duration: median, and standard deviation of its logarithm
MIN_SECONDS = 0.03
TOP_VELOCITY, SWELL_VELOCITY, VELOCITY_SPREAD = 8, 8.0, 6  # the top voice is louder by it, all others softer
SWELL_SECONDS = 6.0
PEDAL_SECONDS, PEDAL_SHARE = 1.5, 0.9  # how often the pedal changes, and how much of the time until then it holds
CHORD_SECONDS = 0.03


def as_played(notes: PianoNotes) -> PianoNotes:
    """Gives notes the small irregularities of a performance; the tempo stays, and the same notes give the same.

    Args:
        notes (`PianoNotes`): as a score has them, at least one.
    Returns:
        `PianoNotes`: as many notes; a note may change places with one that sounds at about the same time.
    """
    random = np.random.default_rng(0)
    count = len(notes)
    top = np.append(np.diff(notes.onset) > CHORD_SECONDS, True)
    velocity = notes.velocity + np.where(top, TOP_VELOCITY, -TOP_VELOCITY)
    velocity = velocity + np.rint(SWELL_VELOCITY * np.sin(2 * np.pi * notes.onset / SWELL_SECONDS)).astype(np.int64)
    velocity = velocity + random.integers(-VELOCITY_SPREAD, VELOCITY_SPREAD + 1, count)
    release = notes.onset + notes.duration
    pedal = PEDAL_SHARE * ((np.floor(release / PEDAL_SECONDS) + 1) * PEDAL_SECONDS - release)
    onset = np.maximum(0.0, notes.onset + random.normal(0.0, ONSET_SECONDS, count))
    length = notes.duration * LENGTH_SHARE * np.exp(random.normal(0.0, LENGTH_SPREAD, count))
    played = PianoNotes(
        onset,
        np.maximum(length, MIN_SECONDS).astype(np.float32),
        notes.pitch,
        np.clip(velocity, 1, 127),
        np.maximum(notes.pedal, pedal).astype(np.float32),
    )
    return played.take(np.lexsort((notes.pitch, onset)))


__all__ = ["as_played"]
