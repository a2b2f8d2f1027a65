"""Exact search by brute force, in two steps: a fast product lets few rows through, and those get their exact score.

However many queries are asked at once, and whichever storage the first step reads, a row that is found has the same
score to the last bit.
"""

import sys
from collections.abc import Iterator

import numpy as np

from .alignment import alignment
from .table import Part

SCORE_DECIMALS = 6  # cosines closer than this are ties: two copies of a file must not be ordered by rounding
BLOCK_ROWS = 32_768  # the product of 64 queries with them fits the processor's cache
FLOAT_MARGIN = np.float32(5e-5)  # above what float32 products in another order, and rounding, can differ by
INT8_CANDIDATES = 4  # int8 lets this many times `top_k` rows through, so that its rounding loses none
INT8_FEW_QUERIES = 4  # up to here torch's kernel, which reads int8, beats a matrix product with the rows as float32
LONGEST = 1.1  # cosines end at 1; what lies above, or is not a number, was damaged on the disk
CONVERTED_ROWS = 1_024  # int8 rows made float32 at once: they stay in the processor's cache
INT8_WIDTH = 16  # rows whose width is no multiple of it crash the kernel
INT8_SLACK_ROWS = 4_096  # torch's kernel reads beyond the rows that it is given, though never so far


def top_pieces(part: Part, queries: np.ndarray, top_k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Finds the best pieces of a part for each query.

    Args:
        part (`Part`): of at least one piece.
        queries (`np.ndarray` of shape `(queries, dim)`): float32, unit length.
        top_k (`int`): how many; all that tie with the last are returned too.
    Returns:
        For each query the numbers of its pieces and their cosines (float64, rounded), in no order.
    Raises:
        ValueError: the embeddings are no unit vectors.
    """
    int8 = part.codes is not None
    wanted, margin = (top_k * INT8_CANDIDATES, 0) if int8 else (top_k, FLOAT_MARGIN)
    floors = np.full(len(queries), -np.inf, np.float32)
    kept = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in queries]
    for start, scores in _fast_scores(part, queries):
        best = scores.max(axis=1)
        if not (best <= LONGEST).all():
            raise ValueError(f"{part.source}: the index is damaged (embeddings of no length 1); build it again.")
        for query in np.flatnonzero(best >= floors):
            new = np.flatnonzero(scores[query] >= floors[query])
            rows = np.concatenate([kept[query][0], start + new])
            values = np.concatenate([kept[query][1], scores[query, new]])
            if len(values) > wanted:
                floors[query] = np.partition(values, -wanted)[-wanted] - margin
                rows, values = rows[values >= floors[query]], values[values >= floors[query]]
            kept[query] = rows, values
    return [
        _best(*_exact_scores(part.embeds, rows, query), top_k) for (rows, _), query in zip(kept, queries, strict=True)
    ]


def top_alike(parts: list[Part], query, length: float, most: int, example, words, share: float) -> list[tuple]:
    """Ranks the `most` pieces that are closest to a query by how well their windows fit an example's.

    Args:
        parts (`list[Part]`): each of at least one piece.
        query (`np.ndarray` of shape `(1, dim)`): `1 - share` of the example and `share` of the words, whose sum was of
            `length` before it was brought to unit length.
        example (`Example`), words (`np.ndarray` of shape `(dim,)` or None): what the query is made of.
    Returns:
        `list[tuple]`: `(-score, path, part, number of the piece)`, best first. A score is the query's cosine, with
        the `alignment` of the windows in place of the example's cosine where both sides have windows.
    """
    found = []
    for part in parts:
        pieces, scores = top_pieces(part, query, min(most, len(part)))[0]
        found += [(-score, part.path(piece), part, piece) for piece, score in zip(pieces, scores, strict=True)]
    found.sort(key=lambda one: one[:2])
    for place, (_, path, part, piece) in enumerate(found[:most]):
        other = part.example(piece)
        if len(example.windows) and len(other.windows):
            said = 0.0 if words is None else share * float(other.embedding @ words)
            score = (said + (1 - share) * alignment(example, other)) / length
            found[place] = (-round(float(score), SCORE_DECIMALS), path, part, piece)
    return sorted(found[:most], key=lambda one: one[:2])


def _best(rows, scores, top_k):
    last = np.partition(scores, -top_k)[-top_k] if top_k < len(scores) else -np.inf
    return rows[scores >= last], scores[scores >= last]


def _fast_scores(part: Part, queries) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the first row of a block and the block's scores `(queries, rows)`."""
    for start in range(0, len(part), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        if part.codes is None:
            yield start, _product(part.embeds[rows], queries)
        else:
            at_end = start + BLOCK_ROWS + INT8_SLACK_ROWS > len(part)
            yield start, _int8_product(part.codes[rows], part.scales[rows], queries, at_end)


def _product(embeds, queries) -> np.ndarray:
    # Row by row, a single query is compared as fast as memory is read; BLAS's matrix-vector product takes twice that.
    return np.vecdot(embeds, queries[0])[None] if len(queries) == 1 else queries @ embeds.T


def _int8_product(codes, scales, queries, at_end: bool) -> np.ndarray:
    torch = sys.modules.get("torch")  # importing it takes longer than it saves
    if torch is not None and len(queries) <= INT8_FEW_QUERIES and codes.shape[1] % INT8_WIDTH == 0:
        if at_end:  # the file may end here: the kernel gets a copy with space behind it
            padded = np.zeros((len(codes) + INT8_SLACK_ROWS, codes.shape[1]), np.int8)
            padded[: len(codes)] = codes
            codes = padded[: len(codes)]
        tensors = torch.from_numpy(queries).bfloat16(), torch.from_numpy(codes), torch.from_numpy(scales).bfloat16()
        return torch._weight_int8pack_mm(*tensors).float().numpy()
    scores = np.empty((len(queries), len(codes)), np.float32)
    for start in range(0, len(codes), CONVERTED_ROWS):
        rows = slice(start, start + CONVERTED_ROWS)
        scores[:, rows] = _product(codes[rows].astype(np.float32), queries)
    scores *= scales
    return scores


def _exact_scores(embeds, rows, query) -> tuple[np.ndarray, np.ndarray]:
    """Scores rows one by one: the bits of a score depend on nothing but the row and the query."""
    blocks = (rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS))
    scores = np.concatenate([np.vecdot(embeds[block], query) for block in blocks])
    return rows, np.round(scores.astype(np.float64), SCORE_DECIMALS)


__all__ = ["SCORE_DECIMALS", "top_alike", "top_pieces"]
