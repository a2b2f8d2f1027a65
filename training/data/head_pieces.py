"""The pieces that the heads beside a checkpoint are fitted to, and their embeddings."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeling_pianobind import PianoBindModel, PianoBindProcessor
from modeling_pianobind.embedding_pianobind import embed_all
from modeling_pianobind.notes_pianobind import PianoNotes
from modeling_pianobind.service.beside import load_beside, save_beside

from .corpus import PackedCorpus
from .cutting import excerpt
from .emotion_labels import SOURCES, emotion_of, is_easy, is_hard

SECONDS = 50.0  # of a piece, around its middle: four windows
BATCH_WINDOWS = 32
SAVED_PIECES = 100  # between two writes of the file of embeddings
CACHE_FORMAT = "1"
WEAK_PIECES = 100
LEVEL_PIECES = 100  # of each level
LEVELS = {"easy": 0.0, "full": 1.0, "hard": 2.0}


@dataclass
class HeadPieces:
    """Pieces with targets.

    Attributes:
        places (`list[int]`): in the corpus.
        embeds (`np.ndarray` of shape `(pieces, dim)`): unit rows.
        targets (`np.ndarray`): valence and arousal `(pieces, 2)`, NaN where unknown; or `(pieces,)`.
        songs (`np.ndarray` of shape `(pieces,)`): their songs.
        sources (`np.ndarray` of shape `(pieces,)`): places in `SOURCES`.
    """

    places: list[int]
    embeds: np.ndarray
    targets: np.ndarray
    songs: np.ndarray
    sources: np.ndarray


def emotion_places(corpus: PackedCorpus, split: str) -> list[int]:
    """Rows with a valence or an arousal; of weak ones a few."""
    places = corpus.select(
        lambda row: row["split"] == split and row["source"] in SOURCES and not np.isnan(emotion_of(row)).all()
    )
    weak = [place for place in places if corpus.rows[place]["source"] == SOURCES[-1]]
    return sorted({*places} - {*weak}) + _some(weak, WEAK_PIECES)


def emotion_pieces(corpus: PackedCorpus, places: list[int], embed: "RowEmbedder") -> HeadPieces:
    """Pieces with their valence and arousal; `embed` is a `RowEmbedder`."""
    rows = [corpus.rows[place] for place in places]
    targets = np.array([emotion_of(row) for row in rows])
    return HeadPieces(places, embed(places), targets, _songs(rows), _sources(rows))


def difficulty_pieces(corpus: PackedCorpus, embed: "RowEmbedder") -> HeadPieces:
    """`train` pieces of three levels: easy versions, other versions of the same songs, and works tagged virtuosic."""
    train = corpus.select(lambda row: row["split"] == "train")
    easy = [place for place in train if is_easy(corpus.rows[place])]
    songs = {corpus.rows[place]["song"] for place in easy}
    others = [place for place in train if corpus.rows[place]["song"] in songs and not is_easy(corpus.rows[place])]
    paired = {corpus.rows[place]["song"] for place in others}
    easy = [place for place in easy if corpus.rows[place]["song"] in paired]
    hard = [place for place in train if is_hard(corpus.rows[place])]
    chosen = {
        "easy": _some(easy, LEVEL_PIECES),
        "full": _some(others, LEVEL_PIECES),
        "hard": _some(hard, LEVEL_PIECES),
    }
    places = [place for of_level in chosen.values() for place in of_level]
    levels = np.array([LEVELS[level] for level, of_level in chosen.items() for _ in of_level])
    rows = [corpus.rows[place] for place in places]
    return HeadPieces(places, embed(places), levels, _songs(rows), np.zeros(len(rows), int))


def graded_pieces(corpus: PackedCorpus, embed: "RowEmbedder") -> HeadPieces:
    """The pieces with a grade from 1 to 7. There are few, all of `valid`."""
    places = corpus.select(lambda row: row.get("difficulty") is not None)
    rows = [corpus.rows[place] for place in places]
    grades = np.array([float(row["difficulty"]) for row in rows])
    return HeadPieces(places, embed(places), grades, _songs(rows), np.zeros(len(rows), int))


def embed_middles(
    model: PianoBindModel, processor: PianoBindProcessor, notes: list[PianoNotes], dtype: str = "auto"
) -> np.ndarray:
    """`(pieces, dim)` unit rows of the middle of pieces; by default faster where the processor multiplies bfloat16."""
    middles = [excerpt(piece_notes, SECONDS) for piece_notes in notes]
    return embed_all(model, processor, middles, modality="midi", batch_size=BATCH_WINDOWS, dtype=dtype, progress=None)


class RowEmbedder:
    """Embeds rows of a corpus; what was embedded before is read from a file.

    Args:
        fingerprint (`str`): of the model's weights.
        cache (`Path`, *optional*): the file; one of other weights is replaced.
    """

    def __init__(
        self,
        corpus: PackedCorpus,
        model: PianoBindModel,
        processor: PianoBindProcessor,
        fingerprint: str,
        cache: Path | None = None,
    ):
        self.corpus, self.model, self.processor = corpus, model, processor
        self.fingerprint, self.cache, self.known = fingerprint, cache, {}
        saved = None if cache is None else load_beside(cache, ["ids", "embeds"], fingerprint, CACHE_FORMAT)
        if saved is not None:
            self.known = dict(zip(bytes(saved["ids"].astype(np.uint8)).decode().split(), saved["embeds"], strict=True))

    def __call__(self, places: list[int]) -> np.ndarray:
        """`(places, dim)` unit rows.

        Raises:
            ValueError: there is no place.
        """
        if not places:
            raise ValueError("the corpus has no piece with labels of this kind; give the open piano corpus, packed.")
        ids = [self.corpus.rows[place]["id"] for place in places]
        missing = [place for place, name in zip(places, ids, strict=True) if name not in self.known]
        for start in range(0, len(missing), SAVED_PIECES):
            some = missing[start : start + SAVED_PIECES]
            made = embed_middles(self.model, self.processor, [self.corpus.notes(place) for place in some])
            self.known |= {self.corpus.rows[place]["id"]: embed for place, embed in zip(some, made, strict=True)}
            self.save()
        return np.stack([self.known[name] for name in ids])

    def save(self) -> None:
        """Writes the file, in one step."""
        if self.cache is not None:
            ids = np.frombuffer(" ".join(self.known).encode(), np.uint8)
            arrays = {"ids": ids, "embeds": np.stack(list(self.known.values()))}
            save_beside(self.cache, arrays, self.fingerprint, CACHE_FORMAT)


def _songs(rows: list[dict]) -> np.ndarray:
    return np.array([row.get("song") or row["id"] for row in rows])


def _sources(rows: list[dict]) -> np.ndarray:
    return np.array([SOURCES.index(row["source"]) for row in rows])


def _some(places: list[int], count: int) -> list[int]:
    return sorted(random.Random(0).sample(places, min(count, len(places))))


__all__ = [
    "SECONDS",
    "HeadPieces",
    "RowEmbedder",
    "difficulty_pieces",
    "embed_middles",
    "emotion_pieces",
    "emotion_places",
    "graded_pieces",
]
