"""Valence, arousal and difficulty of a file, from Python."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .checkpoint_pianobind import model_fingerprint
from .embedding_pianobind import EmbeddedFile, embed_example
from .service.piece_heads import QUADRANTS, DifficultyHead, EmotionHead

if TYPE_CHECKING:
    from .modeling_pianobind import PianoBindModel
    from .processing_pianobind import PianoBindProcessor


@dataclass(frozen=True)
class Emotion:
    """The emotion of a piece, as a whole and over time.

    Attributes:
        valence, arousal (`float`): -1 to 1.
        quadrants (`dict[str, float]`): the chance of "happy", "tense", "sad" and "calm".
        spans (`np.ndarray` of shape `(windows, 2)`): start and end of each window, in seconds.
        curve (`np.ndarray` of shape `(windows, 2)`): valence and arousal of each window.
    """

    valence: float
    arousal: float
    quadrants: dict[str, float]
    spans: np.ndarray
    curve: np.ndarray

    @classmethod
    def of(cls, head: EmotionHead, file: EmbeddedFile) -> "Emotion":
        """The emotion of an embedded file."""
        whole = file.embedding[None]
        ((valence, arousal),) = head.values(whole).tolist()
        chances = dict(zip(QUADRANTS, head.quadrants(whole)[0].tolist(), strict=True))
        order = np.argsort(file.spans[:, 0], kind="stable")  # a transcribed recording has windows of two towers
        return cls(valence, arousal, chances, file.spans[order], head.values(file.windows[order]))


def describe_emotion(
    model: "PianoBindModel", processor: "PianoBindProcessor", path: str | os.PathLike, transcribe: bool = False
) -> Emotion:
    """Valence and arousal of a recording, MIDI file or score, as a whole and over time.

    Args:
        model, processor, transcribe: as in `embed_audio`.
        path: the file.
    Raises:
        ValueError, OSError: the file cannot be read, or the checkpoint has no emotion head for its weights.
    """
    head = EmotionHead.of_checkpoint(model.name_or_path, model_fingerprint(model))
    return Emotion.of(head, embed_example(model, processor, path, transcribe=transcribe))


def describe_difficulty(
    model: "PianoBindModel", processor: "PianoBindProcessor", path: str | os.PathLike, transcribe: bool = False
) -> tuple[float, float, float]:
    """The grade of a piece from 1 to 7, and the low and high end of its interval.

    Args, raises: as `describe_emotion`.
    """
    head = DifficultyHead.of_checkpoint(model.name_or_path, model_fingerprint(model))
    return tuple(head.grades(embed_example(model, processor, path, transcribe=transcribe).embedding[None])[0].tolist())


__all__ = ["Emotion", "describe_difficulty", "describe_emotion"]
