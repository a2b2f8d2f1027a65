"""Filters of a search: tempo, key, length and kind of a piece, as they were measured when it was embedded."""

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..inputs_pianobind import EXTENSIONS, FORMATS, gives_notes
from .facts import FileFacts, parse_key
from .table import IndexShard

if TYPE_CHECKING:
    from .embedding_index import EmbeddingIndex

KINDS = tuple(FORMATS)
EVERY = (-math.inf, math.inf)


@dataclass(frozen=True)
class Filters:
    """Conditions on pieces; none by default.

    Attributes:
        tempo (`tuple[float, float]`): beats a minute, lowest and highest.
        minutes (`tuple[float, float]`): length, shortest and longest.
        key (`int` or None): as in `FileFacts`.
        kind (`str` or None): "midi", "score" or "audio".
        solo_only (`bool`): leave out MIDI files with other instruments, and scores with voices.
    """

    tempo: tuple[float, float] = EVERY
    minutes: tuple[float, float] = EVERY
    key: int | None = None
    kind: str | None = None
    solo_only: bool = False

    @classmethod
    def parse(
        cls,
        tempo: str | None = None,
        key: str | None = None,
        minutes: str | None = None,
        kind: str | None = None,
        solo_only: bool = False,
    ) -> "Filters":
        """Reads filters as users write them: "110-130", "-5", "3-", "D minor", "midi"; empty ones are none.

        Raises:
            ValueError: one cannot be read.
        """
        if kind and kind not in KINDS:
            raise ValueError(f"the kind is {kind!r}; give one of {', '.join(KINDS)}")
        parsed_key = parse_key(key) if key and key.strip() else None
        return cls(_range("tempo", tempo), _range("minutes", minutes), parsed_key, kind or None, solo_only)

    def select(self, index: "EmbeddingIndex") -> tuple["np.ndarray | None", str]:
        """The pieces of an index that pass.

        Args:
            index (`EmbeddingIndex`): whose pieces.
        Returns:
            Their numbers, None for all of them; and a line about those whose facts are not known, or "".
        """
        if self == Filters():
            return None, ""
        chosen, unknown, begin = [], 0, 0
        for shard in index.shards:
            if not len(shard):
                continue
            facts, kinds = piece_facts(shard)
            passes = np.ones(len(shard), bool) if self.kind is None else kinds[self.kind]
            measured = dict(zip(FileFacts._fields, facts.T, strict=True))
            checks = []
            if self.tempo != EVERY:
                checks.append((measured["tempo"], *self.tempo))
            if self.minutes != EVERY:
                checks.append((measured["seconds"] / 60, *self.minutes))
            if self.key is not None:
                checks.append((measured["key"], self.key, self.key))
            missing = np.zeros(len(shard), bool)
            for values, low, high in checks:
                missing |= np.isnan(values)
                with np.errstate(invalid="ignore"):
                    passes = passes & (values >= low) & (values <= high)
            if self.solo_only:
                passes = passes & ~(measured["other_tracks"] > 0)
            chosen.append(begin + np.flatnonzero(passes))
            unknown += int(missing.sum())
            begin += len(shard)
        note = ""
        if unknown:
            left_out = "piece is left out" if unknown == 1 else "pieces are left out"
            note = (
                f"{unknown} {left_out}, since tempo, key or length is not known (recordings have no notes, a few "
                "notes no tempo; an index of an older version has to be brought up to date)"
            )
        return np.concatenate(chosen or [np.zeros(0, int)]), note


def piece_facts(shard: IndexShard) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Facts of a shard's pieces `(pieces, 4)`, and for each of `KINDS` whether they have such a file, `(pieces,)`."""
    table = shard.table
    facts = np.full((len(table.paths), 4), np.nan) if table.facts is None else np.asarray(table.facts, np.float64)
    paths, pieces = list(table.paths), list(table.pieces)
    kinds = [EXTENSIONS.get(os.path.splitext(path)[1].lower()) for path in paths]
    if len(shard) == len(paths) and (shard.named_by == np.arange(len(shard))).all():
        return facts, {kind: np.array([file_kind == kind for file_kind in kinds], bool) for kind in KINDS}
    number = {pieces[row]: piece for piece, row in enumerate(shard.named_by)}
    place = np.array([number.get(piece, -1) for piece in pieces])
    merged = np.full((len(shard), 4), np.nan)
    has = {kind: np.zeros(len(shard), bool) for kind in KINDS}
    # Recordings first, so that the facts of a piece's notes replace them where there are any.
    for row in sorted(np.flatnonzero(place >= 0), key=lambda row: gives_notes(paths[row])):
        known = ~np.isnan(facts[row])
        merged[place[row], known] = facts[row, known]
        if kinds[row]:
            has[kinds[row]][place[row]] = True
    return merged, has


def _range(name: str, text: str | None) -> tuple[float, float]:
    if not text or not text.strip():
        return EVERY
    low, dash, high = text.replace("\u2013", "-").partition("-")
    try:
        bounds = tuple(
            float(part) if part.strip() else default for part, default in ((low, -math.inf), (high, math.inf))
        )
    except ValueError:
        bounds = (math.nan, math.nan)
    if dash and bounds[0] <= bounds[1] and bounds != EVERY:
        return bounds
    raise ValueError(f"{name} is {text!r}; give a range such as 2-5, -5 or 2-")


__all__ = ["KINDS", "Filters", "piece_facts"]
