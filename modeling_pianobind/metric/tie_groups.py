"""Where relevant items stand in a ranking, ties kept as groups, and each figure per query computed from that.

A higher score means a better match. Items with equal scores have no order of their own, so every figure here is its
**expected value over all orders of the tied items**, computed exactly and not by drawing orders: a constant score
matrix gives chance level, neither a perfect nor a zero score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# Scores held and sorted at once. 2**22 float64 numbers are 32 MiB, whatever the size of the whole matrix.
BLOCK_SCORES = 2**22

RowReader = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class RelevantGroups:
    """Where the relevant items of each query stand: one row per group of equal scores that holds a relevant item.

    Rows are sorted by query and then from the best score down. Everything below is computed from these few numbers.

    Attributes:
        items (`int`): number of items each query ranks.
        query (`np.ndarray` of shape `(groups,)`): the query, 0-based.
        above (`np.ndarray` of shape `(groups,)`): items with a strictly higher score.
        size (`np.ndarray` of shape `(groups,)`): items with exactly this score.
        relevant (`np.ndarray` of shape `(groups,)`): relevant items among those `size`, at least 1.
    """

    items: int
    query: np.ndarray
    above: np.ndarray
    size: np.ndarray
    relevant: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """Row of each query's best group, of shape `(queries,)`."""
        return np.flatnonzero(np.diff(self.query, prepend=-1))

    @property
    def relevant_total(self) -> np.ndarray:
        """Relevant items of each query, of shape `(queries,)`, int64."""
        return np.add.reduceat(self.relevant, self.first)

    @property
    def relevant_above(self) -> np.ndarray:
        """Relevant items of the same query in better groups, of shape `(groups,)`, int64."""
        before = np.cumsum(self.relevant) - self.relevant
        return before - before[self.first][self.query]

    def first_rank(self) -> np.ndarray:
        """Returns the rank (1 = best) of each query's best relevant item, of shape `(queries,)`.

        With one relevant item this is the mean rank of its tied group, `above + (size + 1) / 2`; with r of them in the
        group, the expected place of the first of the r, `above + (size + 1) / (r + 1)`.
        """
        first = self.first
        return self.above[first] + (self.size[first] + 1) / (self.relevant[first] + 1)

    def hit_rate(self, k: int) -> np.ndarray:
        """Returns R@k: the chance that at least one relevant item stands in the top `k`, of shape `(queries,)`.

        Without ties this is 0 or 1. Where the cut falls inside a group of `size` items, of which r are relevant and
        m make the cut, it is `1 - C(size - r, m) / C(size, m)`.
        """
        first = self.first
        above, size, relevant = self.above[first], self.size[first], self.relevant[first]
        places = np.clip(k - above, 0, size)  # places of the top k that fall to the group
        miss = np.ones(len(first))
        # C(size - r, m) / C(size, m), one factor for each place, so that no factorial can overflow.
        for place in range(int(places.max())):
            open_ = place < places
            miss[open_] *= np.maximum(size - relevant - place, 0)[open_] / (size - place)[open_]
        return 1.0 - miss

    def reciprocal_rank(self) -> np.ndarray:
        """Returns 1 / rank of each query's best relevant item, expected value under ties, of shape `(queries,)`."""
        first = self.first
        above, size, relevant = self.above[first], self.size[first], self.relevant[first]
        total = np.zeros(len(first))
        still_missing = np.ones(len(first))  # chance that no relevant item stood on an earlier place of the group
        for place, rows in _places(size):
            here = still_missing[rows] * relevant[rows] / (size[rows] - place)
            total[rows] += here / (above[rows] + place + 1)
            still_missing[rows] -= here
        return total

    def average_precision(self) -> np.ndarray:
        """Returns the mean, over a query's relevant items, of the precision at their ranks, of shape `(queries,)`.

        Without ties this is scikit-learn's `average_precision_score`. Under ties that one gives every item of a group
        the precision at the end of the group; here it is the expected value (McSherry and Najork, ECIR 2008), so that
        with one relevant item it equals the reciprocal rank.
        """
        relevant_above = self.relevant_above
        share = self.relevant / self.size
        # Relevant items expected on each earlier place of the group, given that this place holds a relevant one.
        density = (self.relevant - 1) / np.maximum(self.size - 1, 1)
        total = np.zeros(len(self.query))
        for place, rows in _places(self.size):
            relevant_before = relevant_above[rows] + 1 + place * density[rows]
            total[rows] += share[rows] * relevant_before / (self.above[rows] + place + 1)
        return np.add.reduceat(total, self.first) / self.relevant_total

    def ndcg(self, k: int) -> np.ndarray:
        """Returns nDCG@k with gain 1 for a relevant item and discount 1 / log2(rank + 1), of shape `(queries,)`.

        The ideal order puts all relevant items first. Same ties as scikit-learn's `ndcg_score(ignore_ties=False)`.
        """
        k = min(k, self.items)
        discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(k) + 2))])  # (k + 1,) sums over the top n
        group = discounts[np.minimum(self.above + self.size, k)] - discounts[np.minimum(self.above, k)]
        gain = np.add.reduceat(self.relevant / self.size * group, self.first)
        return gain / discounts[np.minimum(self.relevant_total, k)]

    def roc_auc(self) -> np.ndarray:
        """Returns the chance that a relevant item scores above one that is not, ties counting half, `(queries,)`.

        Not defined (NaN) for a query to which every item is relevant.
        """
        others = self.items - self.relevant_total  # (queries,)
        tied = self.size - self.relevant
        other_above = self.above - self.relevant_above
        below = others[self.query] - other_above - tied
        return np.add.reduceat(self.relevant * (below + tied / 2), self.first) / (self.relevant_total * others)


def _places(size: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each place 0, 1, ... inside the groups, with the rows of the groups that are larger than it."""
    order = np.argsort(-size, kind="stable")
    descending = -size[order]
    for place in range(int(-descending[0])):
        yield place, order[: np.searchsorted(descending, -place)]


def locate_relevant(scores: Any, relevant: Any) -> RelevantGroups:
    """Finds where the relevant items stand in each query's ranking.

    Args:
        scores (array of shape `(queries, items)`): higher is better; -inf puts an item last; NaN is refused.
        relevant (`Sequence[int]` or `Sequence[Sequence[int]]`): for each query its relevant column, or columns.
    Returns:
        `RelevantGroups`, whose methods give each figure per query.
    Raises:
        ValueError: empty or non-numeric scores, NaN, another number of queries in `relevant`, a query with no relevant
            item, a column out of range or named twice.
    """
    scores = as_matrix(scores, "scores", "(queries, items)")
    pairs = relevant_pairs(relevant, *scores.shape)
    return locate_pairs(lambda start, stop: scores[start:stop], pairs, *scores.shape)


def locate_pairs(read_rows: RowReader, pairs: np.ndarray, queries: int, items: int) -> RelevantGroups:
    """Does the work of `locate_relevant`, reading the scores a block of queries at a time.

    Args:
        read_rows (`Callable[[int, int], np.ndarray]`): `(start, stop)` -> scores of those queries, `(rows, items)`.
        pairs (`np.ndarray` of shape `(pairs, 2)`): query and relevant item, sorted by query, each query at least once.
        queries (`int`): number of queries.
        items (`int`): number of items.
    Returns:
        `RelevantGroups`.
    Raises:
        ValueError: a score is NaN.
    """
    above, size = np.empty(len(pairs), np.int64), np.empty(len(pairs), np.int64)
    bounds = np.searchsorted(pairs[:, 0], np.arange(queries + 1))  # pairs of query q are bounds[q]:bounds[q + 1]
    block = max(1, BLOCK_SCORES // items)
    for start in range(0, queries, block):
        rows = read_rows(start, min(start + block, queries))
        if rows.dtype == np.float16:  # numpy sorts half precision many times slower than single
            rows = rows.astype(np.float32)
        ordered = np.sort(rows, axis=1)
        if np.isnan(ordered[:, -1]).any():  # NaN sorts last
            row, column = np.argwhere(np.isnan(rows))[0]
            raise ValueError(
                f"`scores` are NaN, first for query {start + row} and item {column}; a ranking needs comparable "
                "numbers. Find out where the NaN comes from; to put an item last, give it -inf."
            )
        for query, (row, ascending) in enumerate(zip(rows, ordered, strict=True), start):
            own = slice(bounds[query], bounds[query + 1])
            values = row[pairs[own, 1]]
            not_above = np.searchsorted(ascending, values, side="right")
            above[own] = items - not_above
            size[own] = not_above - np.searchsorted(ascending, values, side="left")
    order = np.lexsort((above, pairs[:, 0]))
    query, above, size = pairs[order, 0], above[order], size[order]
    starts = np.flatnonzero((np.diff(query, prepend=-1) != 0) | (np.diff(above, prepend=-1) != 0))
    relevant = np.diff(np.append(starts, len(query)))
    return RelevantGroups(items, query[starts], above[starts], size[starts], relevant)


def as_matrix(values: Any, name: str, shape: str) -> np.ndarray:
    """Returns `values` as a two-dimensional numeric array, without a copy where it is one.

    Args:
        values (array-like): a list of rows, a numpy array or a CPU tensor.
        name (`str`): what to call it in an error.
        shape (`str`): the meaning of its two axes, for an error.
    Returns:
        `np.ndarray` with two axes, neither of them empty.
    Raises:
        ValueError: rows of different lengths, not numbers, not two axes, or empty.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"`{name}` has rows of different lengths; expected shape {shape}. Fill them up.") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` has dtype {array.dtype}; expected numbers of shape {shape}. Convert it first.")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"`{name}` has shape {array.shape}; expected {shape} with at least one of each. Reshape it.")
    return array


def relevant_pairs(relevant: Any, queries: int, items: int) -> np.ndarray:
    """Checks the relevant columns of each query and lists them as pairs.

    Args:
        relevant (`Sequence[int]` or `Sequence[Sequence[int]]`): as in `locate_relevant`.
        queries (`int`): number of queries.
        items (`int`): number of items.
    Returns:
        `np.ndarray` of shape `(pairs, 2)`, int64: query and item, sorted by query.
    Raises:
        ValueError: another number of queries, a query with no relevant item, a column that is not a whole number, is
            out of range or named twice.
    """
    if len(relevant) != queries:
        raise ValueError(
            f"{len(relevant)} entries say what is relevant, and there are {queries} queries; expected one entry per "
            "query (row of scores): a column index or a list of them."
        )
    columns = [np.atleast_1d(np.asarray(entry)) for entry in relevant]
    for query, entry in enumerate(columns):
        if entry.size == 0:
            raise ValueError(
                f"Query {query} has no relevant item; expected at least one, since no rank exists without. "
                "Leave that query out of both the scores and the relevant columns."
            )
        if entry.dtype.kind not in "iu" or entry.ndim != 1:
            raise ValueError(
                f"Query {query} has relevant columns {entry.tolist()}; expected whole numbers, the column indices. "
                "Turn a mask into indices with `np.flatnonzero`."
            )
        if entry.min() < 0 or entry.max() >= items:
            raise ValueError(
                f"Query {query} has relevant columns {entry.tolist()}; expected indices from 0 to {items - 1}, as "
                f"there are {items} items. Check that the scores hold every item, and count from 0."
            )
        if len(set(entry.tolist())) != entry.size:
            raise ValueError(
                f"Query {query} has relevant columns {entry.tolist()}; expected each once. Remove the repetition."
            )
    query_of_pair = np.repeat(np.arange(queries), [entry.size for entry in columns])
    return np.stack([query_of_pair, np.concatenate(columns).astype(np.int64)], axis=1)
