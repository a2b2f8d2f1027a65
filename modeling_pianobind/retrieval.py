"""Public functions on a checkpoint: embed files and text, search, describe."""

import os
import warnings
from typing import TYPE_CHECKING

import numpy as np

from .checkpoint_pianobind import default_checkpoint, model_fingerprint
from .embedding_pianobind import embed_audio, embed_example, embed_midi, embed_pieces, embed_score, embed_text
from .index.embedding_index import EmbeddingIndex, Hit
from .index.feedback import refine
from .labels_pianobind import label_embeddings, rank_labels
from .service.calibration import load_calibration

if TYPE_CHECKING:
    from .modeling_pianobind import PianoBindModel
    from .processing_pianobind import PianoBindProcessor


def describe(
    model: "PianoBindModel",
    processor: "PianoBindProcessor",
    path: str | os.PathLike,
    labels: list[str] | None = None,
    top_k: int = 8,
    transcribe: bool = False,
) -> list[tuple[str, float]]:
    """Finds the labels that fit a file best, without training on labels (zero-shot).

    Args:
        model (`PianoBindModel`): on any device.
        processor (`PianoBindProcessor`): the checkpoint's.
        path: a recording or a MIDI file.
        labels (`list[str]`, *optional*): words to choose from; those of `labels_pianobind.LABELS` by default.
        top_k (`int`): how many to return.
        transcribe (`bool`): as in `embed_audio`.
    Returns:
        `list[tuple[str, float]]`: label and score, best first. A score is the cosine with the file; of the default
        labels minus the label's mean cosine with the example corpus, so that no label fits all music. It is not a
        probability.
    Raises:
        ValueError, OSError: the file cannot be read, or a label is empty.
    """
    embedding = embed_pieces(model, processor, [path], transcribe=transcribe)[0]

    def embed(texts):
        return embed_text(model, processor, texts)

    def embed_background(paths):
        if model.midi_model is None:
            return np.zeros((0, len(embedding)), np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return embed_midi(model, processor, paths)

    own = labels is not None
    labels, embeds = label_embeddings(embed, labels)
    if own or not hasattr(model, "name_or_path"):  # exported models bring no calibration
        return rank_labels(embedding, labels, embeds, top_k)
    calibration = load_calibration(model.name_or_path, model_fingerprint(model), embed, embed_background)
    return rank_labels(embedding, labels, embeds, top_k, calibration.label_means(embeds))


__all__ = [
    "EmbeddingIndex",
    "Hit",
    "default_checkpoint",
    "describe",
    "embed_audio",
    "embed_example",
    "embed_midi",
    "embed_pieces",
    "embed_score",
    "embed_text",
    "refine",
]
