"""Ranking figures of PianoBind: the single definition of each retrieval and tagging number in the project.

Ties: every figure is its expected value over all orders of the items with equal scores; see `tie_groups.py`, which
holds the figures per query. Here they are averaged over queries, in both directions, with intervals, by numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .tie_groups import RelevantGroups, RowReader, as_matrix, locate_pairs, locate_relevant, relevant_pairs

__all__ = [
    "MacroAverage",
    "RelevantGroups",
    "average_precision",
    "embedding_retrieval_metrics",
    "locate_relevant",
    "macro_average_precision",
    "macro_roc_auc",
    "retrieval_metrics",
    "roc_auc",
    "summarise",
]

# Bootstrap indices drawn at once: 8 MiB, whatever the number of queries and draws.
BLOCK_DRAWS = 2**20


def retrieval_metrics(scores: Any, relevant: Any, *, reverse: bool = False, **options: Any) -> dict[str, Any]:
    """Computes every retrieval figure from a score matrix.

    Args:
        scores (array of shape `(queries, items)`): as in `locate_relevant`.
        relevant (`Sequence[int]` or `Sequence[Sequence[int]]`): as in `locate_relevant`.
        reverse (`bool`): also take the items as queries and the queries as items. Every item needs a relevant query.
        options: keywords of `summarise`: `top_k`, `ndcg_depth`, `bootstrap_samples`, `confidence`, `seed`.
    Returns:
        `dict`: the keys of `summarise`, and the same with the prefix `reverse_` if asked.
    Raises:
        ValueError: as in `locate_relevant`; with `reverse`, an item that no query names; an option out of range.
    """
    scores = as_matrix(scores, "scores", "(queries, items)")
    return _both_directions(
        lambda start, stop: scores[start:stop],
        lambda start, stop: scores[:, start:stop].T,
        relevant_pairs(relevant, *scores.shape),
        scores.shape,
        reverse,
        options,
    )


def embedding_retrieval_metrics(
    query_embeddings: Any,
    item_embeddings: Any,
    relevant: Any,
    *,
    similarity: str = "cosine",
    reverse: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Computes every retrieval figure from embeddings, without ever holding the whole score matrix.

    Args:
        query_embeddings (array of shape `(queries, dim)`): one row per query.
        item_embeddings (array of shape `(items, dim)`): one row per item.
        relevant (`Sequence[int]` or `Sequence[Sequence[int]]`): as in `locate_relevant`.
        similarity (`str`): "cosine" makes rows unit length first, "dot" takes them as they are.
        reverse (`bool`): as in `retrieval_metrics`.
        options: as in `retrieval_metrics`.
    Returns:
        `dict`: as in `retrieval_metrics`.
    Raises:
        ValueError: as in `retrieval_metrics`; different `dim`; another `similarity`; a row of zeros with "cosine".
    """
    queries = as_matrix(query_embeddings, "query_embeddings", "(queries, dim)")
    items = as_matrix(item_embeddings, "item_embeddings", "(items, dim)")
    if queries.shape[1] != items.shape[1]:
        raise ValueError(
            f"`query_embeddings` have {queries.shape[1]} dimensions and `item_embeddings` {items.shape[1]}; both must "
            "come from one embedding space. Embed both with the same checkpoint."
        )
    if similarity not in ("cosine", "dot"):
        raise ValueError(f'`similarity` is {similarity!r}; expected "cosine" or "dot". Pass one of the two.')
    queries = _embedding_rows(queries, "query_embeddings", similarity)
    items = _embedding_rows(items, "item_embeddings", similarity)
    shape = (len(queries), len(items))
    return _both_directions(
        product_reader(queries, items),
        product_reader(items, queries),
        relevant_pairs(relevant, *shape),
        shape,
        reverse,
        options,
    )


def summarise(
    groups: RelevantGroups,
    *,
    top_k: Sequence[int] = (1, 5, 10),
    ndcg_depth: int = 10,
    bootstrap_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Averages the figures over queries, with bootstrap percentile intervals.

    Args:
        groups (`RelevantGroups`): from `locate_relevant`.
        top_k (`Sequence[int]`): the k of each `recall@k`.
        ndcg_depth (`int`): the k of `ndcg@k`.
        bootstrap_samples (`int`): draws of `queries` queries with replacement; 0 leaves the intervals out.
        confidence (`float`): share of the draws inside an interval, between 0 and 1.
        seed (`int`): seed of the draws; the same draws serve all figures.
    Returns:
        `dict`: `recall@k` (hit rate: share of queries with at least one relevant item in the top k), `mrr`, `map`,
        `ndcg@k` (all 0 to 1), `median_rank` (1 = best), each with `<name>_interval` = [low, high]; `queries`, `items`.
    Raises:
        ValueError: an option out of range.
    """
    for name, depth in [*(("top_k", k) for k in top_k), ("ndcg_depth", ndcg_depth)]:
        if isinstance(depth, bool) or not isinstance(depth, (int, np.integer)) or depth < 1:
            raise ValueError(f"`{name}` holds {depth!r}; expected whole numbers from 1 up, such as 10.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` is {confidence!r}; expected a share between 0 and 1, such as 0.95.")
    if bootstrap_samples < 0:
        raise ValueError(f"`bootstrap_samples` is {bootstrap_samples!r}; expected 1000 or so, or 0 for no intervals.")
    per_query = {f"recall@{k}": groups.hit_rate(int(k)) for k in top_k}
    per_query["mrr"] = groups.reciprocal_rank()
    per_query["median_rank"] = groups.first_rank()
    per_query["map"] = groups.average_precision()
    per_query[f"ndcg@{ndcg_depth}"] = groups.ndcg(int(ndcg_depth))
    result: dict[str, Any] = {name: float(_statistic(name)(values)) for name, values in per_query.items()}
    if bootstrap_samples:
        for name, interval in _bootstrap_intervals(per_query, bootstrap_samples, confidence, seed).items():
            result[f"{name}_interval"] = interval
    return result | {"queries": len(groups.first), "items": groups.items}


class MacroAverage(NamedTuple):
    """A figure averaged over the columns of a label matrix.

    `mean` is taken over the columns that have both classes; `per_column` has shape `(columns,)`, with NaN for the
    others, and `skipped` names those others (column indices).
    """

    mean: float
    per_column: np.ndarray
    skipped: tuple[int, ...]


def roc_auc(scores: Any, labels: Any) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Args:
        scores (array of shape `(items,)`): higher means more likely positive.
        labels (array of shape `(items,)`): 1 or True for a positive, 0 or False for a negative.
    Returns:
        `float` from 0 to 1; 0.5 for constant scores.
    Raises:
        ValueError: NaN, different lengths, labels other than 0 and 1, or only one class.
    """
    return macro_roc_auc(_column(scores, "scores"), _column(labels, "labels")).mean


def average_precision(scores: Any, labels: Any) -> float:
    """Area under the precision-recall curve as a sum of steps; ties as in `RelevantGroups.average_precision`.

    Args, Raises: as in `roc_auc`.

    Returns:
        `float` from 0 to 1.
    """
    return macro_average_precision(_column(scores, "scores"), _column(labels, "labels")).mean


def macro_roc_auc(scores: Any, labels: Any) -> MacroAverage:
    """`roc_auc` of each column and their mean; a column with only one class is skipped and named.

    Args:
        scores (array of shape `(items, columns)`): one column per tag.
        labels (array of shape `(items, columns)`): 0 or 1, False or True.
    Returns:
        `MacroAverage`.
    Raises:
        ValueError: NaN, different shapes, labels other than 0 and 1, or no column with both classes.
    """
    return _macro(scores, labels, RelevantGroups.roc_auc)


def macro_average_precision(scores: Any, labels: Any) -> MacroAverage:
    """`average_precision` of each column and their mean; a column with only one class is skipped and named.

    Args, Returns, Raises: as in `macro_roc_auc`.
    """
    return _macro(scores, labels, RelevantGroups.average_precision)


def _both_directions(
    read_forward: RowReader,
    read_reverse: RowReader,
    pairs: np.ndarray,
    shape: tuple[int, int],
    reverse: bool,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Summarises the ranking of items for each query and, with `reverse`, of queries for each item."""
    queries, items = shape
    result = summarise(locate_pairs(read_forward, pairs, queries, items), **options)
    if reverse:
        missing = np.setdiff1d(np.arange(items), pairs[:, 1])
        if missing.size:
            raise ValueError(
                f"{missing.size} of {items} items have no relevant query, the first is item {missing[0]}; with "
                "`reverse=True` each item is a query and needs one. Use `reverse=False`, or leave those items out."
            )
        swapped = pairs[np.argsort(pairs[:, 1], kind="stable")][:, ::-1]
        backward = summarise(locate_pairs(read_reverse, swapped, items, queries), **options)
        result |= {f"reverse_{name}": value for name, value in backward.items()}
    return result


def _embedding_rows(rows: np.ndarray, name: str, similarity: str) -> np.ndarray:
    """Returns the rows in single precision or better, of unit length if the similarity is the cosine."""
    rows = rows.astype(np.result_type(rows, np.float32), copy=False)
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if broken.size:
        raise ValueError(
            f"`{name}` row {broken[0]} holds NaN or infinite numbers ({broken.size} such rows); expected finite ones. "
            "Find out which file or text gave that row, and embed it again or leave it out."
        )
    if similarity == "dot":
        return rows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    zero = np.flatnonzero(norms == 0)
    if zero.size:
        raise ValueError(
            f"`{name}` row {zero[0]} is all zeros and has no direction; cosine similarity needs one. "
            'Embed that row again, or pass `similarity="dot"`.'
        )
    return rows / norms


def product_reader(queries: np.ndarray, items: np.ndarray) -> RowReader:
    """Returns a reader of blocks of `queries @ items.T`; items with the same embedding get the same score.

    A matrix product may round two equal columns differently, which would break their tie by position. So each
    different row of `items` is multiplied once and its score copied.
    """
    place: dict[bytes, int] = {}
    copies = np.array([place.setdefault(row.tobytes(), len(place)) for row in items])  # (items,) row -> distinct row
    distinct = items[np.unique(copies, return_index=True)[1]]
    return lambda start, stop: (queries[start:stop] @ distinct.T)[:, copies]


def _statistic(name: str) -> Callable[..., Any]:
    return np.median if name == "median_rank" else np.mean


def _bootstrap_intervals(
    per_query: dict[str, np.ndarray], samples: int, confidence: float, seed: int
) -> dict[str, list[float]]:
    """Returns the percentile interval [low, high] of each figure, all from the same draws of queries."""
    queries = len(next(iter(per_query.values())))
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in per_query}
    block = max(1, BLOCK_DRAWS // queries)
    for start in range(0, samples, block):
        chosen = generator.integers(queries, size=(min(block, samples - start), queries))
        for name, values in per_query.items():
            drawn[name].append(_statistic(name)(values[chosen], axis=1))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    return {name: np.quantile(np.concatenate(parts), tails).tolist() for name, parts in drawn.items()}


def _column(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(
            f"`{name}` has shape {array.shape}; expected (items,). For several columns use the `macro_` function."
        )
    return array[:, None]


def _macro(scores: Any, labels: Any, figure: Callable[[RelevantGroups], np.ndarray]) -> MacroAverage:
    """Averages `figure` over the columns with both classes, each column taken as one query over all rows."""
    scores, labels = as_matrix(scores, "scores", "(items, columns)"), as_matrix(labels, "labels", "(items, columns)")
    if scores.shape != labels.shape:
        raise ValueError(
            f"`scores` have shape {scores.shape} and `labels` {labels.shape}; expected the same, one label per score. "
            "Check that both hold the same items and tags, in the same order."
        )
    if np.isnan(scores).any():
        row, column = np.argwhere(np.isnan(scores))[0]
        raise ValueError(
            f"`scores` are NaN, first for item {row} in column {column}; a ranking needs comparable numbers. "
            "Find out where the NaN comes from, or leave that item out."
        )
    odd = labels[(labels != 0) & (labels != 1)]
    if odd.size:
        raise ValueError(f"`labels` hold {odd[0]}; expected 0 or 1 (False or True). Binarise them first.")
    positives = labels.sum(axis=0)
    usable = np.flatnonzero((positives > 0) & (positives < len(labels)))
    if not usable.size:
        raise ValueError(
            f"`labels` have one class only, in each of {labels.shape[1]} columns; expected at least one column with "
            "positives and negatives. Add items of the other class."
        )
    by_column = scores[:, usable].T
    pairs = np.argwhere(labels[:, usable].T == 1)
    groups = locate_pairs(lambda start, stop: by_column[start:stop], pairs, len(usable), len(labels))
    per_column = np.full(labels.shape[1], np.nan)
    per_column[usable] = figure(groups)
    skipped = np.setdiff1d(np.arange(labels.shape[1]), usable)
    return MacroAverage(float(per_column[usable].mean()), per_column, tuple(skipped.tolist()))
