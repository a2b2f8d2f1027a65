"""A checkpoint that is loaded when it is first used."""

import os
import re
import reprlib
from functools import cached_property
from pathlib import Path

from ..checkpoint_pianobind import (
    CONFIG,
    cannot_load,
    check_fit,
    computed_fingerprint,
    default_checkpoint,
    loading,
    model_fingerprint,
    read_json,
)
from .errors import UserError, user_errors
from .text_tower import TextTower

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Checkpoint:
    """A checkpoint by name; its parts are loaded on first use.

    Args:
        name (`str`, *optional*): folder or Hub id; the default checkpoint if None.
        device (`str`, *optional*): device of the model; None for CUDA if available, else the CPU.
        transcribe (`bool`): also transcribe recordings; see `embed_audio`.
        dtype (`str`): what the towers compute in; see `embed_audio`.
    """

    def __init__(self, name=None, device=None, transcribe=False, dtype="float32"):
        self.name = name or default_checkpoint()
        self.device = device
        self.transcribe = transcribe
        self.dtype = dtype
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
        """The numpy text tower; None if the model itself is needed."""
        if self.device not in (None, "cpu") or not os.path.isdir(self.name):
            return None
        with user_errors(self.name):
            return TextTower.open(self.name)

    @cached_property
    def fingerprint(self) -> str:
        weights = model_fingerprint(self.model) if self._text_tower is None else self._text_tower.fingerprint
        if self.dtype == "float32":
            return weights  # torch is not needed to know
        from ..dtype_pianobind import uses_bfloat16

        return computed_fingerprint(weights, uses_bfloat16(self.dtype, self.device or _best_device()))

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

        from ..modeling_pianobind import PianoBindModel
        from ..processing_pianobind import PianoBindProcessor

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
        from ..embedding_pianobind import embed_text

        with user_errors(self.name):
            return embed_text(self.model, self.processor, texts)

    def embed_file(self, path):
        """The `EmbeddedFile` of a MIDI file or recording."""
        with user_errors(path):
            if os.path.isdir(path):
                raise IsADirectoryError
            open(path, "rb").close()  # fails before the model is loaded, which takes seconds
        from ..embedding_pianobind import embed_example

        with user_errors(path):
            return embed_example(self.model, self.processor, path, transcribe=self.transcribe, dtype=self.dtype)

    def embed_files(self, paths, progress=None):
        """Yields `(position, EmbeddedFile)`, with a progress bar on a terminal unless `progress` says otherwise."""
        from ..embedding_pianobind import embed_files

        return embed_files(
            self.model, self.processor, paths, progress=progress, transcribe=self.transcribe, dtype=self.dtype
        )


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
    """CUDA if available (the process's own under torchrun or accelerate launch), else the CPU."""
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


__all__ = ["Checkpoint"]
