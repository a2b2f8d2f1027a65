"""What a search needs of a checkpoint folder without the seconds that importing torch and transformers takes.

A saved index and a cached folder are searched by text alone, so only the text tower has to run, once, on a few words.
For BERT text towers numpy does that; `TextTower.open` says None for all others, and the model itself is loaded.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

WEIGHTS, CONFIG, PROCESSOR, TOKENIZER = "model.safetensors", "config.json", "processor_config.json", "tokenizer.json"
MAX_TOKENS = 128  # as in the processor, whose module costs seconds to import; a test compares the two
# Settings of the saved processor that do not change what it gives.
NAMES = ("feature_extractor_type", "processor_class", "auto_map", "transformers_version", "image_processor_type")


def default_checkpoint() -> str:
    """Folder of the checkpoint that comes with the package; `from_pretrained` takes it as it takes a Hub id."""
    return str(Path(__file__).parent / "checkpoints" / "pianobind-mini")


def model_fingerprint(model, processor) -> str:
    """Tells one set of weights and window settings from another; equals `TextTower.fingerprint` of the saved model."""
    tensors = ((name, tensor.detach().float().cpu().numpy()) for name, tensor in model.state_dict().items())
    extractor, midi = processor.feature_extractor, processor.midi_processor
    settings = [json.loads(json.dumps(part.to_dict())) if part is not None else {} for part in (extractor, midi)]
    return _fingerprint(tensors, settings)


def _fingerprint(tensors: Iterable[tuple[str, np.ndarray]], settings: list[dict]) -> str:
    """SHA-256 of the weights as float32, so that half precision on disk does not matter, and of the settings."""

    def digest(tensor):
        name, values = tensor
        return hashlib.sha256(name.encode() + np.ascontiguousarray(values, np.float32).data.cast("B")).digest()

    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter's lock alone
        digests = sorted(pool.map(digest, tensors))
    kept = [{key: value for key, value in part.items() if key not in NAMES} for part in settings]
    return hashlib.sha256(b"".join(digests) + json.dumps(kept, sort_keys=True).encode()).hexdigest()


class TextTower:
    """A saved checkpoint's fingerprint and BERT text tower, on numpy.

    Use `TextTower.open`; `embed_text` equals that of the model to float32's precision.
    """

    def __init__(self, config, settings, weights, tokenizer):
        self.config, self.settings, self.weights, self.tokenizer = config, settings, weights, tokenizer

    @classmethod
    def open(cls, folder) -> "TextTower | None":
        """Reads a checkpoint folder; None where only the model itself can embed text.

        Raises:
            OSError, ValueError: a file of the checkpoint cannot be read.
        """
        folder = Path(folder)
        if not all((folder / name).is_file() for name in (WEIGHTS, CONFIG, PROCESSOR, TOKENIZER)):
            return None
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        text = config.get("text_config") or {}
        plain = text.get("model_type") == "bert" and text.get("hidden_act") == "gelu" and not text.get("is_decoder")
        if config.get("model_type") != "pianobind" or not plain or config.get("pool_text_padding"):
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
            raise ValueError(f"{folder / WEIGHTS}: the weights are damaged ({error}); copy the file again.") from error
        saved = json.loads((folder / PROCESSOR).read_text(encoding="utf-8"))
        settings = [saved.get(part) or {} for part in ("feature_extractor", "midi_processor")]
        tokenizer = Tokenizer.from_file(os.fspath(folder / TOKENIZER))
        tokenizer_config = folder / "tokenizer_config.json"
        longest = json.loads(tokenizer_config.read_text(encoding="utf-8")) if tokenizer_config.is_file() else {}
        tokenizer.enable_truncation(int(min(longest.get("model_max_length") or MAX_TOKENS, MAX_TOKENS)))
        tokenizer.no_padding()
        return cls(text, settings, weights, tokenizer)

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self.weights.items(), self.settings)

    def embed_text(self, texts: list[str]) -> np.ndarray:
        """`(len(texts), dim)` float32, unit length."""
        by_length = {}
        for row, encoding in enumerate(self.tokenizer.encode_batch(texts)):
            by_length.setdefault(len(encoding.ids), []).append((row, encoding.ids))
        embeds = np.zeros((len(texts), len(self.weights["text_projection.weight"])), np.float32)
        for group in by_length.values():  # texts of one length need no padding, and so no mask
            rows, ids = zip(*group, strict=True)
            pooled = self._hidden(np.array(ids)).mean(axis=1)
            projected = pooled @ self.weights["text_projection.weight"].T
            embeds[list(rows)] = projected / np.linalg.norm(projected, axis=1, keepdims=True)
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


__all__ = ["TextTower", "default_checkpoint", "model_fingerprint"]
