"""Embeddings of one split of a corpus, kept in a file, for measurements that need nothing but them."""

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeling_pianobind import embed_midi
from modeling_pianobind.atomic_file import atomic_file
from modeling_pianobind.service.checkpoint import Checkpoint
from training.data.corpus import PackedCorpus
from training.data.cutting import excerpt

from .measurement import add_subject_arguments

SECONDS = 50.0  # of a piece, around its middle note: four windows of 20 s
BATCH_WINDOWS = 64


@dataclass(frozen=True)
class Embedded:
    """Rows of a corpus, and one embedding each.

    Attributes:
        rows (`list[dict]`): in the schema of the corpus.
        places (`list[int]`): where they stand in the corpus.
        embeds (`np.ndarray` of shape `(rows, dim)`): unit length, of the middle `SECONDS` of each piece.
    """

    rows: list[dict]
    places: list[int]
    embeds: np.ndarray


def embedded(
    corpus: PackedCorpus,
    split: str,
    checkpoint: Checkpoint,
    cache: Path | None = None,
    dtype: str = "float32",
    pieces: int | None = None,
    keep: Callable[[dict], bool] = bool,
) -> Embedded:
    """The rows of a split with their embeddings.

    Args:
        cache (`Path`, *optional*): an `.npz` that is read if it holds these pieces by this checkpoint, else written.
        dtype (`str`): what the MIDI tower computes in.
        pieces (`int`, *optional*): only so many, drawn by chance but always the same.
        keep: of a row, whether it may be drawn.
    Raises:
        ValueError: the corpus has no row of that split.
    """
    places = corpus.select(lambda row: row["split"] == split)
    if not places:
        raise ValueError(f"the corpus has no row of split {split!r}.")
    if pieces is not None and pieces < len(places):
        drawn = [place for place in np.random.default_rng(0).permutation(places) if keep(corpus.rows[place])]
        places = sorted(map(int, drawn[:pieces]))
    rows = [corpus.rows[place] for place in places]
    names = "\n".join(row["id"] for row in rows)
    made = hashlib.sha256(f"{checkpoint.weights_fingerprint} {dtype} {SECONDS}\n{names}".encode()).hexdigest()
    if cache is not None and cache.exists():
        with np.load(cache) as kept:
            if str(kept["made"]) == made:
                return Embedded(rows, places, kept["embeds"])
    notes = [excerpt(corpus.notes(place), SECONDS) for place in places]
    settings = {"batch_size": BATCH_WINDOWS, "dtype": dtype, "progress": None}
    embeds = embed_midi(checkpoint.model, checkpoint.processor, notes, **settings)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(cache) as temporary, temporary.open("wb") as handle:
            np.savez(handle, embeds=embeds, made=made)
    return Embedded(rows, places, embeds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what all measurements by embeddings take."""
    add_subject_arguments(parser)
    parser.add_argument("--pieces", type=int, metavar="N", help="only so many rows, drawn by chance (default: all)")
    parser.add_argument("--cache", type=Path, metavar="FILE.npz", help="where the embeddings are kept")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="float32", help="of the tower")


__all__ = ["SECONDS", "Embedded", "add_arguments", "embedded"]
