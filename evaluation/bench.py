"""A corpus with its cached embeddings by one checkpoint, which the protocols measure."""

import io
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from modeling_pianobind.index.alignment import Example
from modeling_pianobind.notes_pianobind import PianoNotes
from training.data.captions import write_caption
from training.data.corpus import PackedCorpus
from training.data.cutting import excerpt
from training.data.dataset import FactVocabulary
from training.data.facts import DERIVED_FACTS, label_facts

from .baselines import feature_matrix, generated_captions
from .changes import in_a_room
from .scores import Bootstrap

FACTS_OF_A_CAPTION = 8
WAVEFORMS_HELD = 16


class UnsuitableError(ValueError):
    """A protocol cannot run: the corpus, the checkpoint or the options lack what it needs."""


def means(examples: list[Example]) -> np.ndarray:
    """`(n, dim)` unit rows: the embeddings of examples."""
    return np.stack([example.embedding for example in examples])


@dataclass
class Bench:
    """A corpus, and functions that embed.

    Attributes:
        embed_text, embed_notes: list of texts or `PianoNotes` -> `(n, dim)` unit rows.
        audio_examples, note_examples: list of waveforms or `PianoNotes` -> list of `Example`; `audio_examples` also
            takes `transcribe`.
        sampling_rate (`int`): of these waveforms, in Hz.
        split (`str`): the rows that are measured; only probes and baselines see `train` rows.
        instruments (`dict`): instruments that render MIDI, by name; not those of the training data.
        recordings (`Path`, *optional*): folder below which the corpus's recordings lie.
        printed_scores (`Path`, *optional*): folder of scores, with `scores.jsonl` saying whose performances they have.
        sentence_embedder (`Callable`, *optional*): list of texts -> `(n, dim)` unit rows, for the MiniLM baseline.
        audio_pieces, audio_seconds: how many pieces are rendered, and how much of each, around its middle.
        transcribe, transcribed_pieces: also measure audio with transcription, and on how many rendered pieces.
    """

    corpus: PackedCorpus
    embed_text: Callable
    embed_notes: Callable
    audio_examples: Callable
    note_examples: Callable
    sampling_rate: int
    split: str = "valid"
    instruments: dict = field(default_factory=dict)
    recordings: Path | None = None
    printed_scores: Path | None = None
    sentence_embedder: Callable | None = None
    audio_pieces: int = 1000
    audio_seconds: float = 40.0
    transcribe: bool = False
    transcribed_pieces: int = 200
    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    @cached_property
    def places(self) -> list[int]:
        """Corpus positions of the rows that are measured."""
        places = self.corpus.select(lambda row: row["split"] == self.split)
        if not places:
            known = sorted({row["split"] for row in self.corpus.rows})
            raise ValueError(f"the corpus has no row of split {self.split!r}; its splits are {', '.join(known)}.")
        return places

    @cached_property
    def rows(self) -> list[dict]:
        return self.rows_at(self.places)

    def rows_at(self, places: Iterable[int]) -> list[dict]:
        return [self.corpus.rows[place] for place in places]

    def notes_at(self, places: Iterable[int]) -> list:
        return [self.corpus.notes(place) for place in places]

    def songs_at(self, places: Iterable[int]) -> list[str]:
        """The song of each piece; a piece without one is its own song."""
        return [row.get("song") or row["id"] for row in self.rows_at(places)]

    def midi_at(self, places: Sequence[int]) -> np.ndarray:
        """`(places, dim)` embeddings of whole pieces."""
        return self._kept("midi", self.embed_notes, places)

    @cached_property
    def piece_examples(self) -> list[Example]:
        """The measured pieces with their windows and notes."""
        return self.note_examples(self.notes_at(self.places))

    def features_at(self, places: Sequence[int]) -> np.ndarray:
        """`(places, features)` hand-made features of whole pieces, for baselines."""
        return self._kept("features", feature_matrix, places)

    @cached_property
    def _memory(self) -> dict[tuple[str, int], np.ndarray]:
        return {}

    def _kept(self, kind: str, make: Callable[[list[PianoNotes]], np.ndarray], places: Sequence[int]) -> np.ndarray:
        """Results of `make` for pieces; each piece is computed once."""
        missing = [place for place in places if (kind, place) not in self._memory]
        if missing:
            made = make(self.notes_at(missing))
            self._memory.update({(kind, place): row for place, row in zip(missing, made, strict=True)})
        return np.stack([self._memory[kind, place] for place in places])

    @cached_property
    def creators(self) -> set[str]:
        """Names that captions may use: those with enough `train` pieces."""
        return self.vocabulary.creators

    @cached_property
    def vocabulary(self) -> FactVocabulary:
        """The facts of the `train` rows."""
        return FactVocabulary([row for row in self.corpus.rows if row["split"] == "train"])

    @cached_property
    def generated(self) -> list[str]:
        """Captions that a program writes of the measured pieces, for search by words."""
        return generated_captions(self, self.notes_at(self.places))

    def caption(self, place: int, wording: int = 0) -> str | None:
        """A caption of the dataset's, or one of all that a row's human or provenance labels say, or None.

        Args:
            place (`int`): the row.
            wording (`int`): another number gives another caption, or other words for the same.
        """
        row = self.corpus.rows[place]
        if row.get("captions"):
            return row["captions"][wording % len(row["captions"])]
        facts = sorted(self.signed_facts(row)[0] - DERIVED_FACTS)
        words = random.Random(f"{row['id']} {self.bootstrap.seed} {wording}")
        return write_caption(facts[:FACTS_OF_A_CAPTION], self.creators, words) if facts else None

    def signed_facts(self, row: dict) -> tuple[set[str], set[str]]:
        """True and false facts of a row's labels; weak labels give none."""
        return (set(), set()) if row["tier"] == "weak" else label_facts(row, self.creators)

    @cached_property
    def described(self) -> list[int]:
        """The measured rows that have a caption."""
        return [place for place in self.places if self.caption(place)]

    def some(self, places: Sequence[int], count: int) -> list[int]:
        """A random sample of at most `count` places."""
        return sorted(np.random.default_rng(self.bootstrap.seed).permutation(places)[:count].tolist())

    def need_instruments(self) -> list[str]:
        """Names of the instruments; at least one."""
        if not self.instruments:
            raise UnsuitableError("needs an instrument outside the training data: name one with --soundfont.")
        return list(self.instruments)

    def room_audio(self, places: Sequence[int], notes: Sequence[PianoNotes]) -> Iterator[np.ndarray]:
        """Stretches of pieces as the first instrument sounds in a room, each with its own noise."""
        instrument = self.instruments[self.need_instruments()[0]]
        for place, piece_notes in zip(places, tqdm(notes, desc="rendering"), strict=True):
            yield in_a_room(instrument.render(piece_notes, self.sampling_rate), self.sampling_rate, seed=place)

    @cached_property
    def rendered(self) -> tuple[list[int], list, list[Example]]:
        """Some pieces, their rendered audio, and its embeddings."""
        places = self.some(self.places, self.audio_pieces)
        notes = [excerpt(piece, self.audio_seconds) for piece in self.notes_at(places)]
        return places, notes, self.embed_waveforms(self.room_audio(places, notes))

    @cached_property
    def rendered_transcribed(self) -> tuple[list[int], list[Example]]:
        """Positions in `rendered` of the pieces that are transcribed, and these embedded so; none if not asked for."""
        places, notes, _ = self.rendered
        chosen = self.some(range(len(places)), self.transcribed_pieces if self.transcribe else 0)
        audio = self.room_audio([places[position] for position in chosen], [notes[position] for position in chosen])
        return chosen, self.embed_waveforms(audio, transcribe=True)

    def embed_waveforms(self, waveforms: Iterable[np.ndarray], transcribe: bool = False) -> list[Example]:
        """Examples of waveforms, embedded a few at a time."""
        waveforms, examples = iter(waveforms), []
        while chunk := list(islice(waveforms, WAVEFORMS_HELD)):
            examples += self.audio_examples(chunk, transcribe=transcribe)
        return examples

    def recording(self, place: int) -> np.ndarray | None:
        """A row's own recording as a mono waveform, or None."""
        audio = self.corpus.rows[place].get("audio")
        if isinstance(audio, bytes):
            audio = io.BytesIO(audio)
        elif audio and self.recordings:
            audio = self.recordings / audio
        else:
            return None
        waveform, rate = soundfile.read(audio, dtype="float32", always_2d=True)
        return soxr.resample(waveform.mean(1), rate, self.sampling_rate)
