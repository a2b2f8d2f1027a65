"""The files below a folder -> their embeddings: scan, hash, embed what changed, keep what succeeded.

Nothing is lost: a file that cannot be read stops no other, and what is done is handed over to be saved every half
minute, and when Ctrl-C stops the work.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..decoding_pianobind import MissingDecoderError
from ..inputs_pianobind import (
    EXTENSIONS,
    content_hash,
    explain,
    gives_notes,
    list_files,
    piece_of,
)
from ..notes_pianobind import read_midi
from .facts import read_facts
from .note_alignment import NoteLine
from .shards import in_shard
from .table import NO_STAMP, Failure, FileRow

if TYPE_CHECKING:
    from ..embedding_pianobind import EmbeddedFile

# From the begin of a save of work in progress to that of the next. A kill costs no more than these and the time of a
# save: at most a minute, unless the index is so large, or the machine so busy, that a save takes half a minute.
SAVE_SECONDS = 30.0
SAVE_SHARE = 0.5  # of the time, that saving a huge index over and over may take
# A file that changed just before it was stamped may change again within the same tick of its file system's clock.
SETTLED_SECONDS = 2.0


@dataclass
class FolderContent:
    """The files of a folder.

    Attributes:
        rows (`list[FileRow]`): those that were embedded.
        failures (`list[Failure]`): the files that could not be read.
    """

    rows: list[FileRow] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


class Watch:
    """Progress callbacks; this base class ignores them."""

    def begin(self, doing: str, files: int) -> None:
        """Called before `files` files are processed; `doing` is "read" or "embedded"."""

    def step(self) -> None:
        """Called after each file."""


def embed_folder(
    folder: str | os.PathLike,
    previous: FolderContent,
    embed: Callable[[list[str]], Iterable],
    save: Callable[[FolderContent], None] | None = None,
    shard: tuple[int, int] | None = None,
    solo_only: bool = False,
    watch: Watch | None = None,
) -> FolderContent:
    """Embeds the files of a folder whose content `previous` does not hold.

    Args:
        folder: searched through all levels.
        previous (`FolderContent`): what the same checkpoint made in the same way.
        embed: takes a list of paths, yields `(position, EmbeddedFile)`; called only if there is work, so that a
            caller may load the model in it.
        save (*optional*): called with what is done, every half minute and when Ctrl-C stops the work.
        shard (`tuple[int, int]`, *optional*): number, from 1, and count: embed only this share of the pieces.
        solo_only (`bool`): whether `embed` refuses MIDI of several instruments.
        watch (`Watch`, *optional*): is called with the progress.
    Returns:
        `FolderContent`, sorted by path.
    Raises:
        ValueError: there is no music below the folder.
        OSError: the folder cannot be listed.
    """
    refused: list[OSError] = []
    paths = list_files(folder, refused)
    if not paths:
        raise ValueError(f"{folder}: there is no {' '.join(EXTENSIONS)} file in it; give a folder with music.")
    if shard is not None:
        paths = [path for path in paths if in_shard(piece_of(path), folder, *shard)]
        refused = [error for error in refused if in_shard(error.filename, folder, *shard)]
    watch = watch or Watch()
    state = _scan(paths, previous, solo_only, watch)
    state.failures += [Failure(error.filename, explain(error.filename, error)) for error in refused]
    watch.begin("embedded", len(state.changed))
    saved_at, pause = time.monotonic(), SAVE_SECONDS
    try:
        for position, file in embed(state.changed) if state.changed else ():
            state.keep(state.changed[position], file)
            watch.step()
            if save is not None and (begun := time.monotonic()) - saved_at > pause:
                save(state.content())
                saved_at, pause = begun, max(SAVE_SECONDS, (time.monotonic() - begun) / SAVE_SHARE)
    except KeyboardInterrupt:
        if save is not None:
            save(state.content())
        raise
    return state.content()


@dataclass
class _State:
    """State of an update: finished rows, failures, and files that are still to be embedded.

    Attributes:
        rows: by path.
        changed: paths that have to be embedded, with their content's hash in `hashes`.
        stamps: by path, as the file was before it was hashed.
        solo_only: as in `embed_folder`.
        begun: when the build began, in seconds of the system's clock.
    """

    solo_only: bool
    begun: float = field(default_factory=time.time)
    rows: dict[str, FileRow] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def content(self) -> FolderContent:
        failures = sorted(self.failures, key=lambda failure: failure.path)
        return FolderContent([self.rows[path] for path in sorted(self.rows)], failures)

    def keep(self, path: str, file: "EmbeddedFile") -> None:
        """Takes the `EmbeddedFile` of a path."""
        is_same = _stamp_of(path)[:2] == self.stamps[path][:2]
        if file.error is not None:
            # An OSError may pass until the next time, and a decoder be installed; an error in the content will not.
            passes = isinstance(file.error, (OSError, MissingDecoderError))
            kept = self.hashes[path] if is_same and not passes else ""
            stamp = self.settled(path) if kept else NO_STAMP
            message = explain(path, file.error)
            self.failures.append(Failure(path, message, _refused_as(kept, self.solo_only), stamp))
        elif not is_same:
            # Stored under the hash of the old content, the embedding would be found for any copy of that content.
            self.failures.append(Failure(path, f"{path}: changed or vanished while it was read; try it again."))
        else:
            windows = file.windows.astype(np.float16)
            row = FileRow(path, piece_of(path), self.hashes[path], file.embedding, windows, file.spans)
            facts, names = read_facts(path, file.spans, file.reading)
            row = row._replace(notes=NoteLine.of(file.notes), measures=file.measures)
            self.rows[path] = row._replace(stamp=self.settled(path), facts=facts, names=names)

    def settled(self, path: str) -> tuple[int, int, int]:
        """The stamp of a file; NO_STAMP if the file may have changed within the clock's resolution."""
        stamp = self.stamps[path]
        return stamp if max(stamp[1:]) / 1e9 < self.begun - SETTLED_SECONDS else NO_STAMP


def _refused_as(content_hash: str, solo_only: bool) -> str:
    """Key of a stored failure: a refusal by `--solo-only` does not count without that option."""
    return f"solo-only:{content_hash}" if content_hash and solo_only else content_hash


def _scan(paths: list[str], previous: FolderContent, solo_only: bool, watch: Watch) -> _State:
    """Reuses rows of `previous`: by size and times where these are unchanged, else by the content's hash."""
    known = {(row.content_hash, gives_notes(row.path)): row for row in previous.rows}
    failed = {(failure.path, failure.content_hash): failure for failure in previous.failures}
    stamped = {row.path: (tuple(row.stamp), row.content_hash) for row in previous.rows}
    for failure in previous.failures:
        stamped[failure.path] = tuple(failure.stamp), failure.content_hash.removeprefix("solo-only:")
    state = _State(solo_only)
    watch.begin("read", len(paths))
    with ThreadPoolExecutor() as pool:
        identities = pool.map(lambda path: _identify(path, *stamped.get(path, (NO_STAMP, ""))), paths)
        for path, identity in zip(paths, identities, strict=True):
            watch.step()
            if isinstance(identity, OSError):
                state.failures.append(Failure(path, explain(path, identity)))
                continue
            digest, state.stamps[path] = identity
            stamp = state.settled(path)
            refusal = failed.get((path, _refused_as(digest, solo_only)))
            row = known.get((digest, gives_notes(path)))
            if row is not None:
                row = _brought_up(row, path)
            if row is not None and solo_only and row.facts[3] > 0:
                row, refusal = None, _solo_refusal(path, digest, stamp)
            if row is not None:
                state.rows[path] = row._replace(path=path, piece=piece_of(path), stamp=stamp)
            elif refusal is not None:
                state.failures.append(Failure(path, refusal.message, refusal.content_hash, stamp))
            else:
                state.hashes[path] = digest
                state.changed.append(path)
    return state


def _brought_up(row: FileRow, path: str) -> FileRow:
    """Completes a row of an older index with facts, names and notes."""
    if np.isnan(row.facts[0]):
        facts, names = read_facts(path, row.spans)
        row = row._replace(facts=facts, names=names)
    if gives_notes(path) and not len(NoteLine.of(row.notes)):
        with suppress(OSError, ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when the file was embedded
            row = row._replace(notes=NoteLine.of(read_midi(path)))
    return row


def _solo_refusal(path: str, digest: str, stamp: tuple[int, int, int]) -> Failure | None:
    """What reading an ensemble's file says under `--solo-only`; None where it can be read after all."""
    try:
        read_midi(path, solo_only=True)
    except (ValueError, OSError) as error:
        return Failure(path, explain(path, error), _refused_as(digest, solo_only=True), stamp)
    return None


def _identify(path: str, stamp: tuple[int, int, int], known_hash: str) -> tuple[str, tuple[int, int, int]] | OSError:
    """A file's hash, and its stamp before it was hashed; or why it cannot be read."""
    try:
        before = _stamp(os.stat(path))
        if known_hash and stamp == before and os.access(path, os.R_OK):
            return known_hash, before
        return content_hash(path), before
    except OSError as error:
        return error


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _stamp_of(path: str) -> tuple[int, int, int]:
    try:
        return _stamp(os.stat(path))
    except OSError:  # it has vanished since it was listed
        return NO_STAMP


__all__ = ["FolderContent", "Watch", "embed_folder"]
