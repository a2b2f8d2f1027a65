"""Calibration of scores: queries are compared with background texts, cosines with those of background pieces.

No constant here depends on a checkpoint. `Calibration.measure` computes everything from the texts of
`background_texts` and from pieces, by default the example corpus; `pianobind calibrate` keeps the result in the
folder of a checkpoint, and without such a file it is measured once and cached.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import NormalDist

import numpy as np

from .background_texts import music_texts, other_texts
from .cache import cache_root
from .checkpoint_files import load_checkpoint_arrays, save_checkpoint_arrays
from .examples import EXAMPLES

FILE = "calibration.safetensors"
FORMAT = "1"
# Of the mean variance, it regularises the direction that separates the two kinds of texts. The one is taken that
# separates held-out texts best.
RIDGES = (0.1, 0.3, 1.0, 3.0)
FOLDS = 5
POOR_FIT = 0.5  # nonsense queries reach fits below it
MIN_SPREAD = 1e-3


@dataclass(frozen=True)
class Calibration:
    """Background of a checkpoint.

    Attributes:
        pieces (`np.ndarray` of shape `(pieces, dim)`): unit rows; empty for a checkpoint that cannot embed MIDI.
        direction (`np.ndarray` of shape `(dim,)`): texts about music have large projections on it, others small ones.
        music, other (`np.ndarray` of shape `(texts,)`): sorted places along it of both kinds of background texts, each
            measured by a direction that was made without that text.
    """

    pieces: np.ndarray
    direction: np.ndarray
    music: np.ndarray
    other: np.ndarray

    @classmethod
    def measure(cls, embed_text: Callable[[list[str]], np.ndarray], pieces: np.ndarray) -> "Calibration":
        """Makes the background of a checkpoint.

        Args:
            embed_text: takes texts, gives `(texts, dim)` unit rows.
            pieces (`np.ndarray` of shape `(pieces, dim)`): embeddings of the background pieces.
        """
        texts = [music_texts(), other_texts()]
        embeds = np.asarray(embed_text([text for kind in texts for text in kind]), np.float64)
        is_music = np.arange(len(embeds)) < len(texts[0])
        tried = [_held_out_places(embeds, is_music, ridge) for ridge in RIDGES]
        best = int(np.argmax([_share_in_order(places, is_music) for places in tried]))
        direction, places = _direction(embeds, is_music, RIDGES[best]), tried[best]
        parts = direction, np.sort(places[is_music]), np.sort(places[~is_music])
        return cls(np.asarray(pieces, np.float32), *(values.astype(np.float32) for values in parts))

    def understood(self, text_embeds: np.ndarray) -> np.ndarray:
        """Similarity of texts to descriptions of music, `(texts,)`: their percentile among the background texts.

        Both kinds of texts count half, so a text below all descriptions of music reaches 0.5 at most.
        """
        places = np.asarray(text_embeds) @ self.direction
        shares = [np.searchsorted(kind, places) / len(kind) for kind in (self.music, self.other)]
        return (shares[0] + shares[1]) / 2

    def standard(self, query: np.ndarray, scores: Sequence[float], corpus: np.ndarray | None = None) -> np.ndarray:
        """Scores of a query in standard deviations above its mean score with background pieces.

        Args:
            query (`np.ndarray` of shape `(dim,)`): unit length.
            scores (`np.ndarray` of shape `(n,)`): its cosines.
            corpus (`np.ndarray` of shape `(pieces, dim)`, *optional*): the background where the checkpoint has none.
        """
        pieces = corpus if not len(self.pieces) and corpus is not None else self.pieces
        if not len(pieces):
            return np.zeros(len(scores))
        background = np.asarray(pieces, np.float32) @ np.asarray(query, np.float32)
        return (np.asarray(scores) - background.mean()) / max(float(background.std()), MIN_SPREAD)

    def label_means(self, label_embeds: np.ndarray) -> np.ndarray:
        """Mean cosine of each label with the background pieces, `(labels,)`: some labels are close to all music."""
        return label_embeds @ self.pieces.mean(axis=0) if len(self.pieces) else np.zeros(len(label_embeds))

    def save(self, path: str | os.PathLike, fingerprint: str) -> None:
        """Writes a file for the checkpoint of a fingerprint, in one step."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        save_checkpoint_arrays(path, arrays | {"pieces": self.pieces.astype(np.float16)}, fingerprint, FORMAT)

    @classmethod
    def load(cls, path: str | os.PathLike, fingerprint: str) -> "Calibration | None":
        """Reads such a file; None if there is none, it is damaged, or it belongs to other weights."""
        arrays = load_checkpoint_arrays(path, [field.name for field in fields(cls)], fingerprint, FORMAT)
        return None if arrays is None else cls(**arrays)


def percentile(standard: np.ndarray) -> np.ndarray:
    """Standard scores as the share of a normal distribution below them: 0 to 1."""
    cumulative = NormalDist().cdf
    return np.array([cumulative(float(value)) for value in np.ravel(standard)])


def _held_out_places(embeds: np.ndarray, is_music: np.ndarray, ridge: float) -> np.ndarray:
    """The place of each text along a direction that was made without it, `(texts,)`."""
    fold, places = np.arange(len(embeds)) % FOLDS, np.zeros(len(embeds))
    for number in range(FOLDS):
        kept = fold != number
        places[~kept] = embeds[~kept] @ _direction(embeds[kept], is_music[kept], ridge)
    return places


def _share_in_order(places: np.ndarray, is_music: np.ndarray) -> float:
    """Share of pairs of a text about music and another one that stand in this order."""
    return float((places[is_music][:, None] > places[~is_music]).mean())


def _direction(embeds: np.ndarray, is_music: np.ndarray, ridge: float) -> np.ndarray:
    """Fisher's direction between two kinds of texts, with a ridge: `(dim,)`."""
    kinds = embeds[is_music], embeds[~is_music]
    within = sum(np.cov(kind, rowvar=False) for kind in kinds) / 2
    within += ridge * np.trace(within) / len(within) * np.eye(len(within))
    direction = np.linalg.solve(within, kinds[0].mean(axis=0) - kinds[1].mean(axis=0))
    return direction / max(np.linalg.norm(direction), 1e-12)


def load_calibration(
    checkpoint: str | os.PathLike,
    fingerprint: str,
    embed_text: Callable[[list[str]], np.ndarray],
    embed_pieces: Callable[[list[str]], np.ndarray],
) -> Calibration:
    """The calibration of a checkpoint: from its folder, from the cache, or measured now and cached.

    Args:
        checkpoint: its folder or Hub id.
        fingerprint (`str`): of its weights.
        embed_text, embed_pieces: embed texts, and paths of MIDI files; called only if nothing is stored.
    """
    cached = cache_root() / f"calibration-{fingerprint[:24]}.safetensors"
    for path in (Path(checkpoint) / FILE, cached):
        if (stored := Calibration.load(path, fingerprint)) is not None:
            return stored
    made = Calibration.measure(embed_text, embed_pieces(example_files()))
    with suppress(OSError):  # it is measured again the next time
        made.save(cached, fingerprint)
    return made


def example_files() -> list[str]:
    """The MIDI files of the example corpus."""
    return sorted(map(str, EXAMPLES.glob("*.mid")))


__all__ = ["POOR_FIT", "Calibration", "example_files", "load_calibration", "percentile"]
