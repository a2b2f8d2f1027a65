"""A table of labels, and which pieces of a folder they belong to."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from modeling_pianobind.inputs_pianobind import MIDI_EXTENSIONS, list_files, piece_of

FILE_COLUMNS = ("file", "path", "filename", "name", "id", "midi", "audio")
SONG_COLUMN = "song"
SHOWN = 3  # names in a line about many


@dataclass
class Labels:
    """Labels of pieces.

    Attributes:
        pieces (`list[int]`): places of the labelled pieces among those that were asked for.
        values (`list[str]`): what the table says of each.
        songs (`list[str]`): the song of each; pieces of a song are never both learnt from and measured on.
        problems (`list[str]`): a line for each kind of row that was left out.
    """

    pieces: list[int]
    values: list[str]
    songs: list[str]
    problems: list[str]

    def keep(self, kept: Sequence[bool]) -> "Labels":
        """Those for which `kept` is true."""
        chosen = np.flatnonzero(kept)
        lists = ([values[place] for place in chosen] for values in (self.pieces, self.values, self.songs))
        return Labels(*lists, self.problems)


def read_labels(table: str | Path, column: str, paths: list[str], folder: str | Path = "") -> Labels:
    """Reads one column of a CSV file.

    A row names its file in the first column that is called as `FILE_COLUMNS` say, by its path below the folder or by
    its name; the extension may be left out. The column `song`, if there is one, says which rows are versions of each
    other. An empty label is none.

    Args:
        paths (`list[str]`): of the pieces.
        folder: below which paths are written.
    Raises:
        ValueError: a column is missing, two rows contradict each other, or no row belongs to a piece.
        OSError: the table cannot be read.
    """
    rows = _read(table)
    columns = list(rows[0])
    if column not in columns:
        raise ValueError(f"{table}: has no column {column!r}, only {', '.join(columns)}; name one by --label-column.")
    named_by = next((name for name in FILE_COLUMNS if name in columns), None)
    if named_by is None:
        raise ValueError(f"{table}: has no column that names files; call it one of {', '.join(FILE_COLUMNS)}.")
    places = _places(paths, folder)
    labelled, absent, unlabelled, contradicted = {}, [], 0, []
    for row in rows:
        name, label = (str(row[header] or "").strip() for header in (named_by, column))
        place = places.get(piece_of(os.path.normpath(name)))
        if place is None:
            absent.append(name)
        elif not label:
            unlabelled += 1
        elif labelled.setdefault(place, (label, row))[0] != label:
            contradicted.append(name)
    if contradicted:
        raise ValueError(f"{table}: {_few(contradicted)} has two different labels; keep one of them.")
    if not labelled:
        where = f"files of {folder}" if folder else "pieces"
        raise ValueError(f"{table}: none of its {len(rows)} rows is of the {where} and labelled; check {named_by!r}.")
    problems = []
    if absent:
        problems.append(
            f"{table}: {len(absent)} rows name files that are not in {folder} ({_few(absent)}); correct them."
        )
    if unlabelled:
        print(f"{table}: {unlabelled} rows have no {column} and are left out")
    songs = [str(row.get(SONG_COLUMN) or f"piece {place}") for place, (_, row) in labelled.items()]
    return Labels(list(labelled), [label for label, _ in labelled.values()], songs, problems)


def without_rare(labels: Labels, table: str | os.PathLike) -> Labels:
    """Leaves out classes of a single song, which cannot be both learnt and measured.

    Raises:
        ValueError: fewer than two classes are left.
    """
    songs = {label: len({song for value, song in zip(labels.values, labels.songs, strict=True) if value == label})
             for label in set(labels.values)}  # fmt: skip
    rare = sorted(label for label, count in songs.items() if count < 2)
    if len(songs) - len(rare) < 2:
        counts = ", ".join(f"{label} {count}" for label, count in Counter(labels.values).most_common(SHOWN))
        raise ValueError(f"{table}: a classifier needs two labels of two songs each (there is {counts}); label more.")
    kept = labels.keep([label not in rare for label in labels.values])
    if rare:
        kept.problems.append(f"{table}: {_few(rare)} has one song only and is left out; label another, or merge it.")
    return kept


def as_numbers(labels: Labels, table: str | os.PathLike) -> np.ndarray:
    """The values as numbers `(pieces, 1)`.

    Raises:
        ValueError: one is no number, or all are the same.
    """
    try:
        numbers = np.array([[float(value) for value in labels.values]]).T
    except ValueError as error:
        raise ValueError(f"{table}: a label is no number ({error}); leave out --regression, or correct it.") from error
    if not np.isfinite(numbers).all() or np.ptp(numbers) == 0:
        raise ValueError(f"{table}: all labels are the same number, or one is infinite; there is nothing to learn.")
    return numbers


def as_classes(labels: Labels) -> tuple[np.ndarray, list[str]]:
    """The number of each piece's class `(pieces,)`, and the names of the classes."""
    names = sorted(set(labels.values))
    return np.array([names.index(value) for value in labels.values]), names


def midi_classes(
    folder: str | os.PathLike, table: str | os.PathLike, column: str
) -> tuple[list[tuple[str, int]], list[tuple[str, int]], list[str]]:
    """The labelled MIDI files of a folder with the numbers of their classes, four fifths of the songs and one fifth.

    Returns:
        `(path, class)` to learn from, `(path, class)` to measure on, and the names of the classes.
    Raises:
        ValueError, OSError: as `read_labels` and `without_rare`.
    """
    files = [path for path in list_files(folder) if path.lower().endswith(MIDI_EXTENSIONS)]
    labels = without_rare(read_labels(table, column, files, folder), table)
    classes, names = as_classes(labels)
    pieces = [(files[place], int(number)) for place, number in zip(labels.pieces, classes, strict=True)]
    split = GroupShuffleSplit(1, test_size=0.2, random_state=0)
    train, valid = ([pieces[row] for row in rows] for rows in next(split.split(pieces, groups=labels.songs)))
    return train, valid, names


def as_sets(labels: Labels, separator: str, table: str | os.PathLike) -> tuple[np.ndarray, list[str]]:
    """Which labels each piece has, `(pieces, labels)` of 0 and 1, and their names; those of few songs are left out.

    Raises:
        ValueError: no label is there that two songs have and two have not.
    """
    sets = [{part.strip() for part in value.split(separator) if part.strip()} for value in labels.values]
    names = []
    for name in sorted(set().union(*sets)):
        songs = {True: set(), False: set()}
        for own, song in zip(sets, labels.songs, strict=True):
            songs[name in own].add(song)
        if min(map(len, songs.values())) >= 2:
            names.append(name)
    if not names:
        raise ValueError(f"{table}: no label is there that two songs have and two have not; label more.")
    return np.array([[float(name in own) for name in names] for own in sets]), names


def _read(table: str | os.PathLike) -> list[dict]:
    with open(table, newline="", encoding="utf-8-sig") as stream:
        try:
            rows = list(csv.DictReader(stream))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{table}: is no CSV in UTF-8 ({error}); save it again as such.") from error
    if not rows:
        raise ValueError(f"{table}: has no rows; it needs a line of column names and one for each file.")
    return rows


def _places(paths: list[str], folder: str | os.PathLike | None) -> dict[str, int]:
    """What a row may call a piece -> its place; a bare name only where one piece has it."""
    names = {}
    for place, path in enumerate(paths):
        piece = piece_of(path)
        for name in {piece, os.path.relpath(piece, folder or "."), os.path.basename(piece)}:
            names.setdefault(name, set()).add(place)
    return {name: next(iter(places)) for name, places in names.items() if len(places) == 1}


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" and others" if len(names) > SHOWN else "")


__all__ = ["Labels", "as_classes", "as_numbers", "as_sets", "midi_classes", "read_labels", "without_rare"]
