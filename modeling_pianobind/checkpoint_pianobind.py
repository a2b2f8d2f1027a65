"""A checkpoint folder: its files, its fingerprint, and one clear line for a damaged one."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .modeling_pianobind import PianoBindModel
    from .processing_pianobind import PianoBindProcessor

WEIGHTS, CONFIG, PROCESSOR = "model.safetensors", "config.json", "processor_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
BFLOAT16 = "-bfloat16"  # suffix of the fingerprint of an index computed in bfloat16
FILES = (WEIGHTS, CONFIG, PROCESSOR, TOKENIZER, TOKENIZER_CONFIG)
COPY_AGAIN = "check its name, or copy it again"
PROBE_MIDI = bytes.fromhex("4d546864 00000006 0000000101e0 4d54726b 0000000d 00903c40 8360803c40 00ff2f00")  # a note
PROBES = {  # inputs that `check_fit` embeds, by modality
    "audio": lambda processor: [np.sin(np.arange(processor.feature_extractor.sampling_rate // 4), dtype=np.float32)],
    "midi": lambda processor: [PROBE_MIDI],
    "text": lambda processor: ["piano"],
}
NO_EMBEDDING = "its weights give embeddings that are not unit vectors"
MAX_REASON_CHARACTERS = 300  # a damaged value may have any length
HEAD = "classifier."  # begins the names of a classifier's weights, which no embedding depends on
MAX_TEXT_TOKENS = 128  # default of processors without a limit


def default_checkpoint() -> str:
    """Folder of the checkpoint that comes with the package; `from_pretrained` takes it as it takes a Hub id."""
    return str(Path(__file__).parent / "checkpoints" / "pianobind-mini")


def read_json(path: str | os.PathLike) -> dict:
    """Reads a file that holds one JSON object.

    Raises:
        ValueError: it does not; one line that names the file.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
        raise ValueError(f"{path}: is damaged ({reason_of(error)}); {COPY_AGAIN}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: is damaged (it holds no JSON object); {COPY_AGAIN}.")
    return content


@contextmanager
def loading(name: str | os.PathLike | None) -> Iterator[None]:
    """Turns any error of a library that loads a damaged checkpoint into one line that names the checkpoint.

    Raises:
        ValueError: the line.
        OSError: of the disk, or of the Hub, whose own message says which checkpoint it does not have.
        ImportError: a library is not installed.
    """
    folder = Path(name) if name is not None and os.path.isdir(name) else None
    try:
        for path in (folder / part for part in FILES if folder is not None and part.endswith(".json")):
            if path.is_file():
                read_json(path)
        yield
    except ImportError:
        raise
    # All others: a wrong value may trip any line of transformers, and tokenizers raises nothing but bare `Exception`,
    # or panics in Rust.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        if isinstance(error, OSError) and (error.errno is not None or folder is None):
            raise
        if str(error).startswith(str(name)):
            raise  # the message already names the checkpoint
        raise ValueError(f"{name}: {cannot_load(error)}; {COPY_AGAIN}.") from error


def cannot_load(error: Exception | str) -> str:
    """Message about a checkpoint that a library cannot load; it follows the checkpoint's name."""
    return f"cannot be loaded as a PianoBind checkpoint ({reason_of(error)})"


def check_fit(name: str | os.PathLike, model: "PianoBindModel", processor: "PianoBindProcessor") -> None:
    """Refuses a checkpoint whose files load but do not fit together: embeds a word, a note and a tone.

    Raises:
        ValueError: they do not, or the weights give no embedding of length 1; one line that names the checkpoint.
    """
    import torch

    with loading(name), torch.inference_mode():
        check_match(model, processor)
        probes = {
            modality: probe(processor)
            for modality, probe in PROBES.items()
            if getattr(model, f"{modality}_model") is not None
        }
        rate = processor.feature_extractor.sampling_rate if "audio" in probes else None
        output = model(**processor(**probes, sampling_rate=rate, return_tensors="pt"))
        embeds = [output[f"{modality}_embeds"] for modality in probes]
        finite = all(weights.isfinite().all() for weights in model.parameters())
        if not finite or not all(abs(float(embed.norm()) - 1) < 1e-3 for embed in embeds):  # False for NaN
            raise ValueError(NO_EMBEDDING)


def check_match(model: "PianoBindModel", processor: "PianoBindProcessor") -> None:
    """Refuses a processor of another model, by sizes; an exported model (`OnnxModel`) has none to compare.

    Raises:
        ValueError: the processor's outputs and the model's inputs differ.
    """
    config, extractor, tokenizer = model.config, processor.feature_extractor, processor.tokenizer
    audio, midi, text = (getattr(config, f"{tower}_config", None) for tower in ("audio", "midi", "text"))
    fields = getattr(midi, "field_sizes", None)
    own_bands = extractor is not None and extractor.encoder_extractor is None
    bands = getattr(audio, "num_mel_bins", None) if own_bands else None
    words = getattr(text, "vocab_size", None) if tokenizer is not None else None
    if fields is not None and tuple(fields) != tuple(processor.midi_processor.field_sizes):
        makes, reads = f"note rows of {processor.midi_processor.field_sizes}", tuple(fields)
    elif bands is not None and bands != extractor.feature_size:
        makes, reads = f"{extractor.feature_size} mel bands", bands
    elif words is not None and len(tokenizer) > words:
        makes, reads = f"{len(tokenizer)} different words", words
    else:
        return
    raise ValueError(f"the processor makes {makes}, the model reads {reads}; load both from one checkpoint")


def reason_of(error: BaseException | str) -> str:
    """A library's message on one line; the error's name if it has no message."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"[:MAX_REASON_CHARACTERS]
    return " ".join(str(error).split())[:MAX_REASON_CHARACTERS].rstrip(".:") or type(error).__name__


def model_fingerprint(model: "PianoBindModel") -> str:
    """Identifies a model's weights; equals `TextTower.fingerprint` of the saved model."""
    return weights_fingerprint(
        (name, tensor.detach().float().cpu().numpy()) for name, tensor in model.state_dict().items()
    )


def computed_fingerprint(fingerprint: str, bfloat16: bool) -> str:
    """Identifies what made an index: the weights, and whether they computed in bfloat16."""
    return f"{fingerprint}{BFLOAT16}" if bfloat16 else fingerprint


def weights_fingerprint(tensors: Iterable[tuple[str, np.ndarray]]) -> str:
    """SHA-256 of named weights as float32, so that half precision on disk does not matter.

    A classifier on the embeddings does not count: an index serves all classifiers on the same towers.
    """
    tensors = (tensor for tensor in tensors if not tensor[0].startswith(HEAD))

    def digest(tensor):
        name, values = tensor
        return hashlib.sha256(name.encode() + np.ascontiguousarray(values, np.float32).tobytes()).digest()

    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        return hashlib.sha256(b"".join(sorted(pool.map(digest, tensors)))).hexdigest()


__all__ = [
    "MAX_TEXT_TOKENS",
    "cannot_load",
    "check_fit",
    "check_match",
    "default_checkpoint",
    "loading",
    "model_fingerprint",
    "read_json",
    "reason_of",
    "weights_fingerprint",
]
