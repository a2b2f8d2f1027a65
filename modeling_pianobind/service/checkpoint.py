"""A checkpoint that is loaded when it is first used."""

import os
import re
import reprlib
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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
from ..inputs_pianobind import check_content, gives_notes, modality_of
from .calibration import Calibration, load_calibration
from .errors import UserError, user_errors
from .text_tower import TextTower

if TYPE_CHECKING:
    from ..embedding_pianobind import EmbeddedFile
    from ..modeling_pianobind import PianoBindModel
    from ..processing_pianobind import PianoBindProcessor

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Checkpoint:
    """A checkpoint by name; its parts are loaded on first use.

    Args:
        name (`str`, *optional*): folder or Hub id; the default checkpoint if None.
        device (`str`, *optional*): device of the model; None for CUDA if available, else the CPU.
        transcribe (`bool`): also transcribe recordings; see `embed_audio`.
        dtype (`str`): what the towers compute in; see `embed_audio`.
        solo_only (`bool`): refuse MIDI files with other instruments and scores with voices; by default only their
            piano part is read.
    """

    def __init__(
        self,
        name: str | os.PathLike | None = None,
        device: str | None = None,
        transcribe: bool = False,
        dtype: str = "float32",
        solo_only: bool = False,
    ):
        self.name = name or default_checkpoint()
        self.device = device
        self.transcribe = transcribe
        self.dtype = dtype
        self.solo_only = solo_only
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
    def weights_fingerprint(self) -> str:
        return model_fingerprint(self.model) if self._text_tower is None else self._text_tower.fingerprint

    @cached_property
    def fingerprint(self) -> str:
        if self.dtype == "float32":
            return self.weights_fingerprint  # torch is not needed to know
        from ..dtype_pianobind import uses_bfloat16

        return computed_fingerprint(self.weights_fingerprint, uses_bfloat16(self.dtype, self.device or _best_device()))

    @cached_property
    def model(self) -> "PianoBindModel":
        return self._loaded[0]

    @cached_property
    def processor(self) -> "PianoBindProcessor":
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> "tuple[PianoBindModel, PianoBindProcessor]":
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
            if not os.path.isdir(self.name) and re.search("couldn't connect|offline|cannot reach", str(error), re.I):
                reason = "is not on this machine, and the Hub cannot be reached; check the name and the network"
                raise UserError(f"{self.name}: {reason}") from error
            raise UserError(f"{self.name}: {cannot_load(error)}; check --checkpoint") from error
        except ValueError as error:
            raise UserError(error) from error
        if self.solo_only:
            processor.midi_processor.solo_only = True
        return model.to(self.device or _best_device()), processor

    @cached_property
    def calibration(self) -> Calibration:
        """Score calibration of this checkpoint; measured in some seconds if it is not stored."""
        return load_calibration(self.name, self.weights_fingerprint, self.embed_text, self.embed_background)

    def embed_background(self, paths: list[str]) -> np.ndarray:
        """`(pieces, dim)` unit rows of MIDI files; none if the checkpoint has no MIDI tower."""
        if self.model.midi_model is None:
            return np.zeros((0, self.model.config.projection_dim), np.float32)
        from ..embedding_pianobind import embed_midi

        with user_errors(self.name), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return embed_midi(self.model, self.processor, paths)

    def count_tokens(self, word: str) -> int:
        """Tokens of a word in the middle of a text, without special ones."""
        tower = self._text_tower
        tokenizer = self.processor.tokenizer if tower is None else tower.tokenizer
        known = tokenizer.encode(f"a {word}", add_special_tokens=False)
        before = tokenizer.encode("a", add_special_tokens=False)
        return len(getattr(known, "ids", known)) - len(getattr(before, "ids", before))

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """`(len(texts), dim)` unit rows."""
        if self._text_tower is not None:
            with user_errors(self.name):
                return self._text_tower.embed_text(list(texts))
        if self.model.text_model is None:
            raise UserError(f"{self.name}: the checkpoint has no text tower; use one that has it")
        from ..embedding_pianobind import embed_text

        with user_errors(self.name):
            return embed_text(self.model, self.processor, texts)

    def embed_file(self, path: str | os.PathLike) -> "EmbeddedFile":
        """The `EmbeddedFile` of a MIDI file or recording."""
        with user_errors(path):
            check_readable(path, self.solo_only)  # fails before the model is loaded, which takes seconds
        from ..embedding_pianobind import embed_example

        with user_errors(path):
            return embed_example(self.model, self.processor, path, transcribe=self.transcribe, dtype=self.dtype)

    def embed_files(
        self, paths: Sequence[str | os.PathLike], progress: bool | None = None
    ) -> "Iterator[tuple[int, EmbeddedFile]]":
        """Yields `(position, EmbeddedFile)`, with a progress bar on a terminal unless `progress` says otherwise."""
        from ..embedding_pianobind import embed_files

        return embed_files(
            self.model, self.processor, paths, progress=progress, transcribe=self.transcribe, dtype=self.dtype
        )


def check_readable(path: str | os.PathLike, solo_only: bool = False) -> None:
    """Refuses unreadable files before the model is loaded: folders, other kinds of files, MIDI without piano notes.

    Raises:
        ValueError, OSError: as embedding it would.
    """
    if os.path.isdir(path):
        raise IsADirectoryError
    open(path, "rb").close()
    check_content(path, modality_of(path))
    if gives_notes(path):
        from ..notes_pianobind import read_midi

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when it is embedded
            read_midi(Path(path), solo_only)


def _check_device(device: str) -> None:
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


def _check_folder(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():
        return  # its base model is checked when it is loaded
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: is not a checkpoint (it has no config.json); check --checkpoint")
    with user_errors(folder / CONFIG):
        model_type = read_json(folder / CONFIG).get("model_type")
    if model_type != "pianobind":
        raise UserError(
            f"{folder}: is a {reprlib.repr(model_type)} checkpoint, not a PianoBind one; check --checkpoint"
        )


__all__ = ["Checkpoint", "check_readable"]
