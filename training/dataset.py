"""Training examples: a random window of a random piece, augmented alike as notes and as audio, with a caption."""

import random
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .augmentation import PERFORMED_VELOCITIES, NoteAugmentation
from .captions import choose_facts, write_caption
from .corpus import PackedCorpus
from .descriptors import KEY_NAMES, THRESHOLDS, descriptor_facts, measure
from .facts import creator_name, label_facts
from .rendering import fit_length

# the same music by another player, or heard by a transcriber: key and tempo stay (about)
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
LARGEST_SHIFT_SECONDS = 1.0  # between the two views of a window
LEAD_SECONDS = 2.0  # music before the window, so that its first notes find strings that still ring
FEWEST_NOTES = 6
MIN_PIECES_OF_CREATOR = 8


class FactVocabulary:
    """All facts that captions may claim, numbered; `creators` are the names among them."""

    def __init__(self, rows: list[dict]):
        counts = Counter(filter(None, map(creator_name, rows)))
        self.creators = {name for name, count in counts.items() if count >= MIN_PIECES_OF_CREATOR}
        labels = [label_facts(row, self.creators) for row in rows]
        facts = set().union(*(true | false for true, false in labels)) | set(THRESHOLDS) | {"difficult"}
        facts |= {f"{name} {mode}" for name in KEY_NAMES for mode in ("major", "minor")}
        self.facts = sorted(facts)
        self.number = {fact: number for number, fact in enumerate(self.facts)}

    def encode(self, facts) -> np.ndarray:
        """Set of facts -> `(facts,)` of 0 and 1."""
        encoded = np.zeros(len(self.facts), np.float32)
        encoded[[self.number[fact] for fact in facts]] = 1
        return encoded


def training_pieces(folder) -> tuple[PackedCorpus, dict[str, list[int]], FactVocabulary]:
    """A packed corpus, the positions of its `train` rows by source, and the facts that these rows know."""
    corpus = PackedCorpus.load(folder)
    positions = corpus.select(lambda row: row["split"] == "train")
    pieces = {}
    for position in positions:
        pieces.setdefault(corpus.rows[position]["source"], []).append(position)
    return corpus, pieces, FactVocabulary([corpus.rows[position] for position in positions])


@dataclass
class WindowSampler:
    """Draws the example number `index` of a run: the same number gives the same example on any machine.

    Attributes:
        pieces (`dict[str, list[int]]`): the corpus positions of each source.
        source_weights (`dict[str, float]`): share of each source among the examples.
        instruments (`list`): what may play a rendered window; empty for no audio.
        audio_share (`float`): share of examples that get audio.
        view_share (`float`): share of examples that get a second view: the same notes played in another way.
    """

    corpus: PackedCorpus
    pieces: dict[str, list[int]]
    source_weights: dict[str, float]
    vocabulary: FactVocabulary
    augmentation: NoteAugmentation
    midi_processor: object
    sampling_rate: int
    instruments: list
    audio_share: float
    seed: int
    view_share: float = 0.0

    def __post_init__(self):
        self.sources = sorted(source for source, pieces in self.pieces.items() if pieces)
        weights = np.array([self.source_weights.get(source, 0.0) for source in self.sources])
        self.shares = weights / weights.sum()
        self.labels = {}

    def __getitem__(self, index: int) -> dict:
        generator = np.random.default_rng((self.seed, index))
        while True:
            piece = int(generator.choice(self.pieces[generator.choice(self.sources, p=self.shares)]))
            example = self.example(piece, generator)
            if example is not None:
                return example

    def labels_of(self, piece: int):
        if piece not in self.labels:
            self.labels[piece] = label_facts(self.corpus.rows[piece], self.vocabulary.creators)
        return self.labels[piece]

    def example(self, piece: int, generator: np.random.Generator) -> dict | None:
        """One window of a piece, or None where it has too few notes."""
        notes, row = self.corpus.notes(piece), self.corpus.rows[piece]
        window = self.midi_processor.window_seconds
        seconds = window if generator.random() < 0.85 else generator.uniform(0.4, 1.0) * window
        start = generator.uniform(0, max(notes.seconds - 0.6 * seconds, 0.0))
        lead = min(start, LEAD_SECONDS)
        stretch = self.augmentation.tempo_ratio * 1.05
        stretch_of_music = notes.crop(start - lead, start + seconds * stretch)
        if len(stretch_of_music) < FEWEST_NOTES:
            return None
        played = row["velocities"] >= PERFORMED_VELOCITIES
        notes = self.augmentation(stretch_of_music, generator, played)
        inside = notes.crop(lead, lead + seconds)
        if len(inside) < FEWEST_NOTES:
            return None
        if len(inside) > self.midi_processor.max_notes:
            inside = inside.take(slice(0, self.midi_processor.max_notes))
            seconds = float(inside.onset[-1]) + 0.01
        true, false = (set(facts) for facts in self.labels_of(piece))
        heard, unheard = descriptor_facts(measure(inside, min(seconds, inside.seconds)))
        true, false = true | heard, (false | unheard) - true
        words = random.Random(int(generator.integers(1 << 62)))
        chosen = choose_facts(true, self.vocabulary.creators, words)
        example = {
            "rows": self.midi_processor.rows(inside),
            "onsets": inside.onset.astype(np.float32),
            "caption": write_caption(chosen, self.vocabulary.creators, words),
            "claimed": self.vocabulary.encode(chosen),
            "true": self.vocabulary.encode(true),
            "false": self.vocabulary.encode(false),
            "song": int(row["song"], 16) if row.get("song") else piece,
            "id": row["id"],
        }
        if self.instruments and generator.random() < self.audio_share:
            example["waveform"], example["samples"] = self.render(notes, lead, seconds, generator)
        if self.view_share and generator.random() < self.view_share:
            view = self.second_view(notes, lead, seconds, generator)
            if len(view) >= FEWEST_NOTES:
                example["view"] = self.midi_processor.rows(view)
        return example

    def second_view(self, notes, lead, seconds, generator):
        """About the same stretch of `notes`, played in another way."""
        other = OTHER_TOUCH(notes, generator, played=True)
        start = lead + generator.uniform(-1, 1) * min(lead, LARGEST_SHIFT_SECONDS)
        return other.crop(start, start + seconds).take(slice(0, self.midi_processor.max_notes))

    def render(self, notes, lead, seconds, generator):
        """The window as audio, int16; it begins where the window of notes does."""
        instrument = self.instruments[generator.integers(len(self.instruments))]
        audio = instrument.render(notes, self.sampling_rate)
        first = int(lead * self.sampling_rate)
        audio = audio[first : first + int(seconds * self.sampling_rate)]
        audio = np.round(audio / max(np.abs(audio).max(), 1e-4) * 32_000).astype(np.int16)
        return fit_length(audio, round(self.midi_processor.window_seconds * self.sampling_rate)), max(len(audio), 1)


class BatchCollator:
    """Examples -> one batch of tensors by the model's argument names; what only the loss needs has other names."""

    def __init__(self, processor, vocabulary: FactVocabulary, caption_share: float = 1.0, labels: bool = False):
        self.processor, self.vocabulary = processor, vocabulary
        self.caption_share, self.labels = caption_share, labels

    def __call__(self, examples: list[dict]) -> dict:
        midi_ids, midi_mask = self.processor.midi_processor.pad([example["rows"] for example in examples])
        # a caption fits every piece of which it is true, so there may be fewer captions than pieces
        described = examples[: max(1, round(self.caption_share * len(examples)))]
        text = self.processor.tokenize([example["caption"] for example in described], return_tensors="pt")
        batch = {
            "midi_ids": midi_ids.to(torch.uint8),  # every field has fewer than 256 values; widened on the device
            "midi_attention_mask": midi_mask.bool(),
            "input_ids": text["input_ids"],
            "attention_mask": text["attention_mask"],
            "song": torch.tensor([example["song"] for example in examples], dtype=torch.int64),
            "id": [example["id"] for example in examples],
        }
        batch["claimed"] = torch.from_numpy(np.stack([example["claimed"] for example in described]))
        for key in ("true", "false"):
            batch[key] = torch.from_numpy(np.stack([example[key] for example in examples]))
        if self.labels:
            batch.update(self.label_prompts(batch["true"], random.Random(examples[0]["caption"])))
        views = [row for row, example in enumerate(examples) if "view" in example]
        if views:
            ids, mask = self.processor.midi_processor.pad([examples[row]["view"] for row in views])
            batch |= {"view_ids": ids.to(torch.uint8), "view_mask": mask.bool(), "view_rows": torch.tensor(views)}
        for key in ("waveform", "decibels"):
            rows = [row for row, example in enumerate(examples) if key in example]
            if rows:
                batch[key] = torch.from_numpy(np.stack([examples[row][key] for row in rows]))
                batch["samples"] = torch.tensor([examples[row]["samples"] for row in rows])
                batch["audio_rows"] = torch.tensor(rows)
                onsets = [torch.from_numpy(examples[row]["onsets"]) for row in rows]
                batch["onsets"] = nn.utils.rnn.pad_sequence(onsets, batch_first=True)
        return batch

    def label_prompts(self, true: torch.Tensor, words: random.Random) -> dict:
        """A short text for each fact that holds for a piece of the batch, and which fact it claims."""
        held = true.any(0).nonzero()[:, 0]
        prompts = [write_caption([self.vocabulary.facts[fact]], self.vocabulary.creators, words) for fact in held]
        text = self.processor.tokenize(prompts, return_tensors="pt")
        claimed = torch.zeros(len(held), true.shape[1])
        claimed[torch.arange(len(held)), held] = 1
        return {
            "label_ids": text["input_ids"],
            "label_attention_mask": text["attention_mask"],
            "label_claimed": claimed,
        }
