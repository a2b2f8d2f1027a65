"""A corpus in two dimensions: places by t-SNE, clusters, and the words that set each cluster apart."""

from dataclasses import dataclass
from typing import Any

import numpy as np

PERPLEXITY = 30.0
MAX_CLUSTERS, SILHOUETTE_PIECES = 12, 2_000
FEW_PIECES = 8  # fewer are not clustered
NAME_WORDS, PIECE_WORDS = 2, 4


@dataclass(frozen=True)
class Layout:
    """Positions and clusters of pieces.

    Attributes:
        points (`np.ndarray` of shape `(pieces, 2)`): 0 to 1.
        cluster (`np.ndarray` of shape `(pieces,)`): number of each piece's cluster.
        names (`list[str]`): of the clusters, the largest first.
        words (`list[str]`): for each piece, the labels that stand out most against the other pieces.
    """

    points: np.ndarray
    cluster: np.ndarray
    names: list[str]
    words: list[str]


def lay_out(embeds: np.ndarray, labels: list[str], label_embeds: np.ndarray, seed: int = 0) -> Layout:
    """Lays out a corpus.

    Args:
        embeds (`np.ndarray` of shape `(pieces, dim)`): unit rows, at least one.
        labels (`list[str]`), label_embeds (`np.ndarray` of shape `(labels, dim)`): words for the names.
        seed (`int`): of t-SNE and of the clusters.
    Raises:
        ImportError: scikit-learn is not installed.
    """
    sklearn = _scikit_learn()
    embeds = np.asarray(embeds, np.float32)
    count = len(embeds)
    points = np.zeros((count, 2))
    if count > 1:
        perplexity = min(PERPLEXITY, max(1.0, (count - 1) / 3))
        points = sklearn.manifold.TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(embeds)
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - low) / np.maximum(high - low, 1e-9)
    cluster = _clusters(sklearn, embeds, seed)
    standing_out = _standing_out(embeds @ np.asarray(label_embeds, np.float32).T)
    best = np.argsort(-standing_out, axis=1, kind="stable")[:, :PIECE_WORDS]
    words = [", ".join(labels[label] for label in row) for row in best]
    return Layout(points, cluster, _names(standing_out, cluster, labels), words)


def _scikit_learn() -> Any:
    try:
        import sklearn.cluster
        import sklearn.manifold
        import sklearn.metrics
    except ImportError as error:
        raise ImportError(f'the map needs scikit-learn ({error}); pip install "pianobind[map]"') from error
    return sklearn


def _clusters(sklearn: Any, embeds: np.ndarray, seed: int) -> np.ndarray:
    """The number of each piece's cluster, the largest 0; the number of clusters is the one that separates best."""
    if len(embeds) < FEW_PIECES or np.ptp(embeds, axis=0).max() < 1e-6:
        return np.zeros(len(embeds), int)
    best, best_score = np.zeros(len(embeds), int), -np.inf
    for count in range(3, min(MAX_CLUSTERS, len(embeds) // 2) + 1):
        clusters = sklearn.cluster.KMeans(count, n_init=3, random_state=seed).fit_predict(embeds)
        if len(np.unique(clusters)) < 2:
            continue
        score = sklearn.metrics.silhouette_score(
            embeds, clusters, sample_size=min(len(embeds), SILHOUETTE_PIECES), random_state=seed
        )
        if score > best_score:
            best, best_score = clusters, score
    order = np.argsort(-np.bincount(best), kind="stable")
    return np.argsort(order)[best]


def _standing_out(scores: np.ndarray) -> np.ndarray:
    """Scores of labels, `(pieces, labels)`, in standard deviations of each label above its mean over the pieces."""
    if len(scores) < 2:
        return scores
    return (scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), 1e-6)


def _names(standing_out: np.ndarray, cluster: np.ndarray, labels: list[str]) -> list[str]:
    """Two words for each cluster, the first of which names no other one."""
    means = np.stack([standing_out[cluster == number].mean(axis=0) for number in range(cluster.max() + 1)])
    first = {}
    for number, label in zip(
        *np.unravel_index(np.argsort(-means, axis=None, kind="stable"), means.shape), strict=True
    ):
        if number not in first and label not in first.values():
            first[number] = label
    names = []
    for number, row in enumerate(means):
        rest = [label for label in np.argsort(-row, kind="stable") if label != first[number]]
        names.append(", ".join(labels[label] for label in (first[number], *rest[: NAME_WORDS - 1])))
    return names


__all__ = ["Layout", "lay_out"]
