"""The pieces that a checkpoint's heads (emotion, difficulty) are fitted to, and their embeddings."""

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import torch
from tqdm import tqdm

from modeling_pianobind import PianoBindModel, PianoBindProcessor
from modeling_pianobind.dtype_pianobind import computing
from modeling_pianobind.embedding_pianobind import embed_files, unit_rows
from modeling_pianobind.notes_pianobind import PianoNotes
from modeling_pianobind.service.checkpoint_files import load_checkpoint_arrays, save_checkpoint_arrays

from .audio_bank import augment_log_mel
from .corpus import PackedCorpus
from .cutting import excerpt
from .emotion_labels import SOURCES, emotion_of, is_easy, is_hard
from .mel_rendering import MelInstrument

SECONDS = 50.0  # of a piece, around its middle: four windows
BATCH_WINDOWS = 32
SAVED_PIECES = 100  # between two writes of the file of embeddings
CACHE_FORMAT = "2"
RENDERED = "#heard"  # after the id of a row, in the file of embeddings
WEAK_PIECES = 100
LEVEL_PIECES = 100  # of each level
LEVELS = {"easy": 0.0, "full": 1.0, "hard": 2.0}


@dataclass
class HeadPieces:
    """Pieces with targets, or their windows.

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

    def windows(self, embeds: list[np.ndarray]) -> Self:
        """The windows of these pieces, by their embeddings `(windows, dim)`, as examples of their own."""
        counts = [len(windows) for windows in embeds]
        places = np.repeat(self.places, counts).tolist()
        rest = (np.repeat(values, counts, axis=0) for values in (self.targets, self.songs, self.sources))
        return HeadPieces(places, np.concatenate(embeds), *rest)

    def __add__(self, other: Self) -> Self:
        return HeadPieces(
            self.places + other.places,
            *(np.concatenate([getattr(pieces, field.name) for pieces in (self, other)]) for field in fields(self)[1:]),
        )


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


def embed_middles(model: PianoBindModel, processor: PianoBindProcessor, notes: list[PianoNotes]) -> np.ndarray:
    """`(pieces, dim)` unit rows of the middle of pieces, as `RowEmbedder` embeds rows."""
    return means(middle_windows(model, processor, notes))


def middle_windows(model: PianoBindModel, processor: PianoBindProcessor, notes: list[PianoNotes]) -> list[np.ndarray]:
    """`(windows, dim)` unit rows of the middle of each piece; faster where the processor multiplies bfloat16."""
    middles, windows = [excerpt(piece_notes, SECONDS) for piece_notes in notes], {}
    settings = {"modality": "midi", "batch_size": BATCH_WINDOWS, "dtype": "auto", "progress": None}
    for number, file in embed_files(model, processor, middles, **settings):
        if file.error is not None:
            raise file.error
        windows[number] = file.windows
    return [windows[number] for number in range(len(middles))]


def played_windows(notes: PianoNotes, instrument: MelInstrument, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A piece as an instrument plays it, each window in a room and by a microphone of its own.

    Returns:
        What the audio tower takes: features `(windows, frames, bands)` and their mask `(windows, frames)`.
    """
    extractor = instrument.extractor
    frames = 1 + extractor.window_samples // extractor.hop_length
    last = max(notes.seconds - extractor.window_seconds, 0.0)
    starts = np.append(np.arange(0.0, last, extractor.hop_seconds), last)
    seconds = np.minimum(notes.seconds - starts, extractor.window_seconds)
    generator = np.random.default_rng(seed)
    decibels = [
        instrument.render(notes, start, length, frames, generator)
        for start, length in zip(starts, seconds, strict=True)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features = augment_log_mel(torch.from_numpy(np.stack(decibels)), extractor)
    samples = torch.from_numpy(np.round(seconds * extractor.sampling_rate).astype(int))
    return features, extractor.frame_mask(samples, frames)


class RowEmbedder:
    """Embeds the middle of rows of a corpus; what was embedded before is read from a file.

    Args:
        fingerprint (`str`): of the model's weights.
        cache (`Path`, *optional*): the file; one of other weights is replaced.
        instruments (`Sequence[MelInstrument]`): what plays rows for `rendered_windows`.
    """

    def __init__(
        self,
        corpus: PackedCorpus,
        model: PianoBindModel,
        processor: PianoBindProcessor,
        fingerprint: str,
        cache: Path | None = None,
        instruments: Sequence[MelInstrument] = (),
    ):
        self.corpus, self.model, self.processor, self.instruments = corpus, model, processor, instruments
        self.fingerprint, self.cache, self.known = fingerprint, cache, {}
        saved = (
            None
            if cache is None
            else load_checkpoint_arrays(cache, ["ids", "counts", "embeds"], fingerprint, CACHE_FORMAT)
        )
        if saved is not None:
            ids = bytes(saved["ids"].astype(np.uint8)).decode().split()
            ends = np.cumsum(saved["counts"]).astype(int)
            self.known = dict(zip(ids, np.split(saved["embeds"], ends[:-1]), strict=True))

    def __call__(self, places: list[int]) -> np.ndarray:
        """`(places, dim)` unit rows, by the MIDI tower.

        Raises:
            ValueError: there is no place.
        """
        if not places:
            raise ValueError("the corpus has no piece with labels of this kind; give the open piano corpus, packed.")
        return means(self.windows(places))

    def windows(self, places: list[int]) -> list[np.ndarray]:
        """`(windows, dim)` unit rows of each place, by the MIDI tower."""
        return self._embedded(places, "", self._read)

    def rendered_windows(self, places: list[int]) -> list[np.ndarray]:
        """`(windows, dim)` unit rows of each place, played by one of the instruments, by the audio tower."""
        return self._embedded(places, RENDERED, self._render)

    def _embedded(self, places: list[int], suffix: str, make: Callable) -> list[np.ndarray]:
        names = [self.corpus.rows[place]["id"] + suffix for place in places]
        missing = [place for place, name in zip(places, names, strict=True) if name not in self.known]
        for start in range(0, len(missing), SAVED_PIECES):
            some = missing[start : start + SAVED_PIECES]
            made = {self.corpus.rows[place]["id"] + suffix: embeds for place, embeds in make(some)}
            self.known |= made
            self.save()
        return [self.known[name] for name in names]

    def _read(self, places: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        notes = [self.corpus.notes(place) for place in places]
        return zip(places, middle_windows(self.model, self.processor, notes), strict=True)

    def _render(self, places: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for place in tqdm(places, desc="playing", disable=None):
            seed = zlib.crc32(self.corpus.rows[place]["id"].encode())
            instrument = self.instruments[seed % len(self.instruments)]
            features, mask = played_windows(excerpt(self.corpus.notes(place), SECONDS), instrument, seed)
            device = self.model.device
            with torch.inference_mode(), computing("auto", device):
                embeds = self.model.get_audio_features(features.to(device), mask.to(device))
            yield place, embeds.float().cpu().numpy()

    def save(self) -> None:
        """Writes the file, in one step."""
        if self.cache is not None:
            arrays = {
                "ids": np.frombuffer(" ".join(self.known).encode(), np.uint8),
                "counts": np.array([len(embeds) for embeds in self.known.values()]),
                "embeds": np.concatenate(list(self.known.values())),
            }
            save_checkpoint_arrays(self.cache, arrays, self.fingerprint, CACHE_FORMAT)


def means(windows: list[np.ndarray]) -> np.ndarray:
    """`(pieces, dim)` unit rows: the mean of each piece's windows."""
    return unit_rows(np.stack([embeds.mean(axis=0) for embeds in windows]))


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
    "means",
    "played_windows",
]
