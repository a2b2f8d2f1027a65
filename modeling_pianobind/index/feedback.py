"""Search that learns from feedback: a query is moved by examples of what is wanted and what is not.

Nothing is trained. Scores of pieces are a linear function of their frozen embeddings, and the examples correct it by
ridge regression in closed form: a Gaussian process whose mean is the query's own score, and whose kernel is the sum of
two linear ones. One takes embeddings as they are, and moves the query as Rocchio's formula does, along what pieces
differ in most; the other whitens them, and tells apart the pieces that are marked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Scores are in standard deviations above the mean of the background. The values were chosen on 992 pieces of the
# `train` split (`evaluation.measure_feedback --split train --pieces 992`).
WANTED, UNWANTED = 4.0, -1.0  # what the score of an example should become
NOISE = 0.3  # noise variance of a wanted example's score, in units of the prior variance around the query
# Unwanted examples are noisier, since a piece can be wrong in many ways; all together count no more than the wanted.
UNWANTED_NOISE = 4 * NOISE
PLAIN_SHARE = 0.75  # of the kernel of plain embeddings in the sum; the whitened one has the rest
SHRINKAGE = 1.0  # of the background's covariance, in its mean variance: directions in which pieces hardly differ
SAME = 1 - 1e-5  # cosine from which two examples are the same music


@dataclass(frozen=True)
class Background:
    """Mean and covariance of a corpus's embeddings, in which scores are standardised.

    Attributes:
        mean (`np.ndarray` of shape `(dim,)`): of the embeddings.
        spread (`np.ndarray` of shape `(dim, dim)`): symmetric; differences times it are of equal variance, nearly.
        covariance (`np.ndarray` of shape `(dim, dim)`): of the embeddings.
    """

    mean: np.ndarray
    spread: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, embeds: np.ndarray) -> "Background":
        """Measures a background.

        Args:
            embeds (`np.ndarray` of shape `(pieces, dim)`): unit rows; of one piece nothing but its place is known.
        """
        embeds = np.asarray(embeds, np.float64)
        mean = embeds.mean(axis=0)
        centred = embeds - mean
        covariance = centred.T @ centred / max(len(embeds) - 1, 1)
        variances, axes = np.linalg.eigh(covariance)
        # Without a floor all directions would count the same, those of noise too.
        floor = SHRINKAGE * max(variances.mean(), 1e-9)
        scales = 1 / np.sqrt(np.maximum(variances, 0) + floor)
        scales /= np.sqrt(max((scales**2 * np.maximum(variances, 0)).sum(), 1e-9))
        return cls(mean, (axes * scales) @ axes.T, covariance)

    def whitened(self, embeds: np.ndarray) -> np.ndarray:
        """Embeddings around the mean, `(n, dim)`: of mean square length 1 over the background."""
        return (np.atleast_2d(np.asarray(embeds, np.float64)) - self.mean) @ self.spread

    def directions(self, embeds: np.ndarray) -> np.ndarray:
        """`whitened` rows of unit length: their products are similarities in relation to the background."""
        rows = self.whitened(embeds)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    def deviation(self, direction: np.ndarray) -> float:
        """Standard deviation of the background along a direction."""
        return float(np.sqrt(max(direction @ self.covariance @ direction, 1e-12)))


def refine(
    query: np.ndarray | None,
    more: Sequence[np.ndarray] = (),
    less: Sequence[np.ndarray] = (),
    background: "np.ndarray | Background | None" = None,
) -> np.ndarray:
    """Moves a query towards examples and away from others.

    Args:
        query (`np.ndarray` of shape `(dim,)`, *optional*): embedding of words or of a piece; None to go by the
            examples alone.
        more, less (each `np.ndarray` of shape `(n, dim)`): embeddings of pieces that are wanted, and that are not.
        background (`np.ndarray` of shape `(pieces, dim)` or `Background`, *optional*): the corpus that is searched,
            such as `index.embeddings`. What all its pieces have in common does not count as a trait of an example.
    Returns:
        `np.ndarray` of shape `(dim,)`: float32, unit length, for `EmbeddingIndex.search`.
    Raises:
        ValueError: there is neither a query nor an example, or an example is both wanted and unwanted.
    """
    more, less = (np.asarray(list(side), np.float64) for side in (more, less))
    count = len(more) + len(less)
    if query is None and not count:
        raise ValueError("there is neither a query nor an example; give at least one.")
    if not count:
        return np.asarray(query, np.float32)
    if len(more) and len(less) and (more @ less.T).max() > SAME:
        first, second = np.unravel_index(np.argmax(more @ less.T), (len(more), len(less)))
        raise ValueError(
            f"the feedback contradicts itself: example {first + 1} of what is wanted and example {second + 1} of "
            "what is not are the same music; take one of them back."
        )
    examples = np.concatenate([side for side in (more, less) if len(side)])
    if not isinstance(background, Background):
        background = Background.of(examples if background is None else background)
    known = np.zeros(examples.shape[1]) if query is None else np.asarray(query, np.float64)
    known = known / background.deviation(known) if query is not None else known
    targets = np.r_[np.full(len(more), WANTED), np.full(len(less), UNWANTED)]
    centred = examples - background.mean
    missing = targets - centred @ known
    plain = np.eye(len(known)) / max(np.trace(background.covariance), 1e-9)
    metric = PLAIN_SHARE * plain + (1 - PLAIN_SHARE) * background.spread @ background.spread
    many = max(1.0, len(less) / max(len(more), 1))
    noise = np.r_[np.full(len(more), NOISE), np.full(len(less), UNWANTED_NOISE * many)]
    pulls = metric @ centred.T
    direction = known + pulls @ np.linalg.solve(centred @ pulls + np.diag(noise), missing)
    length = np.linalg.norm(direction)
    if not length > 0:
        raise ValueError("the examples cancel each other out; give others.")
    return (direction / length).astype(np.float32)


__all__ = ["Background", "refine"]
