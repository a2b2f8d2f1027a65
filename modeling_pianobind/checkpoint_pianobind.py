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

from .inputs_pianobind import readable_text

WEIGHTS, CONFIG, PROCESSOR = "model.safetensors", "config.json", "processor_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
FILES = (WEIGHTS, CONFIG, PROCESSOR, TOKENIZER, TOKENIZER_CONFIG)
MAX_TEXT_TOKENS = 128  # as in the processor, whose module costs seconds to import; a test compares the two


def default_checkpoint() -> str:
    """Folder of the checkpoint that comes with the package; `from_pretrained` takes it as it takes a Hub id."""
    return str(Path(__file__).parent / "checkpoints" / "pianobind-mini")


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

    def __init__(self, config, weights, tokenizer):
        self.config, self.weights, self.tokenizer = config, weights, tokenizer

    @classmethod
    def open(cls, folder) -> "TextTower | None":
        """Reads a checkpoint folder; None where only the model itself can embed text.

        Raises:
            OSError, ValueError: a file of the checkpoint cannot be read.
        """
        folder = Path(folder)
        if not all((folder / name).is_file() for name in FILES):
            return None
        config, processor = _json(folder / CONFIG), _json(folder / PROCESSOR)
        text = config.get("text_config") or {}
        plain = text.get("model_type") == "bert" and text.get("hidden_act") == "gelu" and not text.get("is_decoder")
        padded = config.get("pool_text_padding") or processor.get("text_pad_to_max")
        if config.get("model_type") != "pianobind" or not plain or padded:
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
        try:
            tokenizer = Tokenizer.from_file(os.fspath(folder / TOKENIZER))
        except Exception as error:  # tokenizers raises nothing more special
            raise ValueError(f"{folder / TOKENIZER}: is damaged ({error}); copy the file again.") from error
        limits = (_json(folder / TOKENIZER_CONFIG).get("model_max_length"), processor.get("text_max_length"))
        tokenizer.enable_truncation(int(min(limit or MAX_TEXT_TOKENS for limit in limits)))
        tokenizer.no_padding()
        return cls(text, weights, tokenizer)

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self.weights.items())

    def embed_text(self, texts: list[str]) -> np.ndarray:
        """`(len(texts), dim)` float32, unit length.

        Raises:
            ValueError: a text holds no word, or half characters; see `readable_text`.
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


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


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
