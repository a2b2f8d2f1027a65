"""Corpora to evaluate on: a packed one (training.data.corpus), or a dataset folder of training.build_dataset."""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq

from modeling_pianobind.notes_pianobind import read_midi
from training.data.corpus import PackedCorpus
from training.data.dataset_schema import row_id

NOTE_ARRAYS = ("offsets", "onset", "duration", "pedal", "pitch", "velocity")


def load_corpus(folder: str | Path) -> PackedCorpus:
    """Reads either kind of folder.

    Rows of a dataset keep `captions`, and `audio` as the bytes of a file if it is a real recording.

    Raises:
        FileNotFoundError: the folder is neither.
    """
    folder = Path(folder)
    if (folder / "rows.jsonl.gz").exists():
        return PackedCorpus.load(folder)
    shards = sorted((folder / "data").glob("*.parquet"))
    if not shards:
        raise FileNotFoundError(
            f"{folder}: neither a packed corpus (rows.jsonl.gz) nor a dataset (data/*.parquet); make one with "
            "`python -m training.data.corpus` or `python -m training.build_dataset`."
        )
    rows, notes = [], []
    for shard in shards:
        for batch in pq.ParquetFile(shard).iter_batches(batch_size=64):
            for row in batch.to_pylist():
                if row["midi"]:
                    notes.append(read_midi(row["midi"]))
                    rows.append(_row(row))
    if not rows:
        raise ValueError(f"{folder}: no row has MIDI; every protocol here needs it. Build the dataset from MIDI.")
    return PackedCorpus.pack(rows, notes)


def _row(row: dict) -> dict:
    """A dataset's row -> a corpus row: nothing that is null, no content but recordings."""
    recording = row["audio"]["bytes"] if row["audio"] and row["audio_origin"] == "real" else None
    kept = {name: value for name, value in row.items() if value is not None and name not in ("midi", "audio")}
    kept |= {"id": row_id(row), "velocities": row["velocities"] or 0}
    return kept | ({"audio": recording} if recording else {})


def corpus_sha256(corpus: PackedCorpus) -> str:
    """Checksum of a corpus's rows and notes."""
    digest = hashlib.sha256()
    for row in corpus.rows:
        row = {key: value for key, value in row.items() if not isinstance(value, bytes)}
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
    for array in NOTE_ARRAYS:
        digest.update(getattr(corpus, array).tobytes())
    return digest.hexdigest()
