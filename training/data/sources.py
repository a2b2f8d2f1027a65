"""The corpora of a run: opened, mixed in a fixed ratio, and drawn from by the number of an example."""

import math
from dataclasses import dataclass, field

import numpy as np

from .arguments import CorpusArguments
from .captions import MOODS, facts_of_tags
from .corpus import PackedCorpus
from .dataset_corpus import DatasetCorpus
from .facts import GENRES
from .vocabulary import FactVocabulary
from .works import add_works

Corpus = PackedCorpus | DatasetCorpus
MIN_PIECES_OF_FACT = 5


def _training_row(row: dict) -> dict:
    """A row of a data set with its tags as facts, and only the captions that people gave it."""
    tag_facts = facts_of_tags(row.get("tags", ()))
    row = row | {"tags": tag_facts}
    row["genre"] = list(dict.fromkeys([*row.get("genre", ()), *(tag for tag in tag_facts if tag in GENRES)]))
    row["mood"] = list(dict.fromkeys([*row.get("mood", ()), *(tag for tag in tag_facts if tag in MOODS)]))
    origins = row.get("caption_origins") or ["given"] * len(row["captions"])
    # captions are generated again for each window, since augmentation may make stored ones false
    row["captions"] = [
        caption for caption, origin in zip(row["captions"], origins, strict=True) if origin != "generated"
    ]
    return row


def open_corpus(path: str) -> Corpus:
    """Opens a `PackedCorpus` or a `DatasetCorpus`, whichever `path` is.

    Raises:
        ValueError: it is neither.
    """
    if PackedCorpus.is_folder(path):
        return PackedCorpus.load(path)
    corpus = DatasetCorpus.open(path)
    corpus.rows = [_training_row(row) for row in corpus.rows]
    return corpus


def has_midi(row: dict) -> bool:
    return "piece_id" not in row or "midi_origin" in row  # every row of a packed corpus has notes


def has_audio(row: dict) -> bool:
    return "audio_origin" in row


@dataclass
class CorpusPart:
    """The rows of one corpus that a run draws from.

    Attributes:
        corpus (`PackedCorpus` or `DatasetCorpus`).
        share (`float`): of the examples, in relation to the other parts.
        pieces (`dict[str, np.ndarray]`): positions of the rows of each source.
        source_shares (`np.ndarray` of shape `(sources,)`): how often each source is drawn.
        pieces_of_fact (`list[np.ndarray]`): positions of the rows for which each label fact holds.
        fact_share (`float`): how often a row is drawn by one of these facts, each as often as the others.
    """

    corpus: Corpus
    share: float
    pieces: dict[str, np.ndarray]
    source_shares: np.ndarray
    pieces_of_fact: list[np.ndarray] = field(default_factory=list)
    fact_share: float = 0.0

    def draw(self, generator: np.random.Generator) -> int:
        """The position of a random row."""
        if self.fact_share and self.pieces_of_fact and generator.random() < self.fact_share:
            return int(generator.choice(self.pieces_of_fact[generator.integers(len(self.pieces_of_fact))]))
        return int(generator.choice(self.pieces[generator.choice(list(self.pieces), p=self.source_shares)]))


@dataclass
class TrainingCorpus:
    """All that a run draws from, and the facts of its rows."""

    parts: list[CorpusPart]
    vocabulary: FactVocabulary

    @classmethod
    def open(
        cls,
        corpora: str | list[CorpusArguments],
        source_weights: dict[str, float] | None = None,
        split: str = "train",
        fact_share: float = 0.0,
    ) -> "TrainingCorpus":
        """Opens the `corpus` of a run's file.

        Args:
            source_weights (`dict[str, float]`): see `TrainingArguments`.
            split (`str`): the rows that are drawn; the vocabulary is always that of `train`.
            fact_share (`float`): see `TrainingArguments`.
        Raises:
            ValueError: a corpus cannot be opened, or has no row of the split that could be compared.
        """
        if isinstance(corpora, str):
            corpora = [CorpusArguments(corpora)]
        opened = [(arguments, open_corpus(arguments.path)) for arguments in corpora]
        for _, corpus in opened:
            if isinstance(corpus, PackedCorpus):
                add_works(corpus.rows)
        vocabulary = FactVocabulary([row for _, corpus in opened for row in corpus.rows if row["split"] == "train"])
        parts = [_part(arguments, corpus, source_weights or {}, split) for arguments, corpus in opened]
        if fact_share:
            for part in parts:
                part.fact_share, part.pieces_of_fact = fact_share, _pieces_of_facts(part, vocabulary)
        return cls(parts, vocabulary)

    def rows_with_works(self) -> list[dict]:
        """The rows that have captions of a known work."""
        return [row for part in self.parts for row in part.corpus.rows if "work" in row]

    def slots(self, batch_size: int) -> list[int]:
        """The part that each place of a batch belongs to: shares rounded to whole examples, evenly spread."""
        shares = np.array([part.share for part in self.parts]) / sum(part.share for part in self.parts) * batch_size
        counts = np.floor(shares).astype(int)
        for place in np.argsort(counts - shares, kind="stable")[: batch_size - counts.sum()]:
            counts[place] += 1
        places = [((rank + 0.5) / count, part) for part, count in enumerate(counts) for rank in range(count)]
        return [part for _, part in sorted(places)]


def _pieces_of_facts(part: CorpusPart, vocabulary: FactVocabulary) -> list[np.ndarray]:
    """The rows for which each label fact holds that enough rows have."""
    rows = {}
    for position in np.concatenate(list(part.pieces.values())):
        row = part.corpus.rows[position]
        for fact in vocabulary.labels(row)[0] | vocabulary.generated(row):
            rows.setdefault(fact, []).append(position)
    return [np.array(held) for _, held in sorted(rows.items()) if len(held) >= MIN_PIECES_OF_FACT]


def _part(arguments: CorpusArguments, corpus: Corpus, source_weights: dict[str, float], split: str) -> CorpusPart:
    pieces = {}
    for position, row in enumerate(corpus.rows):
        if row["split"] == split and (has_midi(row) or (has_audio(row) and (row["captions"] or row["tags"]))):
            pieces.setdefault(row["source"], []).append(position)
    weights = {source: source_weights.get(source, 0.0) for source in pieces}
    if not source_weights:
        weights = {source: math.sqrt(len(held)) for source, held in pieces.items()}
    pieces = {source: np.array(held) for source, held in sorted(pieces.items()) if weights[source]}
    if not pieces:
        raise ValueError(
            f"{arguments.path}: no row of split {split!r} has MIDI, or audio with a caption or tag, and a weight in "
            "`source_weights`; there is nothing to draw."
        )
    shares = np.array([weights[source] for source in pieces])
    return CorpusPart(corpus, arguments.share, pieces, shares / shares.sum())


__all__ = ["Corpus", "CorpusPart", "TrainingCorpus", "has_audio", "has_midi", "open_corpus"]
