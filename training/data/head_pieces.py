"""The pieces that the heads beside a checkpoint are fitted to, and their embeddings."""

import random
from dataclasses import dataclass

import numpy as np

from modeling_pianobind.embedding_pianobind import embed_all

from .corpus import PackedCorpus
from .cutting import excerpt
from .emotion_labels import SOURCES, emotion_of, is_easy, is_hard

SECONDS = 50.0  # of a piece, around its middle: four windows
BATCH_WINDOWS = 32
WEAK_PIECES = 250
EASY_PIECES = 200  # and as many other versions of their songs
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
    return [place for place in places if place not in set(weak)] + _some(weak, WEAK_PIECES)


def emotion_pieces(corpus: PackedCorpus, places: list[int], embed) -> HeadPieces:
    """Pieces with their valence and arousal; `embed` takes `PianoNotes` and gives `(n, dim)` unit rows."""
    rows = [corpus.rows[place] for place in places]
    targets = np.array([emotion_of(row) for row in rows])
    return HeadPieces(places, _embedded(corpus, places, embed), targets, _songs(rows), _sources(rows))


def difficulty_pieces(corpus: PackedCorpus, embed) -> HeadPieces:
    """`train` pieces of three levels: easy versions, other versions of the same songs, and works tagged virtuosic."""
    train = corpus.select(lambda row: row["split"] == "train")
    easy = [place for place in train if is_easy(corpus.rows[place])]
    songs = {corpus.rows[place]["song"] for place in easy}
    others = [place for place in train if corpus.rows[place]["song"] in songs and not is_easy(corpus.rows[place])]
    paired = {corpus.rows[place]["song"] for place in others}
    easy = [place for place in easy if corpus.rows[place]["song"] in paired]
    hard = [place for place in train if is_hard(corpus.rows[place])]
    chosen = {"easy": _some(easy, EASY_PIECES), "full": _some(others, EASY_PIECES), "hard": hard}
    places = [place for of_level in chosen.values() for place in of_level]
    levels = np.array([LEVELS[level] for level, of_level in chosen.items() for _ in of_level])
    rows = [corpus.rows[place] for place in places]
    return HeadPieces(places, _embedded(corpus, places, embed), levels, _songs(rows), np.zeros(len(rows), int))


def graded_pieces(corpus: PackedCorpus, embed) -> HeadPieces:
    """The pieces with a grade from 1 to 7. There are few, all of `valid`."""
    places = corpus.select(lambda row: row.get("difficulty") is not None)
    rows = [corpus.rows[place] for place in places]
    grades = np.array([float(row["difficulty"]) for row in rows])
    return HeadPieces(places, _embedded(corpus, places, embed), grades, _songs(rows), np.zeros(len(rows), int))


def note_embedder(model, processor, dtype: str = "auto"):
    """`embed_all` for the middle of pieces, faster where the processor multiplies bfloat16."""
    settings = {"modality": "midi", "batch_size": BATCH_WINDOWS, "dtype": dtype, "progress": None}
    return lambda notes: embed_all(model, processor, [excerpt(one, SECONDS) for one in notes], **settings)


def _embedded(corpus, places, embed):
    if not places:
        raise ValueError("the corpus has no piece with labels of this kind; give the open piano corpus, packed.")
    return embed([corpus.notes(place) for place in places])


def _songs(rows) -> np.ndarray:
    return np.array([row.get("song") or row["id"] for row in rows])


def _sources(rows) -> np.ndarray:
    return np.array([SOURCES.index(row["source"]) for row in rows])


def _some(places: list[int], count: int) -> list[int]:
    return sorted(random.Random(0).sample(places, min(count, len(places))))


__all__ = ["HeadPieces", "difficulty_pieces", "emotion_pieces", "emotion_places", "graded_pieces", "note_embedder"]
