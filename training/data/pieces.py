"""A piece of a corpus before its music is opened, and the safe reading of tables and archives that say of it."""

import contextlib
import csv
import gzip
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet

MAX_MEMBER_BYTES = 1 << 30  # bytes; larger archive members are not music
TEXT_COLUMNS = (
    "captions",
    "caption",
    "description",
    "text",
)  # a text may hold any sign: several of them are written as JSON
TAG_COLUMNS = ("tags", "genre", "mood", "style")  # several are written as JSON, or with ; or , between them


@dataclass
class Piece:
    """A piece of a corpus, before its files are opened.

    Attributes:
        piece_id (`str`): unique in the dataset.
        source (`str`): the corpus.
        midi, audio (`Path | None`): files; at least one.
        midi_origin (`str`): "real", or "transcribed" if the corpus made its MIDI from recordings.
        labels (`dict`): licence, tier, song, split, captions, tags, and any label of the corpus.
        collection (`str`): the folder whose metadata name the song; two collections may name one song differently.
        problem (`str`): why the piece cannot be read, if already known.
    """

    piece_id: str
    source: str
    midi: Path | None = None
    audio: Path | None = None
    midi_origin: str = "real"
    labels: dict = field(default_factory=dict)
    collection: str = ""
    problem: str = ""


def read_table(path: Path) -> Iterator[dict]:
    """Rows of a CSV, JSON-lines (also gzipped) or parquet file as dicts; empty cells are left out.

    Raises:
        ValueError: the file or a line of it is damaged; the message names it.
    """
    try:
        rows = list(_raw_rows(path))
    except (UnicodeDecodeError, csv.Error, OSError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as UTF-8 {path.suffix} ({error}); save it again.") from error
    for row in rows:
        if None in row:
            raise ValueError(f"{path}: a row has more cells than the header; quote texts that hold commas.")
        yield {
            column: _as_list(column, value) if column in TEXT_COLUMNS + TAG_COLUMNS else value
            for column, value in row.items()
            if value is not None and value != "" and value != [] and value == value  # NaN means missing
        }


def _raw_rows(path: Path) -> Iterator[dict]:
    if path.suffix == ".parquet":
        try:
            yield from pyarrow.parquet.read_table(path).to_pylist()
        except pyarrow.ArrowException as error:
            raise ValueError(f"{path}: cannot be read as parquet ({error}); save it again.") from error
    elif path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as lines:
            yield from csv.DictReader(lines)
    else:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    yield dict(json.loads(line))
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{path}: line {number} is not a JSON object ({error}); correct it.") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error}); fetch it again.") from error


def _as_list(column: str, value: object) -> list[str]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, str):
        value = re.split("[;,]", value) if column in TAG_COLUMNS else [value]
    values = value if isinstance(value, (list, tuple)) else [value]
    return [str(value).strip() for value in values if str(value).strip()]


def path_inside(folder: Path, name: str) -> Path:
    """The file `name` below `folder`.

    Raises:
        ValueError: `name` leads out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"{name!r} leads out of its folder; names in metadata and archives must stay inside.")
    return folder / path


def unpack(archive: Path, names: set[str], folder: Path) -> None:
    """Writes the named members of a tar archive below `folder`; no other member is touched.

    Raises:
        ValueError: the archive is damaged, or a wanted member leads out of the folder, is a link or is too large.
    """
    try:
        with tarfile.open(archive) as members:
            for member in members:
                if member.name not in names:
                    continue
                target = path_inside(folder, member.name)
                if not member.isfile() or member.size > MAX_MEMBER_BYTES:
                    raise ValueError(f"{archive}: {member.name} is not a plain file, or is too large; pack it again.")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(members.extractfile(member).read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{archive}: cannot be unpacked ({error}); copy it again.") from error


__all__ = ["Piece", "path_inside", "read_json", "read_table", "unpack"]
