"""What the commands share: a checkpoint that loads only what is used, cached folder indices, a user's mistakes."""

import hashlib
import os
import re
import reprlib
import shutil
import sys
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from .checkpoint_pianobind import (
    CONFIG,
    TextTower,
    cannot_load,
    check_fit,
    default_checkpoint,
    loading,
    model_fingerprint,
    read_json,
)
from .index_pianobind import EmbeddingIndex
from .index_shards_pianobind import is_index
from .inputs_pianobind import explain

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class UserError(Exception):
    """A mistake of the user: its message is the one line that stderr gets."""


@contextmanager
def user_errors(path, writing=False):
    """Turns the errors that a wrong file raises into a `UserError` that names it."""
    try:
        yield
    except OSError as error:
        if writing:
            reason = error.strerror or error
            raise UserError(f"{path}: cannot be written ({reason}); choose another place") from error
        raise UserError(explain(path, error)) from error
    except (ValueError, ImportError) as error:  # of an extra, its message says how to install it
        raise UserError(explain(path, error)) from error


def complain(message) -> None:
    """Prints one line on stderr."""
    print(f"pianobind: {' '.join(str(message).split())}", file=sys.stderr)


class Checkpoint:
    """A checkpoint by name, of which nothing is loaded before it is needed.

    Args:
        name (`str`, *optional*): folder or Hub id; the default checkpoint if None.
        device (`str`, *optional*): where the model runs; CUDA if there is one, else the CPU, if None.
        transcribe (`bool`): transcribe recordings as well; see `embed_audio`.
    """

    def __init__(self, name=None, device=None, transcribe=False):
        self.name = name or default_checkpoint()
        self.device = device
        self.transcribe = transcribe
        if device not in (None, "cpu"):
            _check_device(device)
        if os.path.isdir(self.name):
            _check_folder(Path(self.name))
        elif name is None:
            raise UserError(f"{self.name}: the checkpoint of the package is not there; give one with --checkpoint")
        elif os.path.exists(self.name) or not HUB_ID.fullmatch(self.name):
            raise UserError(f"{self.name}: is neither a folder nor a Hub id (owner/name); check --checkpoint")

    @cached_property
    def _text_tower(self) -> TextTower | None:
        """The text tower alone, where that is enough and faster."""
        if self.device not in (None, "cpu") or not os.path.isdir(self.name):
            return None
        with user_errors(self.name):
            return TextTower.open(self.name)

    @cached_property
    def fingerprint(self) -> str:
        if self._text_tower is not None:
            return self._text_tower.fingerprint
        return model_fingerprint(self.model)

    @cached_property
    def model(self):
        return self._loaded[0]

    @cached_property
    def processor(self):
        return self._loaded[1]

    @cached_property
    def _loaded(self):
        import torch
        from transformers import PreTrainedConfig
        from transformers.utils import logging

        from .modeling_pianobind import PianoBindModel
        from .processing_pianobind import PianoBindProcessor

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            with loading(self.name):
                model_type = PreTrainedConfig.get_config_dict(self.name)[0].get("model_type", "pianobind")
                if model_type != "pianobind":
                    raise ValueError(f"it is a {reprlib.repr(model_type)} model")
                processor = PianoBindProcessor.from_pretrained(self.name)
                loaded = PianoBindModel.from_pretrained(self.name, dtype=torch.float32, output_loading_info=True)
                model, missing = loaded[0].eval(), loaded[1]["missing_keys"]
                if missing:
                    raise ValueError(f"it lacks {len(missing)} weights")
                check_fit(self.name, model, processor)
        except OSError as error:
            raise UserError(f"{self.name}: {cannot_load(error)}; check --checkpoint") from error
        except ValueError as error:
            raise UserError(error) from error
        return model.to(self.device or _best_device()), processor

    def embed_text(self, texts):
        """`(len(texts), dim)` unit rows."""
        if self._text_tower is not None:
            with user_errors(self.name):
                return self._text_tower.embed_text(list(texts))
        if self.model.text_model is None:
            raise UserError(f"{self.name}: the checkpoint has no text tower; use one that has it")
        from .embedding_pianobind import embed_text

        with user_errors(self.name):
            return embed_text(self.model, self.processor, texts)

    def embed_file(self, path):
        """The `EmbeddedFile` of a MIDI file or recording."""
        with user_errors(path):
            if os.path.isdir(path):
                raise IsADirectoryError
            open(path, "rb").close()  # before the model takes its seconds to load
        from .embedding_pianobind import embed_example

        with user_errors(path):
            return embed_example(self.model, self.processor, path, transcribe=self.transcribe)

    def embed_files(self, paths, progress=None):
        """Yields `(position, EmbeddedFile)`, with a progress bar on a terminal unless `progress` says otherwise."""
        from .embedding_pianobind import embed_files

        return embed_files(self.model, self.processor, paths, progress=progress, transcribe=self.transcribe)


def _check_device(device):
    import torch

    try:
        kind, index = torch.device(device).type, torch.device(device).index or 0
    except RuntimeError:
        kind, index = None, 0
    if kind not in ("cpu", "cuda", "mps"):
        raise UserError(f"the device {device!r} is unknown; give cpu, cuda, cuda:N or mps")
    there = {
        "cpu": lambda: True,
        "cuda": lambda: torch.cuda.is_available() and index < torch.cuda.device_count(),
        "mps": lambda: torch.backends.mps.is_available(),
    }
    if not there[kind]():
        raise UserError(f"the device {device!r} is not available here; use --device cpu")


def _best_device() -> str:
    """CUDA if there is one, the process's own under torchrun or accelerate launch; else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"


def _check_folder(folder: Path):
    if (folder / "adapter_config.json").is_file():
        return  # its base model is checked when it is loaded
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: is no checkpoint (it has no config.json); check --checkpoint")
    with user_errors(folder / CONFIG):
        model_type = read_json(folder / CONFIG).get("model_type")
    if model_type != "pianobind":
        raise UserError(
            f"{folder}: is a {reprlib.repr(model_type)} checkpoint, not a PianoBind one; check --checkpoint"
        )


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


__all__ = ["Checkpoint", "UserError", "check_searchable", "complain", "open_index", "update_index", "user_errors"]
