"""The text tower of a saved checkpoint on numpy, for searches by words alone.

A search of a saved index or a cached folder embeds a few words and nothing else. For BERT text towers numpy does that
without the seconds that importing torch and transformers takes. `TextTower.open` returns None for all other text
towers; the model itself is loaded for these.
"""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..checkpoint_pianobind import (
    CONFIG,
    COPY_AGAIN,
    FILES,
    MAX_TEXT_TOKENS,
    NO_EMBEDDING,
    PROCESSOR,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    cannot_load,
    loading,
    read_json,
    reason_of,
    weights_fingerprint,
)
from ..inputs_pianobind import readable_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextTower:
    """A saved checkpoint's fingerprint and BERT text tower, on numpy.

    Use `TextTower.open`; `embed_text` equals that of the model to float32's precision.
    """

    def __init__(self, config: dict, weights: dict[str, np.ndarray], tokenizer: "Tokenizer", source: Path):
        self.config, self.weights, self.tokenizer, self.source = config, weights, tokenizer, source

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "TextTower | None":
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
            reason = f"the weights are damaged ({reason_of(error)})"
            raise ValueError(f"{folder / WEIGHTS}: {reason}; {COPY_AGAIN}.") from error
        try:
            tokenizer = Tokenizer.from_file(os.fspath(folder / TOKENIZER))
        except Exception as error:  # tokenizers raises nothing more special
            raise ValueError(f"{folder / TOKENIZER}: is damaged ({reason_of(error)}); {COPY_AGAIN}.") from error
        tokenizer.enable_truncation(min(*limits, text["max_position_embeddings"]))
        tokenizer.no_padding()
        tower = cls(text, weights, tokenizer, folder)
        with loading(folder), np.errstate(all="ignore"):
            tower.embed_text(["piano"])
        return tower

    @property
    def fingerprint(self) -> str:
        return weights_fingerprint(self.weights.items())

    def embed_text(self, texts: list[str]) -> np.ndarray:
        """`(len(texts), dim)` float32, unit length.

        Raises:
            ValueError: a text holds no word, or half characters, see `readable_text`; or a weight is not a number.
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

    def _weight(self, name: str) -> np.ndarray:
        return self.weights[f"text_model.{name}"]

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self._weight(f"{name}.weight").T + self._weight(f"{name}.bias")

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.config["layer_norm_eps"])
        return scaled * self._weight(f"{name}.LayerNorm.weight") + self._weight(f"{name}.LayerNorm.bias")


def _is_plain_bert(config: object) -> bool:
    """Whether a text tower's config is one that `TextTower` computes; the model itself judges all others."""
    if not isinstance(config, dict) or config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        return False
    counts = [config.get(name) for name in ("num_attention_heads", "num_hidden_layers", "max_position_embeddings")]
    return _are_counts(counts) and isinstance(config.get("layer_norm_eps"), float) and not config.get("is_decoder")


def _are_counts(values: Iterable) -> bool:
    return all(type(value) is int and value > 0 for value in values)


def _split_heads(x: np.ndarray, heads: int) -> np.ndarray:
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _gelu(x: np.ndarray) -> np.ndarray:
    """`x` times the normal distribution's integral up to it.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26 for erf; off by at most 1.5e-7.
    """
    z = np.abs(x) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return x * 0.5 * (1 + np.sign(x) * (1 - series * np.exp(-z * z)))


__all__ = ["TextTower"]
