"""The index of a folder's present content: cached, and brought up to date before each search."""

import hashlib
import os
import shutil
from pathlib import Path

from ..inputs_pianobind import explain
from ..service.checkpoint import Checkpoint
from ..service.errors import UserError, complain, user_errors
from .embedding_index import EmbeddingIndex
from .shards import is_index


def check_searchable(path) -> None:
    """Refuses what is neither a folder nor an index, before anything slow begins."""
    if not os.path.exists(path):
        raise UserError(f"{path}: does not exist; check the path")
    if not os.path.isdir(path):
        raise UserError(f"{path}: is a file; give a folder or a saved index (and the file with --like)")


def open_index(path, checkpoint: Checkpoint, by_words=False) -> tuple[EmbeddingIndex, list[str]]:
    """A saved index, or the index of a folder's present content.

    Args:
        by_words (`bool`): the query is text alone, which may search a saved index whether transcribed or not.
    Returns:
        The index, and a line for each file that could not be read.
    """
    if is_index(path):
        with user_errors(path):
            index = EmbeddingIndex.load(path)
            if checkpoint.transcribe or not by_words:
                index.check_transcribed(checkpoint.transcribe, path)
            index.check_fingerprint(checkpoint.fingerprint, path)
        return index, []
    cache = _cache_folder(path, checkpoint)
    previous = _cached(cache)

    def save(index):
        try:
            index.save(cache)
        except (OSError, ValueError) as error:
            complain(f"warning: {explain(cache, error)} The embeddings are not cached; set PIANOBIND_CACHE.")

    index = update_index(path, previous, checkpoint, save)
    if previous is None or not index.same_files(previous):
        save(index)
    return index, [failure.message for failure in index.failures]


def update_index(folder, previous, checkpoint: Checkpoint, save, shard=None) -> EmbeddingIndex:
    """Embeds what changed below a folder, or in a shard of it, since `previous`; Ctrl-C saves what is done."""

    def keep(index):
        if len(index):
            save(index)
            complain(f"stopped; the embeddings of {len(index)} pieces are kept, the same command goes on from there")

    with user_errors(folder):
        embed = checkpoint.embed_files
        return EmbeddingIndex.update(
            folder, previous, checkpoint.fingerprint, embed, keep, checkpoint.transcribe, shard
        )


def _cache_folder(folder, checkpoint) -> Path:
    """Where the index of a folder is cached, for this checkpoint with its window settings, transcribing or not.

    Not in the folder itself: music often lies where one may not write, or where files are synchronised.
    """
    root = os.environ.get("PIANOBIND_CACHE")
    if not root:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pianobind"
    settings = Path(checkpoint.name) / "processor_config.json"
    key = [os.fsencode(os.path.abspath(folder)), checkpoint.fingerprint.encode()]
    key += [settings.read_bytes()] if settings.is_file() else []
    key += [b"transcribed"] if checkpoint.transcribe else []
    return Path(root) / f"index-{hashlib.sha256(b'|'.join(key)).hexdigest()[:24]}"


def _cached(cache) -> EmbeddingIndex | None:
    """The cached index; a damaged one is thrown away, since it can be made again."""
    try:
        return EmbeddingIndex.load(cache)
    except OSError:
        return None
    except ValueError:
        shutil.rmtree(cache, ignore_errors=True)
        return None


__all__ = ["check_searchable", "open_index", "update_index"]
