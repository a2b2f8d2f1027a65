"""The rows of an EmbeddingIndex: its files, and the pieces that a search compares."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..inputs_pianobind import gives_notes
from .alignment import Example
from .note_alignment import NoteLine

INT8_MAX = 127
NO_STAMP = (0, 0, 0)
NO_FACTS = (float("nan"),) * 4


@dataclass
class Failure:
    """A file that could not be read: `message` is one line with the file, the problem and the remedy.

    `stamp` is that of a `FileRow`; failures that differ in it alone are equal.
    """

    path: str
    message: str
    content_hash: str = ""
    stamp: Sequence[int] = field(default=NO_STAMP, compare=False)


class FileRow(NamedTuple):
    """A file of an index.

    Attributes:
        path (`str`): or an id.
        piece (`str`): what files of one piece have in common.
        content_hash (`str`): SHA-256; "" for ids.
        embedding (`np.ndarray` of shape `(dim,)`): float32, unit length.
        windows (`np.ndarray` of shape `(windows, dim)`), spans (`(windows, 2)`): see `FileTable`.
        notes (`NoteLine` or `PianoNotes`, *optional*): of MIDI, a score, or a recording that was transcribed.
        measures (`np.ndarray` of shape `(windows, 2)`, *optional*): of a score; see `FileTable`.
        stamp (`tuple[int, int, int]`): size, and times of the last change of content and of the file's entry, in
            nanoseconds: while they stay, the content need not be hashed again. Zeros where that is not known.
        facts (`tuple[float, ...]`): the fields of `facts.FileFacts` in their order; nan for what is not known.
        names (`str`): title, artist and the like, as they stand in the file itself.
    """

    path: str
    piece: str
    content_hash: str
    embedding: np.ndarray
    windows: np.ndarray
    spans: np.ndarray
    notes: Any = None
    measures: np.ndarray | None = None
    stamp: Sequence[int] = NO_STAMP
    facts: Sequence[float] = NO_FACTS
    names: str = ""


@dataclass
class FileTable:
    """The files of an index, one array entry or row a file.

    Attributes:
        paths (sequence of `str`): or ids; lists, or columns that are read from the disk when they are asked.
        pieces (sequence of `str`): files with the same piece are averaged.
        hashes (sequence of `str`): SHA-256 of the content; "" for ids.
        embeds (`np.ndarray` of shape `(files, dim)`): float32, unit length.
        windows (`np.ndarray` of shape `(all windows, dim)`): float16, unit length; half precision halves the memory,
            and only chooses a hit's window.
        spans (`np.ndarray` of shape `(all windows, 2)`): start and end in seconds.
        bounds (`np.ndarray` of shape `(files + 1,)`): a file's windows are those from its bound to the next.
        measures (`np.ndarray` of shape `(all windows, 2)`): int32, a score's first and last measures, else 0.
        pitches, onsets (`np.ndarray` of shape `(all notes,)`): the files' `NoteLine`s; none of recordings.
        note_bounds (`np.ndarray` of shape `(files + 1,)`): a file's notes are those from its bound to the next.
        stamps (`np.ndarray` of shape `(files, 3)`, *optional*), facts (`(files, 4)`, *optional*), names (sequence of
            `str`, *optional*): as in a `FileRow`; None where no file has any.
    """

    paths: Sequence[str] = field(default_factory=list)
    pieces: Sequence[str] = field(default_factory=list)
    hashes: Sequence[str] = field(default_factory=list)
    embeds: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    windows: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float16))
    spans: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    bounds: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    measures: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    pitches: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    onsets: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    note_bounds: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    stamps: np.ndarray | None = None
    facts: np.ndarray | None = None
    names: Sequence[str] | None = None

    def windows_of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self.bounds[row], self.bounds[row + 1])
        return self.windows[part], self.spans[part]

    def measures_of(self, row: int) -> np.ndarray:
        return self.measures[self.bounds[row] : self.bounds[row + 1]]

    def notes_of(self, row: int) -> NoteLine:
        part = slice(self.note_bounds[row], self.note_bounds[row + 1])
        return NoteLine(self.pitches[part], self.onsets[part])

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence]) -> "FileTable":
        """Makes a table of `FileRow`s, or of tuples of their first values."""
        if not rows:
            return cls()
        rows = [FileRow(*row) for row in rows]
        lines = [NoteLine.of(row.notes) for row in rows]
        measures = [np.zeros((len(row.windows), 2)) if row.measures is None else row.measures for row in rows]
        return cls(
            [row.path for row in rows],
            [row.piece for row in rows],
            [row.content_hash for row in rows],
            np.stack([row.embedding for row in rows]),
            np.concatenate([row.windows for row in rows]),
            np.concatenate([row.spans for row in rows]),
            np.cumsum([0, *(len(row.windows) for row in rows)]),
            measures=np.concatenate(measures).astype(np.int32),
            pitches=np.concatenate([line.pitch for line in lines]),
            onsets=np.concatenate([line.onset for line in lines]),
            note_bounds=np.cumsum([0, *map(len, lines)]),
            stamps=np.array([row.stamp for row in rows], np.int64),
            facts=np.array([row.facts for row in rows], np.float32),
            names=[row.names for row in rows],
        )

    def rows(self) -> list[FileRow]:
        columns = [self.paths, self.pieces, self.hashes, self.embeds]
        columns += [
            map(of_row, range(len(self.paths))) for of_row in (self.windows_of, self.notes_of, self.measures_of)
        ]
        none = [NO_STAMP] * len(self.paths), [NO_FACTS] * len(self.paths), [""] * len(self.paths)
        about = (self.stamps, self.facts, self.names)
        columns += [without if column is None else column for column, without in zip(about, none, strict=True)]
        return [
            FileRow(path, piece, digest, embed, *windows, notes, measures, tuple(map(int, stamp)), tuple(facts), names)
            for path, piece, digest, embed, windows, notes, measures, stamp, facts, names in zip(*columns, strict=True)
        ]


@dataclass
class IndexShard:
    """Files and their pieces: a whole index, or one of its shards.

    Attributes:
        table (`FileTable`): the files.
        embeds (`np.ndarray` of shape `(pieces, dim)`): float32, unit length; the mean of a piece's files, normalised.
        named_by (`np.ndarray` of shape `(pieces,)`): row of the file that a hit shows: the recording if any.
        codes (`np.ndarray` of shape `(pieces, dim)`, *optional*): `embeds` as int8, a quarter of the memory that a
            search reads; `embeds` then scores only the candidates.
        scales (`np.ndarray` of shape `(pieces,)`, *optional*): float32, scale of each row of `codes`.
        source (`str`): the folder that it was read from.
        noted_by (`np.ndarray` of shape `(pieces,)`, *optional*): row of the file whose notes are a piece's; `named_by`
            where it is None.
    """

    table: FileTable
    embeds: np.ndarray
    named_by: np.ndarray
    codes: np.ndarray | None = None
    scales: np.ndarray | None = None
    source: str = "the index"
    noted_by: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.named_by)

    def path(self, piece: int) -> str:
        return self.table.paths[self.named_by[piece]]

    def example(self, piece: int) -> Example:
        """A piece with the windows of the file that a hit shows."""
        noted = self.named_by if self.noted_by is None else self.noted_by
        return Example(
            self.embeds[piece], *self.table.windows_of(self.named_by[piece]), self.table.notes_of(noted[piece])
        )

    @classmethod
    def of(cls, table: FileTable) -> "IndexShard":
        """Averages the files of each piece and chooses the path that a hit shows."""
        names, piece = np.unique(np.array(table.pieces, dtype=object), return_inverse=True)
        if len(names) == len(table.pieces):
            return cls(table, table.embeds, np.arange(len(table.paths)))
        sums = np.zeros((len(names), table.embeds.shape[1]), np.float64)
        np.add.at(sums, piece, table.embeds)
        embeds = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
        named_by = np.full(len(names), -1)
        for row in sorted(range(len(piece)), key=lambda row: (gives_notes(table.paths[row]), table.paths[row])):
            if named_by[piece[row]] < 0:
                named_by[piece[row]] = row
        counts, noted_by = np.diff(table.note_bounds), named_by.copy()
        for row in np.flatnonzero(counts):
            if not counts[noted_by[piece[row]]]:
                noted_by[piece[row]] = row
        return cls(table, embeds, named_by, noted_by=noted_by)

    def quantize(self, block_rows: int = 65_536) -> None:
        """Makes `codes` and `scales`, a block of rows at a time."""
        self.codes = np.empty(self.embeds.shape, np.int8)
        self.scales = np.empty(len(self.embeds), np.float32)
        for start in range(0, len(self), block_rows):
            rows = slice(start, start + block_rows)
            scales = np.abs(self.embeds[rows]).max(axis=1) / np.float32(INT8_MAX)
            self.codes[rows] = np.rint(self.embeds[rows] / scales[:, None])
            self.scales[rows] = scales


__all__ = ["NO_FACTS", "NO_STAMP", "Failure", "FileRow", "FileTable", "IndexShard"]
