"""An index as parquet files, as a Ray Data job writes it: a row a file, with its embedding and windows."""

import os
from pathlib import Path

import numpy as np

from .storage import AGAIN, Saved, damage, write_header
from .table import FileTable, Part

COLUMNS = ("path", "piece", "content_hash", "embedding", "windows", "spans", "error")


def write_list(folder, saved: Saved) -> None:
    """Makes the parquet files of a folder an index, once all are written."""
    files = sorted(Path(folder).glob("*.parquet"))
    stored = [{"name": file.name, "bytes": file.stat().st_size} for file in files]
    write_header(folder, {"parquet": stored}, saved)


def load_parquet(path, header) -> tuple[Part, Saved]:
    """Reads such an index into memory; `EmbeddingIndex.save` makes one of it that is mapped from the disk.

    Raises:
        ValueError: a file is missing, or was cut off or changed.
    """
    import pyarrow.parquet

    rows = []
    with damage(path):
        stored = [(os.path.basename(entry["name"]), entry["bytes"]) for entry in header["parquet"]]
    for name, size in stored:
        if not os.path.isfile(path / name) or (path / name).stat().st_size != size:
            raise ValueError(f"{path}: the index is incomplete ({name} is missing or was changed); {AGAIN}.")
        with damage(path):
            for batch in pyarrow.parquet.ParquetFile(path / name).iter_batches(columns=COLUMNS):
                rows += [_row(one) for one in batch.to_pylist() if not one["error"]]
    with damage(path):
        part = Part.of(FileTable.from_rows(sorted(rows, key=lambda row: row[0])))
    part.source = str(path)
    return part, Saved(header["checkpoint_fingerprint"], header.get("transcribed", False), header["failures"])


def _row(one: dict) -> tuple:
    """A row of `FileTable.from_rows`."""
    embedding = np.frombuffer(one["embedding"], "<f4")
    windows = np.frombuffer(one["windows"], "<f2").reshape(-1, len(embedding))
    spans = np.frombuffer(one["spans"], "<f8").reshape(len(windows), 2)
    return os.fsdecode(one["path"]), os.fsdecode(one["piece"]), one["content_hash"], embedding, windows, spans


__all__ = ["load_parquet", "write_list"]
