"""Trills, mordents and turns of a score as the notes that are played."""

from dataclasses import dataclass

import numpy as np

NOTES_A_SECOND = 8.0
MAX_NOTES = 100_000  # of all ornaments of a score; long trills of a damaged one become slower


@dataclass(frozen=True)
class Ornament:
    """An ornament of a note, at one of the times that it is played.

    Attributes:
        at (`float`): quarters from the beginning of the score to that note.
        pitch (`int`): of that note.
        kind (`str`): "trill", "mordent" or "turn".
        up, down (`int`): semitones to the notes above and below.
        inverted (`bool`): a mordent with the note above, a turn that begins below.
        delayed (`bool`): a turn at the end of its note.
    """

    at: float
    pitch: int
    kind: str
    up: int
    down: int
    inverted: bool = False
    delayed: bool = False

    def notes(self, length: float, seconds: float, max_notes: int) -> tuple[np.ndarray, np.ndarray]:
        """When the notes begin, in parts of the ornamented one, and how many semitones they are away from it.

        Args:
            length (`float`): of the ornamented note, in what unit the onsets are wanted.
            seconds (`float`): the same length.
            max_notes (`int`): of a trill, at least 3.
        Returns:
            Two `np.ndarray` of shape `(notes,)`: onsets from 0 to below `length`, and steps.
        """
        fast = length / max(seconds * NOTES_A_SECOND, 1e-9)
        if self.kind == "trill":
            pairs = min(max(round((seconds * NOTES_A_SECOND - 1) / 2), 1), (max_notes - 1) // 2)
            count = 2 * pairs + 1  # it ends on its own note
            return np.arange(count) * (length / count), np.where(np.arange(count) % 2, self.up, 0)
        if self.kind == "mordent":
            step = min(fast, length / 4)
            return np.array([0, 1, 2]) * step, np.array([0, self.up if self.inverted else -self.down, 0])
        first, third = (-self.down, self.up) if self.inverted else (self.up, -self.down)
        if not self.delayed:
            return np.arange(4) * min(fast, length / 4), np.array([first, 0, third, 0])
        step = min(fast, length / 8)
        return np.append(0, length - np.arange(4, 0, -1) * step), np.array([0, first, 0, third, 0])


def with_ornaments(
    notes: dict[str, np.ndarray],
    ornaments: list[Ornament],
    quarter: int,
    tick: int,
    tempi: list[tuple[float, float]],
) -> dict[str, np.ndarray]:
    """Notes with those of ornaments in place of the ornamented ones.

    Args:
        notes (`dict`): arrays `time`, `duration` (in units) and `pitch`, of shape `(notes,)`.
        ornaments (`list[Ornament]`): those of notes that are not among `notes` are left out.
        quarter (`int`): units of a quarter.
        tick (`int`): units to which the times of `notes` were rounded.
        tempi (`list[tuple]`): units, and quarters a minute from there on; the first begins at 0.
    Returns:
        `dict` of the same arrays, in no order.
    """
    rows = {
        (at // tick, pitch): row for row, (at, pitch) in enumerate(zip(notes["time"], notes["pitch"], strict=True))
    }
    begins, rates = np.array(tempi).T
    max_notes = max(3, MAX_NOTES // max(1, len(ornaments)))
    replaced, made = [], []
    for ornament in ornaments:
        at = round(ornament.at * quarter / tick)
        place = next((place for near in (at, at - 1, at + 1) if (place := (near, ornament.pitch)) in rows), None)
        if place is None:
            continue
        row = rows.pop(place)
        begin, length = int(notes["time"][row]), int(notes["duration"][row])
        rate = rates[np.searchsorted(begins, begin, side="right") - 1]
        onsets, steps = ornament.notes(length, length / quarter * 60 / rate, max_notes)
        onsets, pitches = np.rint(onsets).astype(np.int64), ornament.pitch + steps
        if length > 2 * len(onsets) and pitches.min() >= 0 and pitches.max() <= 127:
            replaced.append(row)
            made.append(np.stack([begin + onsets, np.diff(onsets, append=length), pitches]))
    if not made:
        return notes
    new = dict(zip(("time", "duration", "pitch"), np.concatenate(made, axis=1), strict=True))
    return {
        name: np.concatenate([np.delete(old, replaced), new[name].astype(old.dtype)]) for name, old in notes.items()
    }


__all__ = ["Ornament", "with_ornaments"]
