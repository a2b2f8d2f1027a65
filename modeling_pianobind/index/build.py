"""The files below a folder -> their embeddings: scan, hash, embed what changed, keep what succeeded.

Nothing is lost: a file that cannot be read stops no other, and Ctrl-C hands over what is done.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from ..inputs_pianobind import EXTENSIONS, content_hash, explain, gives_notes, list_files, piece_of
from .note_alignment import NoteLine
from .shards import in_shard
from .table import Failure


@dataclass
class FolderContent:
    """The files of a folder.

    Attributes:
        rows (`list[tuple]`): what `FileTable.from_rows` takes.
        failures (`list[Failure]`): the files that could not be read.
    """

    rows: list[tuple] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def embed_folder(
    folder,
    previous: FolderContent,
    embed: Callable[[list[str]], Iterable],
    on_interrupt: Callable[[FolderContent], None] | None = None,
    shard: tuple[int, int] | None = None,
) -> FolderContent:
    """Embeds the files of a folder whose content `previous` does not hold.

    Args:
        folder: searched through all levels.
        previous (`FolderContent`): what the same checkpoint made in the same way.
        embed: takes a list of paths, yields `(position, EmbeddedFile)`; called only if there is work, so that a
            caller may load the model in it.
        on_interrupt (*optional*): called with what is done, when Ctrl-C stops the work.
        shard (`tuple[int, int]`, *optional*): number, from 1, and count: embed only this share of the pieces.
    Returns:
        `FolderContent`, sorted by path.
    Raises:
        ValueError: there is no music below the folder.
        OSError: the folder cannot be listed.
    """
    paths = list_files(folder)
    if not paths:
        raise ValueError(f"{folder}: there is no {' '.join(EXTENSIONS)} file in it; give a folder with music.")
    if shard is not None:
        paths = [path for path in paths if in_shard(piece_of(path), folder, *shard)]
    state = _scan(paths, previous)
    try:
        for position, file in embed(state.changed) if state.changed else ():
            state.keep(state.changed[position], file)
    except KeyboardInterrupt:
        if on_interrupt is not None:
            on_interrupt(state.content())
        raise
    return state.content()


@dataclass
class _State:
    """What is known of a folder's files.

    Attributes:
        rows: by path, rows of `FileTable.from_rows`.
        changed: paths that have to be embedded, with their content's hash in `hashes`.
        times: by path, when the file changed last, as it was before it was hashed.
    """

    rows: dict[str, tuple] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)

    def content(self) -> FolderContent:
        failures = sorted(self.failures, key=lambda failure: failure.path)
        return FolderContent([self.rows[path] for path in sorted(self.rows)], failures)

    def keep(self, path: str, file) -> None:
        """Takes the `EmbeddedFile` of a path."""
        is_same = _time_of(path) == self.times[path]
        if file.error is not None:
            # An OSError may pass until the next time; an error in the content will not.
            kept = self.hashes[path] if is_same and not isinstance(file.error, OSError) else ""
            self.failures.append(Failure(path, explain(path, file.error), kept))
        elif not is_same:
            # Stored under the hash of the old content, the embedding would be found for any copy of that content.
            self.failures.append(Failure(path, f"{path}: changed or vanished while it was read; try it again."))
        else:
            windows = file.windows.astype(np.float16)
            names = path, piece_of(path), self.hashes[path]
            self.rows[path] = (*names, file.embedding, windows, file.spans, NoteLine.of(file.notes), file.measures)


def _scan(paths: list[str], previous: FolderContent) -> _State:
    """Hashes the files and takes what `previous` knows of their content."""
    known = {(row[2], gives_notes(row[0])): row for row in previous.rows}
    failed = {(failure.path, failure.content_hash): failure for failure in previous.failures}
    state = _State()
    with ThreadPoolExecutor() as pool:
        for path, identity in zip(paths, pool.map(_identify, paths), strict=True):
            if isinstance(identity, OSError):
                state.failures.append(Failure(path, explain(path, identity)))
                continue
            digest, state.times[path] = identity
            if (digest, gives_notes(path)) in known:
                state.rows[path] = (path, piece_of(path), *known[digest, gives_notes(path)][2:])
            elif (path, digest) in failed:
                state.failures.append(failed[path, digest])
            else:
                state.hashes[path] = digest
                state.changed.append(path)
    return state


def _identify(path) -> tuple[str, int] | OSError:
    """A file's hash, and the time of its last change before it was hashed; or why it cannot be read."""
    try:
        before = os.stat(path).st_mtime_ns
        return content_hash(path), before
    except OSError as error:
        return error


def _time_of(path) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:  # it has vanished since it was listed
        return None


__all__ = ["FolderContent", "embed_folder"]
