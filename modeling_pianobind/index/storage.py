"""The files of a saved EmbeddingIndex.

`index.json` names the two data files with their size and SHA-256; `rows-*.parquet` has a row for each file,
`embeddings-*.safetensors` the arrays, which are memory-mapped. Data files carry their hash in the name, and the
header is replaced last, atomically: after an interrupted save the folder holds either the old index or the new one.
The next save removes leftover files.
"""

import hashlib
import io
import itertools
import json
import os
import re
import reprlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..atomic_file import replace_file, sync, temporary_beside
from .folder_lock import folder_lock
from .table import FileTable, IndexShard

if TYPE_CHECKING:
    import pyarrow.parquet

FORMAT, FORMAT_VERSION = "pianobind-index", 2
HEADER = "index.json"
TEMPORARY = re.compile(r"\.(rows|embeddings|index\.json)\.\d+")
AGAIN = "build the index again"
HASHED_BYTES = 32 << 20  # data files up to this size are hashed when an index is opened
GROUP_ROWS = 8_192  # rows of the parquet file that are read at once
GROUPS_KEPT = 4
NOTE_ARRAYS = ("measures", "pitches", "onsets", "note_bounds")
DTYPES = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "F64": np.dtype("<f8"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}


@dataclass
class IndexMetadata:
    """Metadata of an index in its header."""

    fingerprint: str
    transcribed: bool
    failures: list[dict]
    complete: bool = True  # False if it was saved before the folder was done

    @classmethod
    def of(cls, header: dict) -> "IndexMetadata":
        transcribed, complete = header.get("transcribed", False), header.get("complete", True)
        return cls(header["checkpoint_fingerprint"], transcribed, header["failures"], complete)


class MappedNames(Sequence):
    """Paths as one memory-mapped byte array with bounds: reading one path reads no other."""

    def __init__(self, content: np.ndarray, bounds: np.ndarray):
        self._content, self._bounds = content, bounds

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, row: int) -> str:
        return os.fsdecode(self._content[self._bounds[row] : self._bounds[row + 1]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))


class StoredColumn(Sequence):
    """A column of the parquet file, read by row groups on demand.

    Raises:
        ValueError: it is damaged.
    """

    def __init__(self, file: "pyarrow.parquet.ParquetFile", name: str, decode: Callable[[Any], str], source: Path):
        self._file, self._name, self._decode, self._source = file, name, decode, source
        metadata = file.metadata
        self._starts = np.cumsum(
            [0, *(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))]
        )
        self._lock = threading.Lock()
        self._group = lru_cache(GROUPS_KEPT)(self._read)

    def _read(self, group: int) -> list[str]:
        with self._lock, damage(self._source):
            return [self._decode(value) for value in self._file.read_row_group(group, [self._name])[0].to_pylist()]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> str:
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        return self._group(group)[row - self._starts[group]]

    def __iter__(self) -> Iterator[str]:
        for group in range(len(self._starts) - 1):
            yield from self._read(group)


def check_target(path: str | os.PathLike, sharded: bool = False) -> None:
    """Refuses a folder in which saving an index would touch other files.

    Args:
        sharded (`bool`): whether the index will be a list of shards.
    Raises:
        ValueError: there is a file, or a folder that holds other things.
        OSError: the folder cannot be listed.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: there is a file of that name; choose another folder for the index.")
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    shards = {name for name in names if name.startswith("shard-")}
    # Leftovers of a killed save are accepted: the next save starts from there.
    left = {name for name in names if _is_own(name) or TEMPORARY.fullmatch(name)}
    if names - shards - left and HEADER not in names:
        raise ValueError(f"{path}: the folder holds something else than an index; choose a new or an empty one.")
    if (sharded and any(map(_is_own, names))) or (shards and not sharded):
        kind = "in shards" if shards else "that is not a list of shards"
        raise ValueError(f"{path}: the folder holds an index {kind}; choose a new or an empty one.")


def save_shard(path: str | os.PathLike, shard: IndexShard, saved: IndexMetadata) -> None:
    """Writes a shard, with its int8 codes if it has any; see `EmbeddingIndex.save`."""
    path, table = Path(path), shard.table
    check_target(path)
    path.mkdir(parents=True, exist_ok=True)
    names = [os.fsencode(name) for name in table.paths]
    bounds = np.cumsum([0, *map(len, names)])
    arrays = {"names": np.frombuffer(b"".join(names) + b"\0", np.uint8), "name_bounds": bounds}
    arrays |= {"files": table.embeds, "windows": table.windows, "spans": table.spans, "bounds": table.bounds}
    arrays |= {name: getattr(table, name) for name in NOTE_ARRAYS}
    arrays |= {name: getattr(table, name) for name in ("stamps", "facts") if getattr(table, name) is not None}
    if shard.embeds is not table.embeds:
        arrays |= {"pieces": shard.embeds, "named_by": shard.named_by}
        arrays |= {} if shard.noted_by is None else {"noted_by": shard.noted_by}
    if shard.codes is not None:
        arrays |= {"codes": shard.codes, "scales": shard.scales}
    with _saving(path):
        stored = {
            "rows": _store(path, "rows", ".parquet", lambda handle: _write_rows(handle, table)),
            "embeddings": _store(path, "embeddings", ".safetensors", lambda handle: _write_arrays(handle, arrays)),
        }
        header = {"dim": table.embeds.shape[1], "files": len(table.paths), "stored": stored}
        _replace_header(path, header, saved)


def write_header(path: str | os.PathLike, content: dict, saved: IndexMetadata) -> None:
    """Replaces the header of an index atomically; `content` names its files."""
    with _saving(Path(path)):
        _replace_header(Path(path), content, saved)


def _replace_header(path: Path, content: dict, saved: IndexMetadata) -> None:
    about = {"checkpoint_fingerprint": saved.fingerprint, "transcribed": saved.transcribed, "failures": saved.failures}
    about |= {} if saved.complete else {"complete": False}
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, **content, **about}
    replace_file(path / HEADER, json.dumps(header, indent=1).encode())


@contextmanager
def _saving(path: Path) -> Iterator[None]:
    """Removes data files that the header does not name afterwards: the old index, or those of a failed save."""
    with folder_lock(path) as is_alone:
        old = _stored_names(path)
        try:
            yield
        finally:
            # Without a lock, an unnamed file may belong to another process that is still writing.
            left = {name for name in os.listdir(path) if _is_own(name) or TEMPORARY.fullmatch(name)}
            for name in (left if is_alone else old) - _stored_names(path):
                (path / name).unlink(missing_ok=True)


def load_shard(path: str | os.PathLike, verify: bool | None = None) -> tuple[IndexShard, IndexMetadata]:
    """Opens what `save_shard` wrote.

    Args:
        verify (`bool`, *optional*): compare the SHA-256 of the data files; by default only of files up to 32 MB.
            Sizes are always compared.
    """
    path = Path(path)
    header = read_header(path, ("dim", "files", "stored"))

    import pyarrow.parquet

    with damage(path):
        stored = [header["stored"][name] for name in ("rows", "embeddings")]
    rows, embeddings = (_checked(path, entry, verify) for entry in stored)
    with damage(path):
        file, arrays = pyarrow.parquet.ParquetFile(rows), _map_arrays(embeddings)
        columns = [MappedNames(arrays["names"], arrays["name_bounds"])]
        columns += [StoredColumn(file, "piece", os.fsdecode, path), StoredColumn(file, "content_hash", str, path)]
        embeds, windows, spans = arrays["files"], arrays["windows"], arrays["spans"]
        about = {name: arrays.get(name) for name in ("stamps", "facts")} | _note_arrays(arrays, len(embeds))
        if "names" in file.schema_arrow.names:
            about["names"] = StoredColumn(file, "names", str, path)
        table = FileTable(*columns, embeds, windows, spans, arrays["bounds"], **about)
        shard = IndexShard(table, arrays.get("pieces", embeds), arrays.get("named_by", np.arange(len(embeds))))
        shard.codes, shard.scales, shard.source = arrays.get("codes"), arrays.get("scales"), str(path)
        shard.noted_by = arrays.get("noted_by")
    files, dim = header["files"], header["dim"]
    wide = {array.shape[1:] for array in (embeds, windows, shard.embeds, shard.codes) if array is not None}
    shapes = {"stamps": (len(embeds), 3), "facts": (len(embeds), 4)}
    long = len(
        {
            len(shard.embeds),
            len(shard.named_by),
            *(len(array) for array in (shard.codes, shard.scales) if array is not None),
        }
    )
    if (
        {len(embeds), *map(len, columns)} != {files}
        or wide != {(dim,)}
        or spans.shape != (len(windows), 2)
        or any(arrays[name].shape != shape for name, shape in shapes.items() if name in arrays)
        or long != 1
    ):
        raise ValueError(
            f"{path}: the index is damaged (its header says {files} files of {dim} dimensions, its data "
            f"{len(columns[0])} of {embeds.shape[1:]}); {AGAIN}."
        )
    noted_by = shard.named_by if shard.noted_by is None else shard.noted_by
    fit = (
        _ordered(table.bounds, files, len(windows))
        and _ordered(table.note_bounds, files, len(table.pitches))
        and len(table.pitches) == len(table.onsets)
        and table.measures.shape == (len(windows), 2)
        and len(noted_by) == len(shard.named_by)
    )
    if not fit or any(len(rows) and (rows.min() < 0 or rows.max() >= files) for rows in (shard.named_by, noted_by)):
        raise ValueError(f"{path}: the index is damaged (its files do not match their windows); {AGAIN}.")
    return shard, IndexMetadata.of(header)


def _ordered(bounds: np.ndarray, files: int, total: int) -> bool:
    """Whether bounds share `total` rows among the files."""
    return len(bounds) == files + 1 and bounds[0] == 0 and bounds[-1] == total and bool((np.diff(bounds) >= 0).all())


def _note_arrays(arrays: dict, files: int) -> dict[str, np.ndarray]:
    """The arrays of `NOTE_ARRAYS`; an index of an earlier version has none, and no notes then."""
    if "note_bounds" in arrays:
        return {name: arrays[name] for name in NOTE_ARRAYS}
    return {
        "measures": np.zeros((len(arrays["windows"]), 2), np.int32),
        "note_bounds": np.zeros(files + 1, np.int64),
    }


@contextmanager
def damage(path: str | os.PathLike) -> Iterator[None]:
    """Turns a library's error about a damaged file into one line."""
    import pyarrow
    from safetensors import SafetensorError

    try:
        yield
    except (KeyError, IndexError, ValueError, TypeError, SafetensorError, pyarrow.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # an error of the disk; pyarrow's errors about content have no number
        raise ValueError(f"{path}: the index is damaged ({' '.join(str(error).split())}); {AGAIN}.") from error


def _write_rows(handle: BinaryIO, table: FileTable) -> None:
    import pyarrow
    import pyarrow.parquet

    # As bytes: file names need not be valid Unicode.
    fields = [("path", pyarrow.binary()), ("piece", pyarrow.binary()), ("content_hash", pyarrow.string())]
    rows = [map(os.fsencode, table.paths), map(os.fsencode, table.pieces), table.hashes]
    if table.names is not None:
        fields, rows = [*fields, ("names", pyarrow.string())], [*rows, table.names]
    rows = zip(*rows, strict=True)
    with pyarrow.parquet.ParquetWriter(handle, pyarrow.schema(fields)) as writer:
        while group := list(itertools.islice(rows, GROUP_ROWS)):
            columns = [
                pyarrow.array(column, kind) for column, (_, kind) in zip(zip(*group, strict=True), fields, strict=True)
            ]
            writer.write_table(pyarrow.table(columns, schema=writer.schema))


def _write_arrays(handle: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    """Writes a safetensors file to an open file, without copying the arrays, which may fill most of the memory.

    Measured with safetensors 0.8: `save_file` gives files of mode 0600, which hides an index from other users, and its
    error on a full disk has no errno. `safe_open(..., "numpy")` copies each array, so `_map_arrays` maps the file.
    """
    kinds = {dtype: name for name, dtype in DTYPES.items()}
    header, end = {}, 0
    # Wide types first, so that each array is aligned.
    arrays = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    for name, array in arrays:
        offsets, end = [end, end + array.nbytes], end + array.nbytes
        header[name] = {"dtype": kinds[array.dtype], "shape": array.shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    handle.write(len(text).to_bytes(8, "little") + text)
    for _, array in arrays:
        handle.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")


def _map_arrays(file: Path) -> dict[str, np.ndarray]:
    """Memory-maps the arrays of a safetensors file, copy on write."""
    from safetensors import safe_open

    with safe_open(file, "numpy"):
        pass  # validates the header against the size of the file
    with open(file, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
    header.pop("__metadata__", None)
    data = np.asarray(np.memmap(file, np.uint8, "c"))[8 + length :]
    arrays = {}
    for name, entry in header.items():
        numbers = data[slice(*entry["data_offsets"])].view(DTYPES[entry["dtype"]])
        arrays[name] = numbers.reshape(entry["shape"])
    return arrays


def write_embeddings(target: str | os.PathLike, paths: list[str], embeds: np.ndarray) -> None:
    """Writes paths and their embeddings `(n, dim)` to one .npz or .parquet file, by `target`'s extension."""
    target, out = Path(target), io.BytesIO()
    if target.suffix.lower() == ".npz":
        np.savez(out, paths=np.array(paths), embeddings=embeds)
    else:
        import pyarrow
        import pyarrow.parquet

        names = [os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths]
        flat = pyarrow.array(np.asarray(embeds, np.float32).ravel())
        columns = {"path": names, "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, embeds.shape[1])}
        pyarrow.parquet.write_table(pyarrow.table(columns), out)
    replace_file(target, out.getvalue())


def read_header(path: str | os.PathLike, keys: Sequence[str] = ()) -> dict:
    """The header of an index; `keys` are required."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(2, os.strerror(2), str(path))
    if not (path / HEADER).is_file():
        raise ValueError(f"{path}: is not a saved index (it has no {HEADER}); give the folder that `save` wrote.")
    try:
        header = json.loads((path / HEADER).read_bytes())
        known, version = header["format"] == FORMAT, header["format_version"]
        for key in (*keys, "checkpoint_fingerprint", "failures"):
            header[key]
        if not all(isinstance(header.get(key, 0), int) for key in ("dim", "files")):
            raise TypeError("a count is not a whole number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: {HEADER} is not the header of an index, or damaged; {AGAIN}.") from error
    if not known or version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: {HEADER} says {reprlib.repr(header['format'])} version {reprlib.repr(version)}, "
            f"not {FORMAT!r} version {FORMAT_VERSION}; {AGAIN}."
        )
    return header


def _stored_names(path: Path) -> set[str]:
    """Data files of the existing index; none if its header cannot be read."""
    try:
        names = {entry["name"] for entry in read_header(path, ("stored",))["stored"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    return {name for name in names if _is_own(name)}


def _is_own(name: object) -> bool:
    """Whether a name is that of a data file in the index's own folder: a header must not point elsewhere."""
    right = isinstance(name, str) and name.startswith(("rows-", "embeddings-")) and len(name) < 100
    return right and os.path.basename(name) == name


def _store(path: Path, kind: str, extension: str, write: Callable[[BinaryIO], None]) -> dict:
    """Writes a data file named by its hash."""
    with temporary_beside(path / kind) as temporary:
        with temporary.open("wb") as handle:
            write(handle)
        sync(temporary)
        digest = file_sha256(temporary)
        name = f"{kind}-{digest[:16]}{extension}"
        size = temporary.stat().st_size
        os.replace(temporary, path / name)
    return {"name": name, "bytes": size, "sha256": digest}


def file_sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file of any size."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _checked(path: Path, entry: dict, verify: bool | None) -> Path:
    """The path of a data file after a check against the header."""
    try:
        name, digest, size = entry["name"], entry["sha256"], entry.get("bytes")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {HEADER} is not the header of an index, or damaged; {AGAIN}.") from error
    if not _is_own(name):
        raise ValueError(f"{path}: {HEADER} names {reprlib.repr(name)}, which is not a file of an index; {AGAIN}.")
    file = path / name
    if not file.is_file():
        raise ValueError(f"{path}: the index is incomplete ({name} is missing); {AGAIN}.")
    actual = file.stat().st_size
    verify = actual <= HASHED_BYTES if verify is None else verify
    if size not in (None, actual) or (verify and file_sha256(file) != digest):
        raise ValueError(f"{path}: the index is damaged ({name} was cut off or changed); {AGAIN}.")
    return file


__all__ = [
    "IndexMetadata",
    "check_target",
    "damage",
    "load_shard",
    "read_header",
    "save_shard",
    "write_embeddings",
    "write_header",
]
