"""Exact search by brute force in two steps: a fast product selects candidates, and each gets its exact score.

A piece's score is the same to the last bit however many queries are asked at once, and whether the first step reads
float32 rows or their int8 codes. usearch (extra `[int8]`) compares int8 codes where it is installed, numpy elsewhere.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from .alignment import Example, alignment
from .note_alignment import NoteLine, confidences
from .table import INT8_MAX, IndexShard

SCORE_DECIMALS = 6  # cosines closer than this are ties: two copies of a file must not be ordered by rounding
BLOCK_ROWS = 32_768  # the product of 64 queries with them fits the processor's cache
FLOAT_MARGIN = np.float32(5e-5)  # above the differences of float32 products in another order, and of rounding
INT8_CANDIDATES = 4  # int8 lets this many times `top_k` rows through, so that its rounding loses none
INT8_MAX_QUERIES = 8  # up to here usearch, which reads int8, beats a matrix product with the rows as float32
# Share of the distance to 1 that a sure alignment of notes adds: the example itself stays before its performances.
SURE_SHARE = 0.9
MAX_COSINE = 1.1  # larger values and NaN come from damaged files
INT8_TIE = 1e-6  # distances closer than this are of equal codes
CONVERTED_ROWS = 1_024  # int8 rows made float32 at once: they stay in the processor's cache


def top_pieces(shard: IndexShard, queries: np.ndarray, top_k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Finds the best pieces of a shard for each query.

    Args:
        shard (`IndexShard`): of at least one piece.
        queries (`np.ndarray` of shape `(queries, dim)`): float32, unit length.
        top_k (`int`): how many; all that tie with the last are returned too.
    Returns:
        For each query the numbers of its pieces and their cosines (float64, rounded), in no order.
    Raises:
        ValueError: the embeddings are not unit vectors.
    """
    int8 = shard.codes is not None
    candidates = _int8_candidates(shard, queries, top_k) if int8 and len(queries) <= INT8_MAX_QUERIES else None
    if candidates is not None:
        pairs = zip(candidates, queries, strict=True)
        return [_best(*exact_scores(shard.embeds, rows, query), top_k) for rows, query in pairs]
    wanted, margin = (top_k * INT8_CANDIDATES, 0) if int8 else (top_k, FLOAT_MARGIN)
    floors = np.full(len(queries), -np.inf, np.float32)
    kept = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in queries]
    for start, scores in _fast_scores(shard, queries):
        best = scores.max(axis=1)
        if not (best <= MAX_COSINE).all():
            raise ValueError(
                f"{shard.source}: the index is damaged (embeddings that are not of length 1); build it again."
            )
        for query in np.flatnonzero(best >= floors):
            new = np.flatnonzero(scores[query] >= floors[query])
            rows = np.concatenate([kept[query][0], start + new])
            values = np.concatenate([kept[query][1], scores[query, new]])
            if len(values) > wanted:
                floors[query] = np.partition(values, -wanted)[-wanted] - margin
                rows, values = rows[values >= floors[query]], values[values >= floors[query]]
            kept[query] = rows, values
    return [
        _best(*exact_scores(shard.embeds, rows, query), top_k) for (rows, _), query in zip(kept, queries, strict=True)
    ]


def rerank_by_alignment(
    shards: list[IndexShard],
    query: np.ndarray,
    length: float,
    count: int,
    example: Example,
    words: np.ndarray | None,
    text_weight: float,
) -> list[tuple]:
    """Ranks the `count` pieces closest to a query by the alignment of their windows with an example's.

    Args:
        shards (`list[IndexShard]`): each of at least one piece.
        query (`np.ndarray` of shape `(1, dim)`): unit length; `1 - text_weight` of the example and `text_weight` of
            the words, a sum of length `length` before it was normalised.
        example (`Example`), words (`np.ndarray` of shape `(dim,)` or None): the parts of the query.
    Returns:
        `list[tuple]`: `(-score, path, shard, number of the piece)`, best first. A score is the query's cosine, with
        the `alignment` of the windows in place of the example's cosine where both sides have windows.
    """
    candidates = []
    for shard in shards:
        pieces, scores = top_pieces(shard, query, min(count, len(shard)))[0]
        candidates += [(-score, shard.path(piece), shard, piece) for piece, score in zip(pieces, scores, strict=True)]
    candidates.sort(key=lambda candidate: candidate[:2])
    others = [shard.example(piece) for _, _, shard, piece in candidates[:count]]
    sure = confidences(NoteLine.of(example.notes), [other.notes for other in others])
    for rank, ((_, path, shard, piece), other) in enumerate(zip(candidates[:count], others, strict=True)):
        if len(example.windows) and len(other.windows):
            text_score = 0.0 if words is None else text_weight * float(other.embedding @ words)
            likeness = alignment(example, other)
            likeness += SURE_SHARE * (1 - likeness) * sure[rank]
            score = (text_score + (1 - text_weight) * likeness) / length
            candidates[rank] = (-round(float(score), SCORE_DECIMALS), path, shard, piece)
    return sorted(candidates[:count], key=lambda candidate: candidate[:2])


def _best(rows: np.ndarray, scores: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    last = np.partition(scores, -top_k)[-top_k] if top_k < len(scores) else -np.inf
    return rows[scores >= last], scores[scores >= last]


def _fast_scores(shard: IndexShard, queries: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the first row of a block and the block's scores `(queries, rows)`."""
    for start in range(0, len(shard), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        if shard.codes is None:
            yield start, _product(shard.embeds[rows], queries)
        else:
            yield start, _int8_product(shard.codes[rows], shard.scales[rows], queries)


def _product(embeds: np.ndarray, queries: np.ndarray) -> np.ndarray:
    # Row by row, a single query is compared as fast as memory is read; BLAS's matrix-vector product takes twice that.
    return np.vecdot(embeds, queries[0])[None] if len(queries) == 1 else queries @ embeds.T


def _int8_candidates(shard: IndexShard, queries: np.ndarray, top_k: int) -> list[np.ndarray] | None:
    """Rows of the best codes for each query; None where usearch is missing or ties would be cut."""
    search, count = _usearch(), min(top_k * INT8_CANDIDATES, len(shard))
    if search is None:
        return None
    from usearch.index import MetricKind

    # A cosine needs no scale, neither that of a row nor that of a query.
    codes = np.rint(queries / (np.abs(queries).max(axis=1, keepdims=True) / INT8_MAX)).astype(np.int8)
    matches = search(shard.codes, codes, count, MetricKind.Cos, exact=True)
    rows, distances = (np.atleast_2d(values) for values in (matches.keys, matches.distances))
    tied = count < len(shard) and (distances[:, -1] - distances[:, top_k - 1] < INT8_TIE).any()
    if tied or not np.isfinite(distances).all():
        return None
    return list(rows.astype(np.int64))


@lru_cache
def _usearch() -> Callable | None:
    try:
        from usearch.index import search
    except ImportError:
        return None
    return search


def _int8_product(codes: np.ndarray, scales: np.ndarray, queries: np.ndarray) -> np.ndarray:
    scores = np.empty((len(queries), len(codes)), np.float32)
    for start in range(0, len(codes), CONVERTED_ROWS):
        rows = slice(start, start + CONVERTED_ROWS)
        scores[:, rows] = _product(codes[rows].astype(np.float32), queries)
    scores *= scales
    return scores


def exact_scores(embeds: np.ndarray, rows: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores rows one by one: the bits of a score depend on nothing but the row and the query."""
    blocks = (rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS))
    scores = np.concatenate([np.vecdot(embeds[block], query) for block in blocks])
    return rows, np.round(scores.astype(np.float64), SCORE_DECIMALS)


__all__ = ["SCORE_DECIMALS", "rerank_by_alignment", "top_pieces"]
