"""Rows -> parquet shards, a dataset card and a report in one folder; from there to disk or to the Hub."""

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetDict, Features

from ..hub.hub_upload import push_folder
from .build_arguments import BuildArguments
from .dataset_schema import COLUMNS, LABELS, SPLITS
from .pieces import Piece

CARD_TEMPLATE = Path(__file__).parent.parent.parent / "model_cards" / "dataset_card.md.jinja"
GROUP_BYTES = 16 << 20  # audio and MIDI of a row group, which writers hold in memory and readers fetch at once
GROUP_ROWS = 500
# licences as corpora write them -> identifiers of the Hub
HUB_LICENCES = {
    "mit": "mit", "apache-2.0": "apache-2.0", "cc0": "cc0-1.0", "cc0-1.0": "cc0-1.0", "cc by 4.0": "cc-by-4.0",
    "cc by 3.0": "cc-by-3.0", "cc by-sa 4.0": "cc-by-sa-4.0", "cc by-nc 4.0": "cc-by-nc-4.0",
    "cc by-nc-sa 4.0": "cc-by-nc-sa-4.0", "public domain": "pdm",
}  # fmt: skip


@dataclass
class Report:
    """Counts of a build, for the card and the report."""

    pieces: int = 0
    refused: list[dict] = field(default_factory=list)
    rows: Counter = field(default_factory=Counter)  # by split
    songs: Counter = field(default_factory=Counter)
    seconds: Counter = field(default_factory=Counter)
    sources: dict = field(default_factory=dict)  # source -> counts of rows, licences and tiers
    audio_origins: Counter = field(default_factory=Counter)
    midi_origins: Counter = field(default_factory=Counter)
    caption_origins: Counter = field(default_factory=Counter)
    pieces_joined_by_melody: int = 0  # to a song that another piece had first
    songs_with_stricter_split: int = 0

    def refuse(self, piece: Piece, reason: str, message: str) -> None:
        """Notes a piece that does not enter the dataset."""
        self.refused.append({"piece_id": piece.piece_id, "source": piece.source, "reason": reason, "message": message})

    def count(self, row: dict) -> None:
        """Notes a written row."""
        self.rows[row["split"]] += 1
        self.seconds[row["split"]] += row["seconds"]
        self.audio_origins[row["audio_origin"] or "none"] += 1
        self.midi_origins[row["midi_origin"] or "none"] += 1
        self.caption_origins.update(row["caption_origins"])
        if not row["captions"]:
            self.caption_origins["rows without a caption"] += 1
        source = self.sources.setdefault(row["source"], {"rows": 0, "licences": Counter(), "tiers": Counter()})
        source["rows"] += 1
        source["licences"][row["licence"]] += 1
        source["tiers"][row["tier"]] += 1

    @property
    def reasons(self) -> dict[str, int]:
        """Counts by reason of refusal, the most frequent first."""
        return dict(Counter(refusal["reason"] for refusal in self.refused).most_common())

    @property
    def licences(self) -> dict[str, int]:
        """Licence -> rows."""
        return dict(sum((source["licences"] for source in self.sources.values()), Counter()).most_common())

    def save(self, folder: Path) -> None:
        """Writes `report.json` (counts) and `refused.csv` (a line for each refused piece)."""
        counts = {name: value for name, value in vars(self).items() if name != "refused"}
        counts |= {"refused": self.reasons, "licences": self.licences}
        (folder / "report.json").write_text(json.dumps(counts, indent=2, ensure_ascii=False) + "\n")
        with (folder / "refused.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["piece_id", "source", "reason", "message"])
            writer.writeheader()
            writer.writerows(self.refused)


class ShardWriter:
    """Writes rows of one split as `data/SPLIT-K-of-N.parquet`, holding no more than a row group in memory."""

    def __init__(self, folder: Path, split: str, features: Features, shard_bytes: float):
        self.folder, self.split, self.features, self.shard_bytes = folder, split, features, shard_bytes
        self.paths, self.buffer, self.buffer_bytes, self.written = [], [], 0, 0
        self.writer = None

    def write(self, row: dict) -> None:
        self.buffer.append({name: row.get(name) for name in self.features})
        self.buffer_bytes += len((row["audio"] or {}).get("bytes") or b"") + len(row["midi"] or b"")
        if self.buffer_bytes >= GROUP_BYTES or len(self.buffer) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self.buffer:
            return
        if self.writer is None:
            self.paths.append(self.folder / f"{self.split}-{len(self.paths):05d}.parquet")
            # the schema carries the features, so that a reader gets an `Audio` column and not a struct
            self.writer = pq.ParquetWriter(self.paths[-1], self.features.arrow_schema)
        self.writer.write_table(pa.Table.from_pylist(self.buffer, schema=self.features.arrow_schema))
        self.written += self.buffer_bytes
        self.buffer, self.buffer_bytes = [], 0
        if self.written >= self.shard_bytes:
            self._close_shard()

    def _close_shard(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.writer, self.written = None, 0

    def close(self) -> None:
        """Writes the buffered rows and renames the shards by their number."""
        self._flush()
        self._close_shard()
        for number, path in enumerate(self.paths):
            path.rename(self.folder / f"{self.split}-{number:05d}-of-{len(self.paths):05d}.parquet")


def write_shards(
    rows: Iterator[dict], folder: Path, features: Features, shard_megabytes: float, report: Report
) -> None:
    """Writes rows as they come, each to the shards of its split."""
    data = folder / "data"
    data.mkdir(parents=True)
    writers = {}
    for row in rows:
        split = row["split"]
        if split not in writers:
            writers[split] = ShardWriter(data, split, features, shard_megabytes * 1e6)
        writers[split].write(row)
        report.count(row)
    for writer in writers.values():
        writer.close()


def write_card(folder: Path, arguments: BuildArguments, report: Report, features: Features) -> None:
    """Renders the dataset card as `README.md`; every number in it is counted."""
    import jinja2

    splits = [split for split in SPLITS if report.rows[split]]
    licences = {HUB_LICENCES.get(licence.lower(), "other") for licence in report.licences}
    meanings = {name: meaning for name, (_, meaning) in (COLUMNS | LABELS).items()}
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    card = environment.from_string(CARD_TEMPLATE.read_text(encoding="utf-8")).render(
        arguments=arguments,
        report=report,
        splits=splits,
        licence=licences.pop() if len(licences) == 1 else "other",
        total_rows=sum(report.rows.values()),
        columns=[
            (name, _type_name(feature), meanings.get(name, "label of the corpus"))
            for name, feature in features.items()
        ],
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _type_name(feature: object) -> str:
    if hasattr(feature, "feature"):
        return f"list of {_type_name(feature.feature)}"
    return getattr(feature, "dtype", None) if type(feature).__name__ == "Value" else type(feature).__name__


def load_parquet(folder: Path, cache_folder: Path) -> DatasetDict:
    """The dataset of a folder that `write_shards` wrote, as `datasets.DatasetDict`."""
    from datasets import load_dataset

    files = {split: sorted(map(str, (folder / "data").glob(f"{split}-*.parquet"))) for split in SPLITS}
    files = {split: paths for split, paths in files.items() if paths}
    return load_dataset("parquet", data_files=files, cache_dir=str(cache_folder))


def save_to_disk(folder: Path, target: Path) -> None:
    """Writes the dataset for `datasets.load_from_disk`, with its card and report."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        load_parquet(folder, Path(cache)).save_to_disk(str(target))
    for name in ("README.md", "report.json", "refused.csv"):
        (target / name).write_bytes((folder / name).read_bytes())


def push_to_hub(folder: Path, dataset_id: str, private: bool) -> None:
    """Uploads the folder as it is: shards, card and report, in one commit.

    Raises:
        RuntimeError: the Hub refuses it; the folder stays, and the message says how to try again.
    """
    try:
        push_folder(folder, dataset_id, "dataset", private, message="Add the dataset")
    except RuntimeError as error:
        again = f"python -m training.publish {folder} --repo-id {dataset_id}{' --private' if private else ''}"
        raise RuntimeError(f"{error} The dataset is whole in {folder}; later run `{again}`.") from error


__all__ = ["Report", "load_parquet", "push_to_hub", "save_to_disk", "write_card", "write_shards"]
