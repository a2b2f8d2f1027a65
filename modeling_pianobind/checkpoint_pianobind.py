"""A checkpoint folder: what is wrong with a damaged one, and its text tower on numpy.

A saved index and a cached folder are searched by text alone, so only the text tower has to run, once, on a few words.
For BERT text towers numpy does that, without the seconds that importing torch and transformers takes;
`TextTower.open` says None for all others, and the model itself is loaded.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .inputs_pianobind import readable_text

WEIGHTS, CONFIG, PROCESSOR = "model.safetensors", "config.json", "processor_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
FILES = (WEIGHTS, CONFIG, PROCESSOR, TOKENIZER, TOKENIZER_CONFIG)
COPY_AGAIN = "check its name, or copy it again"
PROBE_MIDI = bytes.fromhex("4d546864 00000006 0000000101e0 4d54726b 0000000d 00903c40 8360803c40 00ff2f00")  # a note
NO_EMBEDDING = "its weights give embeddings that are no unit vectors"
LONGEST_REASON = 300  # characters; a damaged value may be of any length
MAX_TEXT_TOKENS = 128  # as in the processor, whose module costs seconds to import; a test compares the two


def default_checkpoint() -> str:
    """Folder of the checkpoint that comes with the package; `from_pretrained` takes it as it takes a Hub id."""
    return str(Path(__file__).parent / "checkpoints" / "pianobind-mini")


def read_json(path) -> dict:
    """Reads a file that holds one JSON object.

    Raises:
        ValueError: it does not; one line that names the file.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
        raise ValueError(f"{path}: is damaged ({_reason(error)}); {COPY_AGAIN}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: is damaged (it holds no JSON object); {COPY_AGAIN}.")
    return content


@contextmanager
def loading(name):
    """Turns whatever libraries raise while they load a damaged checkpoint into one line that names it.

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
            raise  # it says all of this
        raise ValueError(f"{name}: {cannot_load(error)}; {COPY_AGAIN}.") from error


def cannot_load(error: Exception | str) -> str:
    """What a library says of a checkpoint that it cannot load, for a line that begins with its name."""
    return f"cannot be loaded as a PianoBind checkpoint ({_reason(error)})"


def check_fit(name, model, processor) -> None:
    """Refuses a checkpoint whose files each load but do not fit each other, by embedding a word, a note and a tone.

    Raises:
        ValueError: they do not, or the weights give no embedding of length 1; one line that names the checkpoint.
    """
    import torch

    inputs = {}
    with loading(name), torch.inference_mode():
        check_match(model, processor)
        if model.midi_model is not None:
            inputs["midi"] = [PROBE_MIDI]
        if model.text_model is not None:
            inputs["text"] = ["piano"]
        if model.audio_model is not None:
            rate = processor.feature_extractor.sampling_rate
            inputs |= {"audio": [np.sin(np.arange(rate // 4), dtype=np.float32)], "sampling_rate": rate}
        output = model(**processor(**inputs, return_tensors="pt"))
        embeds = [output[f"{one}_embeds"] for one in ("audio", "midi", "text") if one in inputs]
        finite = all(weights.isfinite().all() for weights in model.parameters())
        if not finite or not all(abs(float(one.norm()) - 1) < 1e-3 for one in embeds):  # not so of NaN
            raise ValueError(NO_EMBEDDING)


def check_match(model, processor) -> None:
    """Refuses another model's processor, as far as sizes tell; an exported model (`OnnxModel`) knows none.

    Raises:
        ValueError: what the one makes and the other reads.
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


def _reason(error) -> str:
    """What a library says, on one line; its name where it says nothing."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"[:LONGEST_REASON]
    return " ".join(str(error).split())[:LONGEST_REASON].rstrip(".:") or type(error).__name__


def model_fingerprint(model) -> str:
    """Tells the weights of one model from another's; equals `TextTower.fingerprint` of the saved model."""
    return _fingerprint((name, tensor.detach().float().cpu().numpy()) for name, tensor in model.state_dict().items())


def _fingerprint(tensors: Iterable[tuple[str, np.ndarray]]) -> str:
    """SHA-256 of named weights as float32, so that half precision on disk does not matter."""

    def digest(tensor):
        name, values = tensor
        return hashlib.sha256(name.encode() + np.ascontiguousarray(values, np.float32).tobytes()).digest()

    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter's lock alone
        return hashlib.sha256(b"".join(sorted(pool.map(digest, tensors)))).hexdigest()


class TextTower:
    """A saved checkpoint's fingerprint and BERT text tower, on numpy.

    Use `TextTower.open`; `embed_text` equals that of the model to float32's precision.
    """

    def __init__(self, config, weights, tokenizer, source):
        self.config, self.weights, self.tokenizer, self.source = config, weights, tokenizer, source

    @classmethod
    def open(cls, folder) -> "TextTower | None":
        """Reads a checkpoint folder; None where only the model itself can embed text.

        Raises:
            OSError, ValueError: a file of the checkpoint cannot be read.
        """
        folder = Path(folder)
        if not all((folder / name).is_file() for name in FILES):
            return None
        config, processor, tokens = (read_json(folder / name) for name in (CONFIG, PROCESSOR, TOKENIZER_CONFIG))
        text = config.get("text_config")
        limits = (
            tokens.get("model_max_length") or MAX_TEXT_TOKENS,
            processor.get("text_max_length") or MAX_TEXT_TOKENS,
        )
        padded = config.get("pool_text_padding") or processor.get("text_pad_to_max")
        if config.get("model_type") != "pianobind" or padded or not _is_plain_bert(text) or not _are_counts(limits):
            return None

        from safetensors import SafetensorError, safe_open
        from tokenizers import Tokenizer

        try:
            with safe_open(folder / WEIGHTS, framework="numpy") as file:
                names = list(file.keys())
                if any(file.get_slice(name).get_dtype() not in ("F32", "F16") for name in names):
                    return None
                weights = {name: file.get_tensor(name).astype(np.float32, copy=False) for name in names}
        except SafetensorError as error:
            reason = f"the weights are damaged ({_reason(error)})"
            raise ValueError(f"{folder / WEIGHTS}: {reason}; {COPY_AGAIN}.") from error
        try:
            tokenizer = Tokenizer.from_file(os.fspath(folder / TOKENIZER))
        except Exception as error:  # tokenizers raises nothing more special
            raise ValueError(f"{folder / TOKENIZER}: is damaged ({_reason(error)}); {COPY_AGAIN}.") from error
        tokenizer.enable_truncation(min(*limits, text["max_position_embeddings"]))
        tokenizer.no_padding()
        tower = cls(text, weights, tokenizer, folder)
        with loading(folder), np.errstate(all="ignore"):
            tower.embed_text(["piano"])
        return tower

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self.weights.items())

    def embed_text(self, texts: list[str]) -> np.ndarray:
        """`(len(texts), dim)` float32, unit length.

        Raises:
            ValueError: a text holds no word, or half characters, see `readable_text`; or a weight is no number.
        """
        by_length = {}
        for row, encoding in enumerate(self.tokenizer.encode_batch([readable_text(text) for text in texts])):
            by_length.setdefault(len(encoding.ids), []).append((row, encoding.ids))
        embeds = np.zeros((len(texts), len(self.weights["text_projection.weight"])), np.float32)
        for group in by_length.values():  # texts of one length need no padding, and so no mask
            rows, ids = zip(*group, strict=True)
            pooled = self._hidden(np.array(ids)).mean(axis=1)
            projected = pooled @ self.weights["text_projection.weight"].T
            embeds[list(rows)] = projected / np.linalg.norm(projected, axis=1, keepdims=True)
        if not (np.abs(np.linalg.norm(embeds, axis=1) - 1) < 1e-3).all():  # not so of NaN
            raise ValueError(f"{self.source}: {cannot_load(NO_EMBEDDING)}; {COPY_AGAIN}.")
        return embeds

    def _hidden(self, ids: np.ndarray) -> np.ndarray:
        """BERT's last hidden states `(batch, tokens, hidden)` of token ids `(batch, tokens)`. Source: 1810.04805."""
        table = "embeddings.{}_embeddings.weight"
        words, places, types = (self._weight(table.format(kind)) for kind in ("word", "position", "token_type"))
        hidden = self._norm("embeddings", words[ids] + places[: ids.shape[1]] + types[0])
        heads = self.config["num_attention_heads"]
        for number in range(self.config["num_hidden_layers"]):
            layer = f"encoder.layer.{number}"
            q, k, v = (
                _split_heads(self._linear(f"{layer}.attention.self.{part}", hidden), heads)
                for part in ("query", "key", "value")
            )  # (batch, heads, tokens, head size)
            scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = (shares / shares.sum(-1, keepdims=True)) @ v
            mixed = mixed.swapaxes(1, 2).reshape(hidden.shape)
            hidden = self._norm(
                f"{layer}.attention.output", self._linear(f"{layer}.attention.output.dense", mixed) + hidden
            )
            inner = _gelu(self._linear(f"{layer}.intermediate.dense", hidden))
            hidden = self._norm(f"{layer}.output", self._linear(f"{layer}.output.dense", inner) + hidden)
        return hidden

    def _weight(self, name):
        return self.weights[f"text_model.{name}"]

    def _linear(self, name, x):
        return x @ self._weight(f"{name}.weight").T + self._weight(f"{name}.bias")

    def _norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.config["layer_norm_eps"])
        return scaled * self._weight(f"{name}.LayerNorm.weight") + self._weight(f"{name}.LayerNorm.bias")


def _is_plain_bert(config) -> bool:
    """Whether a text tower's config is one that `TextTower` computes; the model itself judges all others."""
    if not isinstance(config, dict) or config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        return False
    counts = [config.get(name) for name in ("num_attention_heads", "num_hidden_layers", "max_position_embeddings")]
    return _are_counts(counts) and isinstance(config.get("layer_norm_eps"), float) and not config.get("is_decoder")


def _are_counts(values) -> bool:
    return all(type(value) is int and value > 0 for value in values)


def _split_heads(x, heads):
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _gelu(x: np.ndarray) -> np.ndarray:
    """`x` times the normal distribution's integral up to it.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26 for erf; off by at most 1.5e-7.
    """
    z = np.abs(x) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return x * 0.5 * (1 + np.sign(x) * (1 - series * np.exp(-z * z)))


__all__ = [
    "TextTower",
    "cannot_load",
    "check_fit",
    "check_match",
    "default_checkpoint",
    "loading",
    "model_fingerprint",
    "read_json",
]
