"""Public functions on a checkpoint: embed files and text, search, describe."""

import os
from typing import TYPE_CHECKING

from .checkpoint_pianobind import default_checkpoint
from .embedding_pianobind import embed_audio, embed_example, embed_midi, embed_pieces, embed_score, embed_text
from .index.embedding_index import EmbeddingIndex, Hit
from .labels_pianobind import label_embeddings, rank_labels

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
    """Finds the words that fit a file best, without any training on them (zero-shot).

    Args:
        model (`PianoBindModel`): on any device.
        processor (`PianoBindProcessor`): the checkpoint's.
        path: a recording or a MIDI file.
        labels (`list[str]`, *optional*): words to choose from; those of `labels_pianobind.LABELS` by default.
        top_k (`int`): how many to return.
        transcribe (`bool`): as in `embed_audio`.
    Returns:
        `list[tuple[str, float]]`: label and cosine with the file, best first. Scores compare the labels of one file;
        they are no probabilities.
    Raises:
        ValueError, OSError: the file cannot be read, or a label is empty.
    """
    embedding = embed_pieces(model, processor, [path], transcribe=transcribe)[0]
    labels, embeds = label_embeddings(lambda texts: embed_text(model, processor, texts), labels)
    return rank_labels(embedding, labels, embeds, top_k)


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
]
