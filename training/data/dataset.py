"""Training examples: a random window of a random piece, augmented equally as notes and as audio, and a caption."""

import hashlib
import io
import random
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import soundfile
import soxr

from modeling_pianobind import PianoBindProcessor
from modeling_pianobind.feature_extraction_pianobind import SILENCE_AMPLITUDE
from modeling_pianobind.notes_pianobind import HIGHEST_KEY, LOWEST_KEY, PianoNotes

from .augmentation import PERFORMED_VELOCITIES, NoteAugmentation
from .captions import choose_facts, write_caption
from .descriptors import descriptor_facts, measure
from .mel_rendering import MelInstrument
from .rendering import Instrument, fit_length
from .score_pairs import ScorePair
from .sources import Corpus, TrainingCorpus, has_audio, has_midi
from .vocabulary import FactVocabulary

# the same music by another player or in a transcription: the key stays, the tempo nearly
OTHER_TOUCH = NoteAugmentation(
    transpose_semitones=0,
    tempo_ratio=1.03,
    velocity_probability=0.8,
    flat_velocity_probability=0.35,
    drop_pedal_probability=0.5,
    jitter_probability=0.8,
    quantise_probability=0.05,
    drop_note_probability=0.6,
)
MAX_SHIFT_SECONDS = 1.0  # between the two views of a window
MAX_LATE_SECONDS = 0.5  # between a window of notes and its sound
LEAD_SECONDS = 2.0  # music before the window, so that earlier notes still ring at its start
PRINTED_SHARE = 0.5  # of the second views of a window whose printed score is known
MIN_NOTES = 6
MAX_TRIES = 1000
FULL_FACTS = 8  # facts in the caption of a validation row, at most


@dataclass
class Window:
    """A stretch of music; `notes` begin at its start and none starts after its end.

    Attributes:
        seconds (`float`): how long it is.
        notes (`PianoNotes`, *optional*).
        waveform (`np.ndarray` of shape `(samples,)`, int16, *optional*): the same stretch as audio.
        decibels (`np.ndarray` of shape `(frames, bands)`, uint8, *optional*): as audio too, see `MelInstrument`.
        late_seconds (`float`): how long after the window's start that sound begins.
        view (`PianoNotes`, *optional*): about the same notes, played in another way.
    """

    seconds: float
    notes: PianoNotes | None = None
    waveform: np.ndarray | None = None
    decibels: np.ndarray | None = None
    late_seconds: float = 0.0
    view: PianoNotes | None = None


@dataclass(kw_only=True)
class WindowSampler:
    """Draws the example number `index` of a run: the same number gives the same example on any machine.

    Attributes:
        corpus (`TrainingCorpus`): what is drawn from.
        processor (`PianoBindProcessor`): of the model that is trained.
        batch_size (`int`): over all processes; every batch holds the corpora in the same ratio.
        augmentation (`NoteAugmentation`).
        instruments (`list`): what may play a window of notes; empty for no rendered audio.
        audio_share (`float`): share of examples that are rendered.
        hears_recordings (`bool`): whether rows with audio bring it.
        recording_semitones (`int`), given_caption_share (`float`): see `TrainingArguments`.
        view_share (`float`): share of examples that get a second view: the same notes played in another way.
        score_pairs (`dict[str, ScorePair]`): by row id; half of those rows' second views are as the score has them.
        windows_per_piece (`int`): successive examples that are windows of one piece.
        max_notes (`int`): a window with more notes ends earlier.
    """

    corpus: TrainingCorpus
    processor: PianoBindProcessor
    batch_size: int = 1
    augmentation: NoteAugmentation = field(default_factory=NoteAugmentation)
    instruments: list = field(default_factory=list)
    audio_share: float = 0.0
    hears_recordings: bool = False
    recording_semitones: int = 0
    given_caption_share: float = 1.0
    view_share: float = 0.0
    score_pairs: dict[str, ScorePair] = field(default_factory=dict)
    windows_per_piece: int = 1
    max_notes: int = 10_000
    seed: int = 0

    @cached_property
    def work_number(self) -> dict[str, int]:
        """The place of each row that has a known work's captions, among all that have."""
        return {row["id"]: number for number, row in enumerate(self.corpus.rows_with_works())}

    @cached_property
    def slots(self) -> list[int]:
        return self.corpus.slots(self.batch_size)

    @property
    def vocabulary(self) -> FactVocabulary:
        return self.corpus.vocabulary

    @property
    def sampling_rate(self) -> int:
        return self.processor.feature_extractor.sampling_rate

    @cached_property
    def window_seconds(self) -> float:
        """Longest window that both towers read."""
        return min(self.processor.midi_processor.window_seconds, self.processor.feature_extractor.window_seconds)

    def __getitem__(self, index: int) -> dict:
        part = self.corpus.parts[self.slots[index % self.batch_size]]
        generator = np.random.default_rng((self.seed, index))
        draws = generator
        if self.windows_per_piece > 1:
            draws = np.random.default_rng((self.seed, index // self.windows_per_piece, self.windows_per_piece))
        for _ in range(MAX_TRIES):
            piece = part.draw(draws)
            try:
                example = self.example(part.corpus, piece, generator, self._has_view(index))
            except Exception as error:
                error.add_note(f"in row {part.corpus.rows[piece]['id']}, example {index}")
                raise
            if example is not None:
                return example | {"number": index}
        raise ValueError(
            f"{part.corpus.rows[piece]['id']} and {MAX_TRIES - 1} other rows drawn have no window with "
            f"{MIN_NOTES} notes or with sound; check the corpus."
        )

    def _has_view(self, index: int) -> bool:
        """Evenly spread, so that every batch has the same number of second views."""
        return int((index + 1) * self.view_share) > int(index * self.view_share)

    def example(
        self, corpus: Corpus, piece: int, generator: np.random.Generator, has_view: bool = False
    ) -> dict | None:
        """One window of a row, or None where it has too few notes or is silent."""
        row = corpus.rows[piece]
        if self.hears_recordings and has_audio(row):
            window = self._recorded_window(corpus, piece, generator, has_view)
        elif has_midi(row):
            window = self._played_window(corpus.notes(piece), row, generator, has_view)
        else:
            return None
        return window and self._described(window, row, generator)

    def plain_example(self, corpus: Corpus, piece: int) -> dict | None:
        """The middle of a row as it is, with a caption of all that its labels say; for measuring."""
        row = corpus.rows[piece]
        start, window = max(row["seconds"] - self.window_seconds, 0.0) / 2, Window(self.window_seconds)
        if has_midi(row):
            notes = corpus.notes(piece).crop(start, start + self.window_seconds)
            window.notes = notes.take(slice(0, self.max_notes))
        if self.hears_recordings and has_audio(row):
            window.waveform = self._read(corpus.recording(piece), start, self.window_seconds)
        elif window.notes and self.instruments and len(window.notes):
            window.waveform = self._render(self.instruments[0], window.notes, 0.0, window.seconds)
        if window.notes is not None and not len(window.notes):
            return None
        return self._described(window, row, random_generator(row["id"]), plain=True)

    def _seconds(self, generator: np.random.Generator) -> float:
        """Length of a window: the full length most of the time."""
        return self.window_seconds * (1.0 if generator.random() < 0.85 else generator.uniform(0.4, 1.0))

    def _played_window(
        self, notes: PianoNotes, row: dict, generator: np.random.Generator, has_view: bool
    ) -> Window | None:
        seconds = self._seconds(generator)
        start = generator.uniform(0, max(notes.seconds - 0.6 * seconds, 0.0))
        lead = min(start, LEAD_SECONDS)
        stretch_of_music = notes.crop(start - lead, start + seconds * self.augmentation.tempo_ratio * 1.05)
        if len(stretch_of_music) < MIN_NOTES:
            return None
        changed = self.augmentation.change(stretch_of_music, generator, row["velocities"] >= PERFORMED_VELOCITIES)
        notes = changed.notes
        inside = notes.crop(lead, lead + seconds)
        if len(inside) < MIN_NOTES:
            return None
        if len(inside) > self.max_notes:
            inside = inside.take(slice(0, self.max_notes))
            seconds = float(inside.onset[-1]) + 0.01
        window = Window(seconds, inside)
        if self.instruments and generator.random() < self.audio_share:
            self._play(window, notes, lead, generator)
        if has_view:
            first = start - lead + lead / changed.stretch
            window.view = self._printed_view(row, first, seconds / changed.stretch, changed.semitones, generator)
            window.view = window.view or self._second_view(notes, lead, seconds, generator)
        return window

    def _play(self, window: Window, notes: PianoNotes, lead: float, generator: np.random.Generator) -> None:
        """Adds the window's sound, by any of the instruments."""
        instrument = self.instruments[generator.integers(len(self.instruments))]
        if not isinstance(instrument, MelInstrument):
            window.waveform = self._render(instrument, notes, lead, window.seconds)
            return
        late = generator.uniform(-1, 1) * min(lead, MAX_LATE_SECONDS)  # a recording and its MIDI rarely start together
        frames = 1 + self.processor.feature_extractor.window_samples // self.processor.feature_extractor.hop_length
        window.late_seconds = late
        window.decibels = instrument.render(notes, lead + late, window.seconds, frames, generator)

    def _recorded_window(
        self, corpus: Corpus, piece: int, generator: np.random.Generator, has_view: bool
    ) -> Window | None:
        """A stretch of a recording and of its MIDI, cut at the same seconds and played at the same other speed."""
        row, seconds = corpus.rows[piece], self._seconds(generator)
        semitones = int(generator.integers(-self.recording_semitones, self.recording_semitones + 1))
        speed = 2 ** (semitones / 12)
        start = generator.uniform(0, max(row["seconds"] - 0.6 * seconds * speed, 0.0))
        window = Window(seconds)
        if has_midi(row):
            notes = faster(corpus.notes(piece).crop(start, start + seconds * speed), speed, semitones)
            if len(notes) < MIN_NOTES:
                return None
            touch = replace(self.augmentation, transpose_semitones=0, tempo_ratio=1.0, quantise_probability=0.0)
            window.notes = touch(notes, generator, row["velocities"] >= PERFORMED_VELOCITIES)
            if len(window.notes) > self.max_notes:
                window.notes = window.notes.take(slice(0, self.max_notes))
                window.seconds = float(window.notes.onset[-1]) + 0.01
            if has_view:
                window.view = self._printed_view(row, start, window.seconds * speed, semitones, generator)
                window.view = window.view or self._second_view(notes, 0.0, window.seconds, generator)
        window.waveform = self._read(corpus.recording(piece), start, window.seconds, speed)
        return window if window.waveform is not None else None

    def _second_view(
        self, notes: PianoNotes, lead: float, seconds: float, generator: np.random.Generator
    ) -> PianoNotes | None:
        """The window's notes, augmented as another performance."""
        other = OTHER_TOUCH(notes, generator, played=True)
        start = lead + generator.uniform(-1, 1) * min(lead, MAX_SHIFT_SECONDS)
        view = other.crop(start, start + seconds).take(slice(0, self.max_notes))
        return view if len(view) >= MIN_NOTES else None

    def _printed_view(
        self, row: dict, start: float, seconds: float, semitones: int, generator: np.random.Generator
    ) -> PianoNotes | None:
        """What the score of a row has where the row's own seconds are these, in the window's key.

        None where no score is known, where it has too little there, or where another kind of view has its turn.
        """
        pair = self.score_pairs.get(row["id"])
        if pair is None or generator.random() >= PRINTED_SHARE:
            return None
        view = faster(pair.stretch(start, start + seconds), 1.0, semitones)
        view = view.crop(0.0, self.window_seconds).take(slice(0, self.max_notes))
        return view if len(view) >= MIN_NOTES else None

    def _render(self, instrument: Instrument, notes: PianoNotes, lead: float, seconds: float) -> np.ndarray:
        """The window as audio; it begins where the window of notes does."""
        audio = instrument.render(notes, self.sampling_rate)
        first = int(lead * self.sampling_rate)
        return full_scale(audio[first : first + int(seconds * self.sampling_rate)])

    def _read(self, content: bytes, start: float, seconds: float, speed: float = 1.0) -> np.ndarray | None:
        """A stretch of an audio file, `speed` times as fast and as high; None where it is silent."""
        with soundfile.SoundFile(io.BytesIO(content)) as sound:
            rate = sound.samplerate
            sound.seek(min(round(start * rate), sound.frames))
            audio = sound.read(round(seconds * speed * rate), dtype="float32", always_2d=True).mean(1)
        if not len(audio) or np.abs(audio).max() <= SILENCE_AMPLITUDE:
            return None
        return full_scale(soxr.resample(audio, rate * speed, self.sampling_rate)[: int(seconds * self.sampling_rate)])

    def _described(self, window: Window, row: dict, generator: np.random.Generator, plain: bool = False) -> dict:
        labelled, false = self.vocabulary.labels(row)
        true = labelled
        if window.notes is not None:
            measured, ruled_out = descriptor_facts(measure(window.notes, min(window.seconds, window.notes.seconds)))
            true, false = true | measured, (false | ruled_out) - labelled - measured
        words = random.Random(int(generator.integers(1 << 62)))
        captions = row.get("captions")
        given = bool(captions) and (plain or words.random() < self.given_caption_share)
        if given:
            claimed, caption = labelled, captions[0] if plain else words.choice(captions)
        else:
            claimed = sorted(labelled or true)[:FULL_FACTS] if plain else None
            claimed = claimed or choose_facts(true, self.vocabulary.creators, words)
            caption = write_caption(claimed, self.vocabulary.creators, words)
        example = {
            "caption": caption,
            "given": given,
            "claimed": self.vocabulary.encode(claimed),
            "true": self.vocabulary.encode(true),
            "false": self.vocabulary.encode(false),
            "song": int(row["song"], 16) if row.get("song") else digits(row["id"]),
            "id": row["id"],
            "piece": digits(row["id"]),
            "generated": self.vocabulary.encode(self.vocabulary.generated(row) - true - false),
            "work": self.work_number.get(row["id"], -1),
        }
        if window.notes is not None:
            example["rows"] = self.processor.midi_processor.rows(window.notes)
            example["keys"] = window.notes.pitch - LOWEST_KEY
            example["onsets"] = (window.notes.onset - window.late_seconds).astype(np.float32)
            example["holds"] = window.notes.duration + window.notes.pedal
        if window.waveform is not None:
            example["samples"] = max(len(window.waveform), 1)
            example["waveform"] = fit_length(window.waveform, self.processor.feature_extractor.window_samples)
        if window.decibels is not None:
            example["samples"] = max(int(window.seconds * self.sampling_rate), 1)
            example["decibels"] = window.decibels
        if window.view is not None:
            example["view"] = self.processor.midi_processor.rows(window.view)
        return example


def faster(notes: PianoNotes, speed: float, semitones: int) -> PianoNotes:
    """Notes of a recording that is played `speed` times as fast and `semitones` higher."""
    pitch = notes.pitch + semitones
    moved = PianoNotes(
        notes.onset / speed,
        (notes.duration / speed).astype(np.float32),
        pitch,
        notes.velocity,
        (notes.pedal / speed).astype(np.float32),
    )
    return moved.take((pitch >= LOWEST_KEY) & (pitch <= HIGHEST_KEY))


def full_scale(audio: np.ndarray) -> np.ndarray:
    """A waveform as int16, its peak near full scale."""
    return np.round(audio / max(np.abs(audio).max(initial=0.0), 1e-4) * 32_000).astype(np.int16)


def digits(text: str) -> int:
    """A number of 48 bits that stands for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def random_generator(text: str) -> np.random.Generator:
    return np.random.default_rng(digits(text))


__all__ = ["FactVocabulary", "Window", "WindowSampler", "digits", "faster"]
