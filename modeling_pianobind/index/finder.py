"""Search by words, negations, names and filters together, with calibrated scores."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..service.calibration import POOR_FIT, percentile
from ..service.checkpoint import Checkpoint
from ..service.query import Query, embed_query, parse_query, unknown_words
from .alignment import Example
from .embedding_index import EmbeddingIndex, Hit
from .feedback import Background, refine
from .filters import Filters
from .names import NameIndex, common_folder, names_of
from .taste import Taste, blend

# Bonus of a name with all words of a query, in standard deviations of the query's scores: no piece is that much closer
# to a text than others. The square gives little to names that hold one word of several.
NAME_WEIGHT, NAME_POWER = 8.0, 2.0
NAMED = 0.6  # share of a query's words in a name, from which the piece fits by its name
TASTE_CANDIDATES = 500  # hits that a taste chooses from
CORPUS_SAMPLE = 2_000  # pieces of an index that serve as background where a checkpoint has none of its own


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
        hits (`list[Hit]`): best first, each with its `fit`.
        notes (`list[str]`): remarks for the user, a line each.
    """

    hits: list[Hit]
    notes: list[str]


class Finder:
    """Searches an index.

    Args:
        index (`EmbeddingIndex`): whose pieces.
        checkpoint (`Checkpoint`): the one that made it.
        folder (*optional*): where a metadata file lies; the common folder of all pieces by default.
        by_names (`bool`): whether names and metadata count.
        filters (`Filters`, *optional*): what pieces must be like.
    """

    def __init__(
        self,
        index: EmbeddingIndex,
        checkpoint: Checkpoint,
        folder: str | os.PathLike | None = None,
        by_names: bool = True,
        filters: Filters | None = None,
    ):
        self.checkpoint, self._folder, self._by_names = checkpoint, folder, by_names
        chosen, note = (filters or Filters()).select(index)
        self._whole = index
        self.index = index if chosen is None else index.subset(chosen)
        self._notes, self._names = [note] if note else [], None
        if not len(self.index) and len(index):
            self._notes.append("no piece passes the filters; widen them")

    def find(
        self,
        text: str | None = None,
        example: Example | None = None,
        top_k: int = 10,
        text_weight: float = 0.5,
        more: Sequence[np.ndarray] = (),
        less: Sequence[np.ndarray] = (),
        taste: Taste | None = None,
    ) -> SearchResult:
        """Finds the pieces that fit words, an example, or both; or feedback alone.

        Args:
            more, less (each `np.ndarray` of shape `(n, dim)`): pieces that the words, or the example, are moved
                towards and away from; see `refine`.
            taste (`Taste`, *optional*): a listener's taste, which reorders hits that fit the query about equally well.
        Raises:
            ValueError, UserError: as `EmbeddingIndex.search` and `refine`, or the text cannot be embedded.
        """
        notes = list(self._notes)
        query = None if text is None else parse_query(text)
        words = None if query is None else embed_query(self.checkpoint.embed_text, query)
        if not len(self.index):
            return SearchResult([], notes)
        if len(more) or len(less):
            words = refine(words, more, less, self._background)
        count = top_k if taste is None else max(top_k, TASTE_CANDIDATES)
        if example is not None:
            hits = self.index.search_like(example, count, words, text_weight)
            hits = self._by_taste(hits, self._scores(example.embedding, hits), taste, top_k)
            return SearchResult(_with_fit(hits, percentile(self._scores(example.embedding, hits))), notes)
        # An unwanted word in a name says nothing about the music: such a query is searched by embeddings alone.
        coverage = self._coverage(text) if query is not None and not query.unwanted else np.zeros(0)
        if coverage.any():
            hits, values = self._fused(words, coverage, count)
        else:
            hits = self.index.search(words, count)[0]
            values = self._scores(words, hits)
        hits = self._by_taste(hits, values, taste, top_k)
        understood = 1.0 if query is None else self._understood(query)
        fits = understood * percentile(self._scores(words, hits))
        named = np.zeros(len(hits))
        if coverage.any():
            place = {path: number for number, path in enumerate(self.index.paths)}
            named = np.array([coverage[place[hit.path]] for hit in hits])
        fits = np.where(named >= NAMED, np.maximum(fits, named), fits)
        if not len(fits) or fits.max() < POOR_FIT:
            notes.append(self._poor_fit(query, understood))
        return SearchResult(_with_fit(hits, fits), notes)

    @cached_property
    def _background(self) -> Background:
        """Of all pieces: the few that pass the filters say little about how pieces differ."""
        return Background.of(self._whole.embeddings[:: max(1, len(self._whole) // CORPUS_SAMPLE)])

    def _understood(self, query: Query) -> float:
        """Similarity of a query to descriptions of music: the lowest one of its parts."""
        parts = [*([query.wanted] if query.wanted else []), *query.unwanted]
        return float(self.checkpoint.calibration.understood(self.checkpoint.embed_text(parts)).min())

    def _standard(self, query: np.ndarray, scores: Sequence[float]) -> np.ndarray:
        step = max(1, len(self.index) // CORPUS_SAMPLE)
        has_pieces = len(self.checkpoint.calibration.pieces)
        return self.checkpoint.calibration.standard(
            query, scores, None if has_pieces else self.index.embeddings[::step]
        )

    def _scores(self, query: np.ndarray, hits: list[Hit]) -> np.ndarray:
        return self._standard(query, [hit.score for hit in hits])

    def _by_taste(self, hits: list[Hit], values: np.ndarray, taste: Taste | None, top_k: int) -> list[Hit]:
        """The best hits by their values, and by a taste if there is one."""
        if taste is None or not hits:
            return hits[:top_k]
        place = {path: number for number, path in enumerate(self.index.paths)}
        embeds = self.index.embeddings[[place[hit.path] for hit in hits]]
        order = blend(values, np.array([hit.score for hit in hits]), taste.scores(embeds, self._background), top_k)
        return [hits[number] for number in order[:top_k]]

    def _coverage(self, text: str) -> np.ndarray:
        if not self._by_names:
            return np.zeros(0)
        if self._names is None:
            folder = self._folder or common_folder(self._whole.paths)
            self._names = NameIndex(names_of(self.index, folder))
        return self._names.coverage(text)

    def _fused(self, words: np.ndarray, coverage: np.ndarray, top_k: int) -> tuple[list[Hit], np.ndarray]:
        """The best of the pieces closest in sound and of those whose names hold words of the query; their values."""
        named = np.flatnonzero(coverage)
        value = self._standard(words, self.index.scores_of(words, named)) + _bonus(coverage[named])
        named = named[np.argsort(-value, kind="stable")[:top_k]]
        bonus = {self.index.path(piece): _bonus(coverage[piece]) for piece in named}
        hits = {hit.path: hit for hit in self.index.search(words, top_k)[0]}
        hits |= {hit.path: hit for hit in self.index.hits_of(words, named)}
        candidates = list(hits.values())
        standard = self._scores(words, candidates)
        value = {
            hit.path: deviation + bonus.get(hit.path, 0.0) for hit, deviation in zip(candidates, standard, strict=True)
        }
        best = sorted(candidates, key=lambda hit: (-value[hit.path], hit.path))[:top_k]
        return best, np.array([value[hit.path] for hit in best])

    def _poor_fit(self, query: Query | None, understood: float) -> str:
        if query is None:
            return "nothing fits well: no piece here stands out for these examples"
        known = "the model knows English descriptions of music"
        if unknown := unknown_words(query, self.checkpoint.count_tokens):
            return f"nothing fits well: {known}, and not {', '.join(map(repr, unknown[:5]))}"
        known += ", such as 'calm, slow waltz'"
        if understood < POOR_FIT:
            return f"nothing fits well: {known}, and the query does not read as one"
        return f"nothing fits well: no piece here stands out for this query; {known}"


def _bonus(coverage: float | np.ndarray) -> float | np.ndarray:
    """Bonus of a name on a score, in standard deviations."""
    return NAME_WEIGHT * coverage**NAME_POWER


def _with_fit(hits: list[Hit], fits: Iterable[float]) -> list[Hit]:
    return [replace(hit, fit=round(float(fit), 4)) for hit, fit in zip(hits, fits, strict=True)]


__all__ = ["Finder", "SearchResult"]
