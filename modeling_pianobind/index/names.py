"""Names of pieces: their paths, titles, composers and other metadata, ranked against a query's words by BM25."""

import csv
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..inputs_pianobind import EXTENSIONS

if TYPE_CHECKING:
    from .embedding_index import EmbeddingIndex

METADATA_FILES = ("metadata.jsonl", "metadata.csv", "examples.jsonl")
FILE_COLUMNS = ("file_name", "file", "path")  # `file_name` as in the data sets of Hugging Face
CREATOR_COLUMNS = ("creator", "composer", "artist")
MAX_COLUMN_CHARACTERS = 300  # longer values are texts about a piece, not names
# Words of many names or queries; a name is not found by them alone.
COMMON = frozenset(
    re.findall(
        r"\w+",
        """
a an and are as at by for from in is it its like me my of on or piece pieces song songs music some something that the
this to with piano midi mid wav mp3 flac ogg track recording please find
""",
    )
)
TERM_SATURATION, LENGTH_WEIGHT = 0.3, 0.2  # a word counts nearly the same however often, and in names of any length


def words_of(text: str) -> list[str]:
    """The words of a name or query: lower case, without accents, split at capitals inside a word."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return [word for word in re.findall(r"[^\W_]+", plain) if word not in COMMON]


def read_metadata(folder: str | os.PathLike) -> dict[str, dict[str, str]]:
    """Columns about files, by their path below the folder, from `metadata.jsonl`, `metadata.csv` or `examples.jsonl`.

    Args:
        folder: one without such a file has no metadata.
    Raises:
        ValueError: such a file is damaged.
        OSError: it cannot be read.
    """
    for name in METADATA_FILES:
        path = Path(folder) / name
        if not path.is_file():
            continue
        try:
            with path.open(encoding="utf-8-sig", newline="") as lines:
                rows = (
                    list(csv.DictReader(lines))
                    if name.endswith(".csv")
                    else [json.loads(line) for line in lines if line.strip()]
                )
            return dict(_by_file(rows))
        except (ValueError, csv.Error, AttributeError) as error:
            raise ValueError(f"{path}: is damaged ({' '.join(str(error).split())}); repair or remove it.") from error
    return {}


def _by_file(rows: Iterable[dict]) -> Iterator[tuple[str, dict[str, str]]]:
    for row in rows:
        file = next((row[column] for column in FILE_COLUMNS if isinstance(row.get(column), str)), None)
        if file is not None:
            yield (
                os.path.normpath(file),
                {
                    column: value
                    for column, value in row.items()
                    if column not in FILE_COLUMNS
                    and isinstance(value, str)
                    and 0 < len(value) <= MAX_COLUMN_CHARACTERS
                },
            )


def titles(folder: str | os.PathLike) -> dict[str, tuple[str, str]]:
    """Title and creator by a file's path below the folder, of the files that a metadata file names; "" for neither.

    Args:
        folder: one without a metadata file has no titles.
    Raises:
        ValueError, OSError: as `read_metadata`.
    """
    by_file = {}
    for file, columns in read_metadata(folder).items():
        columns = {name.lower(): value for name, value in columns.items()}
        creator = next((columns[name] for name in CREATOR_COLUMNS if name in columns), "")
        by_file[file] = columns.get("title", ""), creator
    return by_file


class NameIndex:
    """Names of pieces, to be ranked.

    Args:
        names (`Sequence[str]`): one a piece; what `names_of` gives.
    """

    def __init__(self, names: Sequence[str]):
        import bm25s

        words = [words_of(name) or [""] for name in names]
        self._ranker = bm25s.BM25(k1=TERM_SATURATION, b=LENGTH_WEIGHT)
        self._ranker.index(words, show_progress=False)
        self._counts = {}
        for name_words in words:
            for word in set(name_words):
                self._counts[word] = self._counts.get(word, 0) + 1
        self._pieces = len(words)

    def coverage(self, query: str) -> np.ndarray:
        """Share of a query's words in each name, weighted by rarity: `(pieces,)`, 0 to 1."""
        words = list(dict.fromkeys(words_of(query)))
        known = [word for word in words if word in self._counts]
        if not known:
            return np.zeros(self._pieces)
        counts = np.array([self._counts.get(word, 0) for word in words])
        # BM25's weight of each word, also of those that stand in no name.
        full_score = np.log(1 + (self._pieces - counts + 0.5) / (counts + 0.5)).sum() / (1 + TERM_SATURATION)
        return np.clip(self._ranker.get_scores(known) / max(full_score, 1e-9), 0, 1)


def names_of(index: "EmbeddingIndex", folder: str | os.PathLike | None = None) -> list[str]:
    """A name for each piece of an index: path below the common folder, names in its files, and metadata.

    Args:
        index (`EmbeddingIndex`): whose pieces.
        folder (*optional*): where a metadata file lies; the pieces' common folder by default.
    """
    paths = index.paths
    common = folder or common_folder(paths)
    metadata = read_metadata(common) if common else {}
    names = []
    for path, inside in zip(paths, index.names, strict=True):
        below = os.path.relpath(path, common) if common else path
        about = metadata.get(os.path.normpath(below)) or metadata.get(os.path.basename(path), {})
        names.append(" ".join((os.path.splitext(below)[0], inside, *about.values())))
    return names


def display_names(paths: Sequence[str], folder: str | os.PathLike | None) -> list[tuple[str, str]]:
    """Title and subtitle of each piece, for people: from a metadata file if listed there, else from the file's name.

    Args:
        folder: where a metadata file lies, and the pieces below it; None for neither.
    Raises:
        ValueError, OSError: as `read_metadata`.
    """
    known, names = titles(folder) if folder else {}, []
    for path in paths:
        modality = EXTENSIONS.get(os.path.splitext(path)[1].lower())
        kind = {"midi": "MIDI", "score": "score"}.get(modality, "recording")
        below = os.path.relpath(path, folder) if folder else os.path.basename(path)
        title, creator = known.get(os.path.normpath(below)) or known.get(os.path.basename(path), ("", ""))
        stem = os.path.splitext(os.path.basename(path))[0].replace("_", " ").strip()
        details = (creator, os.path.dirname(below), kind)
        names.append((title or stem, " · ".join(detail for detail in details if detail)))
    return names


def common_folder(paths: Sequence[str]) -> str | None:
    """The folder that all paths lie below; None where there is none."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths]) or None
    except ValueError:  # no path, or several disks
        return None


__all__ = ["NameIndex", "common_folder", "display_names", "names_of", "read_metadata", "titles", "words_of"]
