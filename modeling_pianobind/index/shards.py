"""An index in shards: several processes or machines make one each, and a folder lists them as one index.

`FOLDER/shard-00001-of-00004` and its siblings are complete indices; `FOLDER/index.json` names them and is written
when all exist. Shards are neither copied nor changed.
"""

import hashlib
import os
import re
from pathlib import Path

import numpy as np

from .note_alignment import NoteLine
from .storage import AGAIN, HEADER, IndexMetadata, check_target, damage, load_shard, read_header, write_header
from .table import NO_FACTS, FileRow, FileTable, IndexShard

# A row of a parquet file that a Ray job writes: one music file. An older version wrote the first columns alone.
PARQUET_COLUMNS = ("path", "piece", "content_hash", "embedding", "windows", "spans", "error")
PARQUET_COLUMNS += ("facts", "names", "measures", "pitches", "onsets")
SHARD_NAME = re.compile(r"shard-(\d{5})-of-(\d{5})")


def in_shard(piece: str, folder: str | os.PathLike, number: int, count: int) -> bool:
    """Whether a piece belongs to shard `number`, from 1, of `count`.

    The hash of its name below `folder` decides: new or deleted files do not move other pieces to another shard.
    """
    name = Path(os.path.relpath(piece, folder)).as_posix()
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") % count == number - 1


def shard_folder(folder: str | os.PathLike, number: int, count: int) -> Path:
    return Path(folder) / f"shard-{number:05}-of-{count:05}"


def shards_of(folder: str | os.PathLike) -> dict[int, list[int]]:
    """Numbers of the finished shards in a folder, by the total count in their names."""
    numbers = {}
    for entry in sorted(Path(folder).glob(f"shard-*-of-*/{HEADER}")):
        if match := SHARD_NAME.fullmatch(entry.parent.name):
            numbers.setdefault(int(match[2]), []).extend([int(match[1])] if _is_complete(entry.parent) else [])
    return numbers


def _is_complete(shard: Path) -> bool:
    """Whether a shard is finished; a damaged one counts as finished, and opening it raises the error."""
    try:
        return read_header(shard).get("complete", True) is not False
    except (OSError, ValueError):
        return True


def is_index(path: str | os.PathLike) -> bool:
    """Whether a folder holds a saved index or shards of one."""
    return (Path(path) / HEADER).is_file() or bool(shards_of(path))


def check_shard_target(folder: str | os.PathLike, count: int) -> None:
    """Refuses a folder in which a shard would touch anything but its siblings.

    Raises:
        ValueError: there is a whole index, an index of another count of shards, or something else.
        OSError: the folder cannot be listed.
    """
    folder = Path(folder)
    check_target(folder, sharded=True)
    others = [other for other in shards_of(folder) if other != count]
    if others:
        raise ValueError(f"{folder}: holds shards of {others[0]}, not of {count}; choose another folder.")


def list_shards(folder: str | os.PathLike, count: int) -> bool:
    """Lists the shards of a folder as one index if all exist; returns whether they do."""
    if len(shards_of(folder).get(count, ())) < count:
        return False
    merge(folder, [shard_folder(folder, number, count) for number in range(1, count + 1)])
    return True


def merge(folder: str | os.PathLike, shards: list) -> int:
    """Lists indices as one; they stay where they are.

    Args:
        folder: for the list; a shard below it, or on the same disk, may move together with it.
        shards: folders of indices that one checkpoint made.
    Returns:
        Number of pieces.
    Raises:
        ValueError: one is not an index, or they do not belong together.
        OSError: one cannot be read, or the list cannot be written.
    """
    folder = Path(folder)
    check_target(folder, sharded=True)
    opened = [load_shard(shard) for shard in shards]
    saved = _together(folder, shards, opened)
    _refuse_doubles(shards, [content for content, _ in opened])
    folder.mkdir(parents=True, exist_ok=True)
    names = [Path(os.path.relpath(os.path.abspath(shard), os.path.abspath(folder))).as_posix() for shard in shards]
    write_header(folder, {"shards": names}, IndexMetadata(saved.fingerprint, saved.transcribed, [], saved.complete))
    return sum(len(content) for content, _ in opened)


def load_shards(path: str | os.PathLike, verify: bool | None = None) -> tuple[list[IndexShard], IndexMetadata]:
    """Opens an index; its format is decided here: a single index, shards, or the parquet files of a Ray job.

    Raises:
        ValueError: it is not an index, is damaged, or lacks shards.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.is_dir() and not (path / HEADER).is_file():
        for count, numbers in shards_of(path).items():
            missing = sorted({*range(1, count + 1)} - {*numbers})
            raise ValueError(
                f"{path}: {len(numbers)} of {count} shards are finished; "
                + (f"run `pianobind index` with --shard {missing[0]}/{count} as well." if missing else _MERGE)
            )
    header = read_header(path)
    if "parquet" in header:
        content, saved = _load_parquet(path, header)
        return [content], saved
    if "shards" not in header:
        content, saved = load_shard(path, verify)
        return [content], saved
    names = header["shards"]
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(name, str) and len(name) < 1000 for name in names)
    ):
        raise ValueError(f"{path}: {HEADER} is not the header of an index, or damaged; {AGAIN}.")
    shards = [path / name for name in names]
    for shard in shards:
        if not os.path.isfile(shard / HEADER):  # False for names that no file can have, too
            raise ValueError(f"{path}: the index is incomplete (its shard {shard} is missing); make that shard again.")
    opened = [load_shard(shard, verify) for shard in shards]
    return [content for content, _ in opened], _together(path, shards, opened)


_MERGE = "make them one index with `pianobind index --merge`."


def _together(
    path: Path, shards: list[str | os.PathLike], opened: list[tuple[IndexShard, IndexMetadata]]
) -> IndexMetadata:
    """Metadata of all shards; refuses shards of different checkpoints or settings."""
    first = opened[0][1]
    for shard, (_, saved) in zip(shards, opened, strict=True):
        if (saved.fingerprint, saved.transcribed) != (first.fingerprint, first.transcribed):
            raise ValueError(
                f"{path}: its shards {shards[0]} and {shard} were made by different checkpoints, or one with "
                f"--transcribe and one without; make one of them again."
            )
    if len({content.embeds.shape[1] for content, _ in opened if len(content)}) > 1:
        raise ValueError(f"{path}: its shards have embeddings of different width; {AGAIN}.")
    with damage(path):
        failures = sorted((failure for _, saved in opened for failure in saved.failures), key=str)
    complete = all(saved.complete for _, saved in opened)
    return IndexMetadata(first.fingerprint, first.transcribed, failures, complete)


def _refuse_doubles(shards: list[str | os.PathLike], contents: list[IndexShard]) -> None:
    """Refuses a file in two indices, which would be two hits."""
    holder = {}
    for shard, content in zip(shards, contents, strict=True):
        for name in content.table.paths:
            if holder.setdefault(name, shard) != shard:
                raise ValueError(f"{shard}: holds {name}, which {holder[name]} holds too; leave one of the two out.")


def write_parquet_header(folder: str | os.PathLike, saved: IndexMetadata) -> None:
    """Writes the header that makes the parquet files of a Ray job an index."""
    files = sorted(Path(folder).glob("*.parquet"))
    stored = [{"name": file.name, "bytes": file.stat().st_size} for file in files]
    write_header(folder, {"parquet": stored}, saved)


def _load_parquet(path: Path, header: dict) -> tuple[IndexShard, IndexMetadata]:
    """Reads the parquet files of a Ray job into memory; `EmbeddingIndex.save` makes a memory-mapped index of them.

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
            for batch in pyarrow.parquet.ParquetFile(path / name).iter_batches(columns=PARQUET_COLUMNS):
                rows += [_row(row) for row in batch.to_pylist() if not row["error"]]
    with damage(path):
        content = IndexShard.of(FileTable.from_rows(sorted(rows, key=lambda row: row[0])))
    content.source = str(path)
    return content, IndexMetadata.of(header)


def parquet_row(row: FileRow, error: str = "") -> dict:
    """A row as a Ray job writes it, with the `error` of a file that could not be read."""
    line = NoteLine.of(row.notes)
    arrays = {
        "embedding": (row.embedding, "<f4"),
        "windows": (row.windows, "<f2"),
        "spans": (row.spans, "<f8"),
        "facts": (row.facts, "<f4"),
        "measures": (np.zeros((0, 2)) if row.measures is None else row.measures, "<i4"),
        "pitches": (line.pitch, "u1"),
        "onsets": (line.onset, "<f4"),
    }
    content = {name: np.asarray(array).astype(kind).tobytes() for name, (array, kind) in arrays.items()}
    named = {"path": os.fsencode(row.path), "piece": os.fsencode(row.piece), "names": row.names}
    return named | content | {"content_hash": row.content_hash, "error": error}


def _row(row: dict) -> FileRow:
    """The opposite of `parquet_row`."""
    embedding = np.frombuffer(row["embedding"], "<f4")
    windows = np.frombuffer(row["windows"], "<f2").reshape(-1, len(embedding))
    spans = np.frombuffer(row["spans"], "<f8").reshape(len(windows), 2)
    file_row = FileRow(
        os.fsdecode(row["path"]), os.fsdecode(row["piece"]), row["content_hash"], embedding, windows, spans
    )
    if "facts" not in row:
        return file_row
    measures = np.frombuffer(row["measures"], "<i4").reshape(-1, 2)
    return file_row._replace(
        notes=NoteLine(np.frombuffer(row["pitches"], "u1"), np.frombuffer(row["onsets"], "<f4")),
        measures=measures if len(measures) == len(windows) else None,
        facts=tuple(np.frombuffer(row["facts"], "<f4").tolist()) or NO_FACTS,
        names=row["names"],
    )


__all__ = [
    "PARQUET_COLUMNS",
    "check_shard_target",
    "in_shard",
    "is_index",
    "list_shards",
    "load_shards",
    "merge",
    "parquet_row",
    "shard_folder",
    "write_parquet_header",
]
