"""The cached index of a folder, updated before each search."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ..inputs_pianobind import EXTENSIONS, count_other_files, explain, list_files
from ..service.cache import cache_root
from ..service.checkpoint import Checkpoint
from ..service.errors import UserError, complain, user_errors
from ..service.progress import ProgressLines
from .embedding_index import EmbeddingIndex
from .shards import is_index

KINDS_NAMED = 5  # of the files that are left out


class Collection:
    """A folder of music or a saved index; the only place that decides which of the two a path is.

    A saved index is opened at once. `open` embeds a folder, which may take long.

    Args:
        path: the folder or index.
        checkpoint (`Checkpoint`): embeds queries, and the folder's files.
        by_words (`bool`): the query is text alone; it may search a saved index with or without transcription.
    Raises:
        UserError: the path is neither, or the index is damaged or belongs to another checkpoint.
    """

    def __init__(self, path: str | os.PathLike, checkpoint: Checkpoint, by_words: bool = False):
        self.path, self.checkpoint = path, checkpoint
        self.saved = self._load(by_words) if check_searchable(path) else None

    def _load(self, by_words: bool) -> EmbeddingIndex:
        with user_errors(self.path):
            index = EmbeddingIndex.load(self.path)
            if self.checkpoint.transcribe or not by_words:
                index.check_transcribed(self.checkpoint.transcribe, self.path)
            index.check_fingerprint(self.checkpoint.fingerprint, self.path)
        if not index.complete:
            complain(f"warning: {self.path}: was stopped before it was finished; run `pianobind index` on it again")
        return index

    def open(self) -> tuple[EmbeddingIndex, list[str]]:
        """Returns the index and an error line for each unreadable file; caches a folder's index."""
        if self.saved is not None:
            return self.saved, []
        cache = _cache_folder(self.path, self.checkpoint)
        previous = _cached(cache)

        def save(index: EmbeddingIndex) -> None:
            try:
                index.save(cache)
            except (OSError, ValueError) as error:
                complain(f"warning: {explain(cache, error)} The embeddings are not cached; set PIANOBIND_CACHE.")

        index = update_index(self.path, previous, self.checkpoint, save)
        if previous is None or not index.same_files(previous):
            save(index)
        return index, [failure.message for failure in index.failures]


def check_searchable(path: str | os.PathLike) -> bool:
    """Whether a path is a saved index and not a folder of music; refuses all else, before slow work starts."""
    if not os.path.exists(path):
        raise UserError(f"{path}: does not exist; check the path")
    if not os.path.isdir(path):
        raise UserError(f"{path}: is a file; give a folder or a saved index (and the file with --like)")
    with user_errors(path):
        os.listdir(path)  # raises where the folder may not be read
        if is_index(path):
            return True
        if not list_files(path):
            raise ValueError(f"{path}: there is no {' '.join(EXTENSIONS)} file in it; give a folder with music.")
    return False


def update_index(
    folder: str | os.PathLike,
    previous: EmbeddingIndex | None,
    checkpoint: Checkpoint,
    save: Callable,
    shard: tuple[int, int] | None = None,
) -> EmbeddingIndex:
    """Embeds the files of a folder, or of its shard, that changed since `previous`.

    Args:
        save: takes an `EmbeddingIndex`; called every half minute and on Ctrl-C with the files that are finished.
    """

    def keep(index: EmbeddingIndex) -> None:
        nonlocal kept
        if len(index):
            save(index)
            kept = len(index)

    kept = 0
    if others := count_other_files(folder):
        kinds = ", ".join(f"{count} {kind}" for kind, count in list(others.items())[:KINDS_NAMED])
        kinds += ", ..." if len(others) > KINDS_NAMED else ""
        complain(f"{folder}: {sum(others.values())} files of other kinds are left out ({kinds})")
    with user_errors(folder), ProgressLines() as watch:
        try:
            return EmbeddingIndex.update(
                folder,
                previous,
                checkpoint.fingerprint,
                checkpoint.embed_files,
                keep,
                checkpoint.transcribe,
                shard,
                checkpoint.solo_only,
                watch,
            )
        except KeyboardInterrupt:
            if kept:
                complain(f"stopped; the embeddings of {kept} pieces are kept; the same command continues from there")
            raise


def _cache_folder(folder: str | os.PathLike, checkpoint: Checkpoint) -> Path:
    """Cache folder of a folder's index, by checkpoint, window settings and transcription.

    It is not in the music folder, which is often read-only or synchronised.
    """
    settings = Path(checkpoint.name) / "processor_config.json"
    key = [os.fsencode(os.path.abspath(folder)), checkpoint.fingerprint.encode()]
    key += [settings.read_bytes()] if settings.is_file() else []
    key += [b"transcribed"] if checkpoint.transcribe else []
    key += [b"solo-only"] if checkpoint.solo_only else []
    return cache_root() / f"index-{hashlib.sha256(b'|'.join(key)).hexdigest()[:24]}"


def _cached(cache: Path) -> EmbeddingIndex | None:
    """The cached index; a damaged one is deleted."""
    try:
        return EmbeddingIndex.load(cache)
    except OSError:
        return None
    except ValueError:
        shutil.rmtree(cache, ignore_errors=True)
        return None


__all__ = ["Collection", "check_searchable", "update_index"]
