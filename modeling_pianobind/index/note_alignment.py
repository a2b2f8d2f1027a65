"""Alignment of the notes of two pieces: finds the same notes in the same order, at any tempo.

A piece is cut by count of notes and not by seconds, so tempo, rubato, touch and pedal have no influence. A
segment is the histogram of its keys; segments of two pieces are aligned by dynamic time warping in
which either piece may run up to twice as many notes as the other, as with ornaments and notes left out.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..notes_pianobind import PianoNotes

KEYS, LOWEST_KEY = 88, 21
MAX_HOP_NOTES, MIN_HOP_NOTES = 32, 8  # a segment is two hops long
SEGMENTS_WANTED = 12  # of a short example, which is cut finer
CHORD_SECONDS = 0.035  # notes struck within this time may stand in any order
MIN_NOTES = 32  # fewer notes are not distinctive
# Measured on the `train` scores among 992 pieces: another piece reaches 0.87 at most where the shorter one has many
# segments, the same piece 0.89 to 0.99; a few segments are found by chance in more pieces.
SAME_FROM, SURE_FROM, CHANCE = 0.875, 0.945, 0.35
FAR = np.float32(-1e6)
PIECES_AT_ONCE = 64  # shorter pieces that are compared with a longer example in one batch


@dataclass(frozen=True)
class NoteLine:
    """The notes of a piece that an alignment reads.

    Attributes:
        pitch (`np.ndarray` of shape `(notes,)`): uint8, MIDI pitch; those of a chord from low to high.
        onset (`np.ndarray` of shape `(notes,)`): float32, seconds.
    """

    pitch: np.ndarray
    onset: np.ndarray

    def __len__(self) -> int:
        return len(self.pitch)

    @classmethod
    def of(cls, notes: "PianoNotes | NoteLine | None") -> "NoteLine":
        """The line of `PianoNotes`; an empty one of None."""
        if isinstance(notes, cls):
            return notes
        if notes is None or not len(notes):
            return cls(np.zeros(0, np.uint8), np.zeros(0, np.float32))
        chord = np.concatenate([[0], np.cumsum(np.diff(notes.onset) > CHORD_SECONDS)])
        order = np.argsort(chord * 128 + notes.pitch, kind="stable")
        return cls(notes.pitch[order].astype(np.uint8), notes.onset.astype(np.float32))


@dataclass(frozen=True)
class Match:
    """Alignment of two pieces.

    Attributes:
        likeness (`float`): mean cosine of aligned segments; at most 1.
        confidence (`float`): 0 to 1, that they are the same piece.
        first_span, second_span (`tuple[float, float]`): the aligned parts, in seconds.
        path (`np.ndarray` of shape `(steps, 2)`): seconds in both pieces, in order.
    """

    likeness: float
    confidence: float
    first_span: tuple[float, float]
    second_span: tuple[float, float]
    path: np.ndarray


def confidences(example: NoteLine, pieces: list[NoteLine]) -> np.ndarray:
    """Confidence that each piece and the example are the same music, or one a part of the other.

    Returns:
        `np.ndarray` of shape `(len(pieces),)`: 0 to 1; 0 where too few notes are known.
    """
    result = np.zeros(len(pieces))
    known = [row for row, piece in enumerate(pieces) if len(piece) >= MIN_NOTES]
    if len(example) < MIN_NOTES or not known:
        return result
    hop = _hop(len(example))
    (query,) = _segments([example], hop)
    segments = _segments([pieces[row] for row in known], hop)
    longer = [place for place, piece in enumerate(segments) if len(piece) >= len(query)]
    shorter = sorted(set(range(len(known))) - set(longer), key=lambda place: len(segments[place]))
    likeness = np.zeros(len(known))
    if longer:
        likeness[longer] = _within_longer(query, [segments[place] for place in longer])
    if shorter:
        likeness[shorter] = _within_query(query, [segments[place] for place in shorter])
    lengths = np.array([min(len(query), len(piece)) for piece in segments])
    result[known] = _confidence(likeness, lengths)
    return result


def match(first: NoteLine, second: NoteLine) -> Match | None:
    """Aligns two pieces; None where one has too few notes."""
    if min(len(first), len(second)) < MIN_NOTES:
        return None
    hop = _hop(min(len(first), len(second)))
    segments = _segments([first], hop)[0], _segments([second], hop)[0]
    swapped = len(segments[0]) > len(segments[1])
    short, long = segments[::-1] if swapped else segments
    cosines = short @ long.T
    likeness, steps = best_path(cosines)
    steps = steps[:, ::-1] if swapped else steps
    seconds = [
        line.onset[np.minimum(steps[:, side] * hop, len(line) - 1)] for side, line in enumerate((first, second))
    ]
    # The last segments end with their last notes.
    ends = [
        float(line.onset[min((steps[-1, side] + 2) * hop, len(line)) - 1]) for side, line in enumerate((first, second))
    ]
    spans = [(float(at[0]), max(end, float(at[-1]))) for at, end in zip(seconds, ends, strict=True)]
    path = np.concatenate([np.stack(seconds, axis=1), [[spans[0][1], spans[1][1]]]])
    confidence = float(_confidence(np.array([likeness]), np.array([len(short)]))[0])
    return Match(float(likeness), confidence, *spans, path)


def _confidence(likeness: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    low = SAME_FROM + (1 - SAME_FROM) * CHANCE / np.sqrt(lengths)
    high = SURE_FROM + (1 - SURE_FROM) * CHANCE / np.sqrt(lengths)
    return np.clip((likeness - low) / (high - low), 0.0, 1.0)


def _hop(notes: int) -> int:
    return int(np.clip(notes // SEGMENTS_WANTED, MIN_HOP_NOTES, MAX_HOP_NOTES))


def _segments(lines: list[NoteLine], hop: int) -> list[np.ndarray]:
    """Root histograms of keys, unit rows `(segments, 88)`, of all lines in one pass."""
    counts = np.array([-(-len(line) // hop) for line in lines])
    first = np.cumsum(counts) - counts
    lengths = np.array([len(line) for line in lines])
    pitch = np.concatenate([line.pitch for line in lines]).astype(np.int32)
    place = np.arange(len(pitch)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    block = place // hop + np.repeat(first, lengths)
    keys = np.clip(pitch - LOWEST_KEY, 0, KEYS - 1)
    blocks = np.bincount(block * KEYS + keys, minlength=counts.sum() * KEYS).reshape(-1, KEYS).astype(np.float32)
    pairs = blocks.copy()
    pairs[:-1] += blocks[1:]
    ends = first + counts - 1
    pairs[ends] = blocks[ends]  # the last of a piece has no other half
    np.sqrt(pairs, out=pairs)
    pairs /= np.sqrt(np.einsum("ij,ij->i", pairs, pairs))[:, None]
    # A piece of several blocks does without the half segment at its end.
    return [pairs[start : start + max(1, count - 1)] for start, count in zip(first, counts, strict=True)]


def _within_longer(query: np.ndarray, pieces: list[np.ndarray]) -> np.ndarray:
    """The best path of the whole query within each piece; all pieces in one array with gaps that no path crosses."""
    gap = np.zeros((2, KEYS), np.float32)
    columns = np.concatenate([part for piece in pieces for part in (piece, gap)])
    starts = np.cumsum([0, *(len(piece) + 2 for piece in pieces)])[:-1]
    cosines = query @ columns.T
    for offset, piece in zip(starts, pieces, strict=True):
        cosines[:, offset + len(piece) : offset + len(piece) + 2] = FAR
    last = best_path_sums(cosines)
    return np.maximum.reduceat(last, starts) / len(query)


def best_path_sums(cosines: np.ndarray) -> np.ndarray:
    """The best sum of a path over all rows that ends in each column.

    A step leads one row and one column on, one row and two columns, or two rows and one column, each row counting.
    """
    width = cosines.shape[1]
    before, last = np.full(width + 2, FAR), np.full(width + 2, FAR)
    before, last = before.astype(np.float32), last.astype(np.float32)
    for row, gains in enumerate(cosines):
        now = np.full(width + 2, FAR, np.float32)
        if row:
            best = np.maximum(last[1:-1], last[:-2])
            np.maximum(best, before[1:-1] + cosines[row - 1], out=best)
            np.add(best, gains, out=now[2:])
        else:
            now[2:] = gains
        before, last = last, now
    return last[2:]


def _within_query(query: np.ndarray, pieces: list[np.ndarray]) -> np.ndarray:
    """The best path of each whole piece within the query; `pieces` from short to long.

    A few at a time: all would be padded to the length of the longest.
    """
    blocks = [pieces[first : first + PIECES_AT_ONCE] for first in range(0, len(pieces), PIECES_AT_ONCE)]
    return np.concatenate([_block_within_query(query, block) for block in blocks])


def _block_within_query(query: np.ndarray, pieces: list[np.ndarray]) -> np.ndarray:
    lengths = np.array([len(piece) for piece in pieces])
    padded = np.zeros((len(pieces), lengths[-1], KEYS), np.float32)
    for place, piece in enumerate(pieces):
        padded[place, : len(piece)] = piece
    cosines = np.ascontiguousarray((padded @ query.T).transpose(1, 0, 2))  # (rows, pieces, columns)
    means = np.zeros(len(pieces))
    before = np.full((len(pieces), len(query) + 2), FAR, np.float32)
    last = before.copy()
    for row, gains in enumerate(cosines):
        active = int(np.searchsorted(lengths, row, side="right"))  # pieces from here on have this row
        now = np.full_like(last, FAR)
        if row:
            best = np.maximum(last[active:, 1:-1], last[active:, :-2])
            np.maximum(best, before[active:, 1:-1] + cosines[row - 1, active:], out=best)
            now[active:, 2:] = best + gains[active:]
        else:
            now[:, 2:] = gains
        done = lengths == row + 1
        means[done] = now[done, 2:].max(axis=1) / (row + 1)
        before, last = last, now
    return means


def best_path(cosines: np.ndarray) -> tuple[float, np.ndarray]:
    """The best path over all rows: its mean, and its `(steps, 2)` rows and columns."""
    rows, width = cosines.shape
    sums = np.full((rows, width), FAR, np.float32)
    came = np.zeros((rows, width), np.int8)
    sums[0] = cosines[0]
    for row in range(1, rows):
        ways = np.full((3, width), FAR, np.float32)
        ways[0, 1:] = sums[row - 1, :-1]
        ways[1, 2:] = sums[row - 1, :-2]
        if row > 1:
            ways[2, 1:] = sums[row - 2, :-1] + cosines[row - 1, 1:]
        came[row] = ways.argmax(axis=0)
        sums[row] = ways.max(axis=0) + cosines[row]
    row, column = rows - 1, int(sums[-1].argmax())
    mean = float(sums[row, column]) / rows
    steps = [(row, column)]
    while row > 0 and sums[row, column] > FAR / 2:
        way = came[row, column]
        row, column = row - (2 if way == 2 else 1), column - (2 if way == 1 else 1)
        if row < 0 or column < 0:
            break
        steps.append((row, column))
    return mean, np.array(steps[::-1])


__all__ = ["MIN_NOTES", "Match", "NoteLine", "confidences", "match"]
