"""Linear heads on a checkpoint's embeddings: valence and arousal, and the grade of difficulty.

`python -m training.fit_heads` fits them. They belong to one set of weights, and take recordings, MIDI and scores.
"""

import os
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from .checkpoint_files import checkpoint_file, load_checkpoint_arrays, save_checkpoint_arrays

FORMAT = "1"
QUADRANTS = ("happy", "tense", "sad", "calm")  # as EMOPIA counts them, from 1: high or low valence and arousal
GRADES = (1.0, 7.0)


class _Head:
    """A head whose arrays are in a file of the checkpoint's folder."""

    file = ""

    def save(self, path: str | os.PathLike, fingerprint: str) -> None:
        """Writes the file for the checkpoint of a fingerprint, in one step."""
        save_checkpoint_arrays(
            path, {field.name: np.float32(getattr(self, field.name)) for field in fields(self)}, fingerprint, FORMAT
        )

    @classmethod
    def load(cls, path: str | os.PathLike, fingerprint: str) -> Self | None:
        """Reads the file; None if there is none, it is damaged, or it belongs to other weights."""
        arrays = load_checkpoint_arrays(path, [field.name for field in fields(cls)], fingerprint, FORMAT)
        return None if arrays is None else cls(**arrays)

    @classmethod
    def of_checkpoint(cls, name: str | os.PathLike, fingerprint: str) -> Self:
        """The head of a checkpoint, by its folder or Hub id and the fingerprint of its weights.

        Raises:
            ValueError: it has none for these weights.
        """
        head = cls.load(checkpoint_file(name, cls.file), fingerprint)
        if head is None:
            made = f"make it by `python -m training.fit_heads {name} CORPUS`, or take the checkpoint of the package"
            raise ValueError(f"{name}: has no {cls.file} for its present weights; {made}.")
        return head


@dataclass(frozen=True)
class EmotionHead(_Head):
    """Valence (gloomy to bright) and arousal (still to stirred), each a logistic regression that was calibrated.

    Attributes:
        weight (`np.ndarray` of shape `(2, dim)`), bias (`(2,)`): of the logits of valence and arousal.
    """

    weight: np.ndarray
    bias: np.ndarray
    file = "emotion.safetensors"

    def chances(self, embeds: np.ndarray) -> np.ndarray:
        """`(n, dim)` unit rows -> `(n, 2)`: the chance that a listener calls valence, and arousal, high."""
        return 1 / (1 + np.exp(-self.logits(embeds)))

    def logits(self, embeds: np.ndarray) -> np.ndarray:
        """`(n, dim)` unit rows -> `(n, 2)`: logits of `chances`."""
        return np.asarray(embeds, np.float32) @ self.weight.T + self.bias

    def values(self, embeds: np.ndarray) -> np.ndarray:
        """`(n, dim)` unit rows -> `(n, 2)`: valence and arousal, -1 to 1; 0 where listeners would be divided."""
        return 2 * self.chances(embeds) - 1

    def quadrants(self, embeds: np.ndarray) -> np.ndarray:
        """`(n, dim)` unit rows -> `(n, 4)`: the chance of each of `QUADRANTS`."""
        valence, arousal = self.chances(embeds).T
        return np.stack(
            [valence * arousal, (1 - valence) * arousal, (1 - valence) * (1 - arousal), valence * (1 - arousal)],
            axis=1,
        )


@dataclass(frozen=True)
class DifficultyHead(_Head):
    """The grade of a piece, from 1 (late elementary) to 7, with an interval.

    Attributes:
        weight (`np.ndarray` of shape `(dim,)`), bias (`()`): of the grade.
        margin (`()`): half the width of the interval, which held 80 % of the graded pieces when left out.
        error (`()`): mean absolute error of these.
    """

    weight: np.ndarray
    bias: np.ndarray
    margin: np.ndarray
    error: np.ndarray
    file = "difficulty.safetensors"

    def grades(self, embeds: np.ndarray) -> np.ndarray:
        """`(n, dim)` unit rows -> `(n, 3)`: the grade, and the low and high end of its interval."""
        grade = np.asarray(embeds, np.float32) @ self.weight + self.bias
        return np.clip(np.stack([grade, grade - self.margin, grade + self.margin], axis=1), *GRADES)


__all__ = ["GRADES", "QUADRANTS", "DifficultyHead", "EmotionHead"]
