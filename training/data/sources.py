"""The corpora of a run: opened, mixed in a fixed ratio, and drawn from by the number of an example."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Audio, concatenate_datasets, load_dataset, load_from_disk
from datasets.exceptions import DatasetNotFoundError

from modeling_pianobind.notes_pianobind import PianoNotes, read_midi

from .arguments import CorpusArguments
from .captions import MOODS, facts_of_tags
from .corpus import PackedCorpus
from .dataset_schema import row_id
from .facts import GENRES
from .vocabulary import FactVocabulary
from .works import add_works

MIN_PIECES_OF_FACT = 5
CONTENT = ("audio", "midi")
NEEDED = ("piece_id", "source", "split", "seconds", "captions", "tags", "audio_origin", "midi_origin", *CONTENT)


class DatasetCorpus:
    """A data set of `training.data.dataset_schema` with the face of a `PackedCorpus`; audio and MIDI stay on disk.

    Attributes:
        rows (`list[dict]`): all columns but audio and MIDI, without what is null, and with an `id`.
    """

    def __init__(self, dataset):
        dataset = dataset.cast_column("audio", Audio(decode=False))
        self.audio, self.midi = (dataset.select_columns([name]) for name in CONTENT)
        self.rows = [_row(row) for row in dataset.remove_columns(list(CONTENT)).to_list()]

    @classmethod
    def open(cls, path: str) -> "DatasetCorpus":
        """Opens the folder that `training.build_dataset` or `save_to_disk` wrote, or a data set of the Hub.

        Raises:
            ValueError: it is none of these, or lacks columns.
        """
        folder = Path(path)
        shards = sorted(map(str, (folder / "data").glob("*.parquet")))
        if shards:
            splits = load_dataset("parquet", data_files={"rows": shards})
        elif (folder / "dataset_dict.json").exists():
            splits = load_from_disk(path)
        else:
            try:
                splits = load_dataset(path)
            except (DatasetNotFoundError, FileNotFoundError, ConnectionError) as error:
                raise ValueError(
                    f"{path}: no corpus; give a folder of `training.build_dataset` or `training.data.corpus`, or a "
                    f"data set's Hub id ({' '.join(str(error).split())})."
                ) from error
        dataset = concatenate_datasets(list(splits.values()))
        if missing := [name for name in NEEDED if name not in dataset.column_names]:
            raise ValueError(f"{path}: has no column {', '.join(missing)}; build it with `training.build_dataset`.")
        return cls(dataset)

    def __len__(self) -> int:
        return len(self.rows)

    def notes(self, piece: int) -> PianoNotes:
        """The notes of one row that has MIDI."""
        return read_midi(self.midi[piece]["midi"])

    def recording(self, piece: int) -> bytes:
        """The audio file of one row that has audio."""
        audio = self.audio[piece]["audio"]
        return audio["bytes"] if audio["bytes"] is not None else Path(audio["path"]).read_bytes()


def _row(row: dict) -> dict:
    row = {name: value for name, value in row.items() if value is not None}
    told = facts_of_tags(row.get("tags", ()))
    row |= {"id": row_id(row), "tags": told}
    row["genre"] = list(dict.fromkeys([*row.get("genre", ()), *(tag for tag in told if tag in GENRES)]))
    row["mood"] = list(dict.fromkeys([*row.get("mood", ()), *(tag for tag in told if tag in MOODS)]))
    origins = row.get("caption_origins") or ["given"] * len(row["captions"])
    # captions are generated again for each window, since augmentation may make stored ones false
    row["captions"] = [
        caption for caption, origin in zip(row["captions"], origins, strict=True) if origin != "generated"
    ]
    return row


def open_corpus(path: str):
    """A `PackedCorpus` or a `DatasetCorpus`, whichever lies there."""
    packed = (Path(path) / "rows.jsonl.gz").exists()
    return PackedCorpus.load(path) if packed else DatasetCorpus.open(path)


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

    corpus: object
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
    """All that a run draws from, and the facts that its rows know."""

    parts: list[CorpusPart]
    vocabulary: FactVocabulary

    @classmethod
    def open(
        cls,
        corpora: str | list[CorpusArguments],
        source_weights: dict[str, float] | None = None,
        split="train",
        fact_share=0.0,
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


def _part(arguments, corpus, source_weights, split):
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


__all__ = ["DatasetCorpus", "TrainingCorpus", "has_audio", "has_midi", "open_corpus"]
