"""Files that a command is given as examples: pieces of the index, or others."""

import os
from collections.abc import Sequence

import numpy as np

from ..index.alignment import Example
from ..index.embedding_index import EmbeddingIndex
from ..service.checkpoint import Checkpoint, check_readable
from ..service.errors import UserError, user_errors


def check_files(paths: Sequence[str], solo_only: bool = False) -> None:
    """Refuses files that cannot be embedded, before slow work starts."""
    for path in paths:
        with user_errors(path):
            check_readable(path, solo_only)


def check_feedback(more: Sequence[str], less: Sequence[str]) -> None:
    """Refuses feedback that says yes and no to one file."""
    both = {os.path.realpath(path) for path in more} & {os.path.realpath(path) for path in less}
    for path in more:
        if os.path.realpath(path) in both:
            raise UserError(f"{path}: is given with --more and with --less; keep one of them")


def examples_of(paths: Sequence[str], index: EmbeddingIndex, checkpoint: Checkpoint) -> list[Example]:
    """Files as examples; those that the index holds are not embedded again."""
    if not paths:
        return []
    place = {os.path.realpath(path): number for number, path in enumerate(index.paths)}
    numbers = [place.get(os.path.realpath(path)) for path in paths]
    return [
        checkpoint.embed_file(path) if number is None else index.example(number)
        for path, number in zip(paths, numbers, strict=True)
    ]


def embeddings_of(paths: Sequence[str], index: EmbeddingIndex, checkpoint: Checkpoint) -> np.ndarray:
    """`(len(paths), dim)` of files; see `examples_of`."""
    examples = examples_of(paths, index, checkpoint)
    return np.stack([example.embedding for example in examples]) if examples else np.zeros((0, index.dim or 1))


__all__ = ["check_feedback", "check_files", "embeddings_of", "examples_of"]
