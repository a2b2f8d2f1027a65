"""The folder that an EmbeddingIndex is saved in.

`index.json` names the two data files and their SHA-256; `rows-*.parquet` has a row for each file,
`embeddings-*.safetensors` the numbers. Data files carry their hash in the name and the header is replaced last, in one
step: whatever interrupts a save, the folder holds either the old index or the new one, complete.
"""

import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np

FORMAT, FORMAT_VERSION = "pianobind-index", 1
HEADER = "index.json"
AGAIN = "build the index again"


def is_index(path) -> bool:
    """Whether a folder looks like a saved index."""
    return (Path(path) / HEADER).is_file()


def check_target(path) -> None:
    """Refuses a place where saving an index would touch anything else.

    Raises:
        ValueError: there is a file, or a folder that holds other things.
        OSError: the folder cannot be listed.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: there is a file of that name; choose another folder for the index.")
    if path.is_dir() and any(path.iterdir()) and not is_index(path):
        raise ValueError(f"{path}: the folder holds something else than an index; choose a new or an empty one.")


def save_table(path, table, fingerprint: str, failures: list[dict], transcribed: bool) -> None:
    """Writes a `FileTable`; see `EmbeddingIndex.save`."""
    path = Path(path)
    check_target(path)
    path.mkdir(parents=True, exist_ok=True)
    old = _stored_names(path)

    import pyarrow
    import pyarrow.parquet
    from safetensors.numpy import save

    columns = {
        # As bytes, since a file name need not be valid Unicode.
        "path": pyarrow.array([os.fsencode(name) for name in table.paths], pyarrow.binary()),
        "piece": pyarrow.array([os.fsencode(name) for name in table.pieces], pyarrow.binary()),
        "content_hash": pyarrow.array(table.hashes, pyarrow.string()),
        "first_window": pyarrow.array(table.bounds[:-1], pyarrow.int64()),
    }
    rows = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), rows)
    arrays = {"files": table.embeds, "windows": table.windows, "spans": table.spans}
    embeddings = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    stored = {
        "rows": _store(path, "rows", ".parquet", rows.getvalue().to_pybytes()),
        "embeddings": _store(path, "embeddings", ".safetensors", embeddings),
    }
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dim": table.embeds.shape[1],
        "files": len(table.paths),
        "checkpoint_fingerprint": fingerprint,
        "transcribed": transcribed,
        "stored": stored,
        "failures": failures,
    }
    _replace(path / HEADER, json.dumps(header, indent=1).encode())
    for name in old - {entry["name"] for entry in stored.values()}:
        (path / name).unlink(missing_ok=True)


def load_table(path) -> tuple[dict, str, list[dict], bool]:
    """Reads what `save_table` wrote: the columns of a `FileTable`, fingerprint, failures, whether transcribed."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(2, os.strerror(2), str(path))
    if not is_index(path):
        raise ValueError(f"{path}: is not a saved index (it has no {HEADER}); give the folder that `save` wrote.")
    header = _header(path)

    import pyarrow
    import pyarrow.parquet
    from safetensors.numpy import load

    content = {name: _stored(path, entry) for name, entry in header["stored"].items()}
    try:
        rows = pyarrow.parquet.read_table(pyarrow.BufferReader(content["rows"]))
        arrays = load(content["embeddings"])
        embeds, windows, spans = arrays["files"], arrays["windows"], arrays["spans"]
        paths, pieces = ([os.fsdecode(name.as_py()) for name in rows[column]] for column in ("path", "piece"))
        bounds = np.append(rows["first_window"].to_numpy(), len(windows))
        columns = {"paths": paths, "pieces": pieces, "hashes": rows["content_hash"].to_pylist(), "embeds": embeds}
        columns |= {"windows": windows, "spans": spans, "bounds": bounds}
    except (KeyError, ValueError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path}: the index is damaged ({error}); {AGAIN}.") from error
    same = len({len(paths), len(embeds), header["files"]}) == 1 and len(windows) == len(spans)
    if not same or embeds.shape[1] != header["dim"] or windows.shape[1] != header["dim"]:
        raise ValueError(
            f"{path}: the index is damaged (its header says {header['files']} files of {header['dim']} dimensions, "
            f"its data {len(paths)} of {embeds.shape[1]}); {AGAIN}."
        )
    return columns, header["checkpoint_fingerprint"], header["failures"], header.get("transcribed", False)


def write_embeddings(target, paths: list[str], embeds: np.ndarray) -> None:
    """Writes paths and their embeddings `(n, dim)` to one .npz or .parquet file, by the extension of `target`."""
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
    _replace(target, out.getvalue())


def _header(path) -> dict:
    try:
        header = json.loads((path / HEADER).read_bytes())
        known = header["format"] == FORMAT
        version = header["format_version"]
        for key in ("dim", "files", "checkpoint_fingerprint", "stored", "failures"):
            header[key]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {HEADER} is not the header of an index, or damaged; {AGAIN}.") from error
    if not known or version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: {HEADER} says {header['format']!r} version {version}, not {FORMAT!r} version {FORMAT_VERSION}; "
            f"{AGAIN}."
        )
    return header


def _stored_names(path) -> set[str]:
    """Data files of the index that is there already; none where it cannot be understood."""
    try:
        return {entry["name"] for entry in _header(path)["stored"].values()}
    except (OSError, ValueError):
        return set()


def _store(path, kind, extension, content: bytes) -> dict:
    digest = hashlib.sha256(content).hexdigest()
    name = f"{kind}-{digest[:16]}{extension}"
    _replace(path / name, content)
    return {"name": name, "sha256": digest}


def _replace(target: Path, content: bytes) -> None:
    """Writes a file under a temporary name, then gives it its own in one step."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _stored(path, entry) -> bytes:
    file = path / entry["name"]
    if not file.is_file():
        raise ValueError(f"{path}: the index is incomplete ({entry['name']} is missing); {AGAIN}.")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ValueError(f"{path}: the index is damaged ({entry['name']} was cut off or changed); {AGAIN}.")
    return content


__all__ = ["check_target", "is_index", "load_table", "save_table", "write_embeddings"]
