"""One argument for any modality: text, files, their content or waveforms; for pipelines and sentence-transformers."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .embedding_pianobind import embed_all, embed_text
from .inputs_pianobind import EXTENSIONS, MODALITIES, check_content, content_modality, modality_of

if TYPE_CHECKING:
    from .modeling_pianobind import PianoBindModel
    from .processing_pianobind import PianoBindProcessor


@dataclass
class Source:
    """One input with its modality.

    Attributes:
        modality (`str`): "text", "audio", "midi" or "score".
        content: one input of `embed_text`, `embed_audio` or `embed_midi`.
        sampling_rate (`int`, *optional*): of a waveform, in Hz.
    """

    modality: str
    content: Any
    sampling_rate: int | None = None


def source_of(value: Any) -> Source:
    """Finds the modality of a value.

    Args:
        value: a `Path`; a `str`, which is a file if it ends in an extension of `FORMATS` and words otherwise;
            the content of a file (`bytes`); a dictionary with one of the keys "text", "audio", "midi" and
            "score"; or one with "array" (or "raw") and "sampling_rate", which is a waveform `(samples,)` or
            `(channels, samples)`.
    Raises:
        ValueError: it is none of these, or a file's content does not match its name.
        OSError: the file cannot be opened.
    """
    if isinstance(value, Source):
        return value
    if isinstance(value, dict):
        return _source_of_dict(value)
    if isinstance(value, (bytes, bytearray)):
        return Source(content_modality(bytes(value[:12])) or "audio", bytes(value))  # decoders know more audio
    if isinstance(value, os.PathLike) or (isinstance(value, str) and value.lower().endswith(tuple(EXTENSIONS))):
        modality = modality_of(value)
        check_content(value, modality)
        return Source(modality, value)
    if isinstance(value, str):
        return Source("text", value)
    raise ValueError(
        f"a value of type {type(value).__name__} is neither words nor a file; pass a str, a path, bytes, "
        '{"text": ...}, {"midi": ...}, {"score": ...}, {"audio": ...} or {"array": ..., "sampling_rate": ...}.'
    )


def _source_of_dict(value: dict) -> Source:
    rate = value.get("sampling_rate")
    for key in ("array", "raw"):
        if key in value and rate is not None:
            return Source("audio", np.asarray(value[key], np.float32), int(rate))
    named = [modality for modality in MODALITIES if modality in value]
    if len(named) != 1 or set(value) - {*named, "sampling_rate"}:
        raise ValueError(
            f'a dictionary with the keys {sorted(map(str, value))} was given; pass one of "text", "audio", "midi" '
            'and "score", or "array" and "sampling_rate".'
        )
    content = value[named[0]]
    if named[0] == "audio" and isinstance(content, dict):
        return _source_of_dict(content)
    return Source(named[0], content, rate)


def embed_sources(
    model: "PianoBindModel", processor: "PianoBindProcessor", sources: list[Source], batch_size: int = 16
) -> np.ndarray:
    """Embeds sources of any modalities.

    Args:
        model (`PianoBindModel`), processor (`PianoBindProcessor`): of one checkpoint.
        sources (`list[Source]`): in any order.
        batch_size (`int`): windows or texts in one batch of the model.
    Returns:
        `np.ndarray` of shape `(len(sources), dim)`: float32, unit length, in the order given.
    Raises:
        ValueError, OSError: one cannot be read.
    """
    embeds = np.zeros((len(sources), model.config.projection_dim), np.float32)
    groups = {}
    for row, source in enumerate(sources):
        groups.setdefault((source.modality, source.sampling_rate), []).append(row)
    for (modality, rate), rows in groups.items():
        contents = [sources[row].content for row in rows]
        if modality == "text":
            embeds[rows] = embed_text(model, processor, contents, batch_size)
        else:
            settings = {"modality": modality, "sampling_rate": rate, "batch_size": batch_size}
            embeds[rows] = embed_all(model, processor, contents, **settings)
    return embeds


__all__ = ["Source", "embed_sources", "source_of"]
