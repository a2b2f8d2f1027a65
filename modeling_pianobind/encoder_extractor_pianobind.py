"""A Hugging Face audio encoder's own feature extractor, held by ours: rebuilt from settings, run window by window."""

import inspect
import json

import numpy as np
import torch
import transformers
from transformers import FeatureExtractionMixin


def extractor_settings(extractor: FeatureExtractionMixin) -> dict:
    """Settings from which `load_extractor` rebuilds a Hugging Face feature extractor; part of our saved settings."""
    return json.loads(extractor.to_json_string())


def load_extractor(settings: dict) -> FeatureExtractionMixin:
    """Rebuilds a feature extractor from `extractor_settings`.

    Raises:
        ValueError: this version of transformers has no feature extractor of that name.
    """
    name = settings.get("feature_extractor_type")
    extractor_class = getattr(transformers, name, None) if name else None
    if extractor_class is None:
        raise ValueError(
            f"`encoder_extractor` names the feature extractor {name!r}, which transformers {transformers.__version__} "
            "does not have; give the settings of one that it has, such as 'WhisperFeatureExtractor'."
        )
    return extractor_class.from_dict(settings)


def max_seconds(extractor: FeatureExtractionMixin) -> float | None:
    """The longest recording that an extractor takes without cutting it, in seconds; None without limit."""
    if hasattr(extractor, "chunk_length"):  # Whisper
        return float(extractor.chunk_length)
    if hasattr(extractor, "max_length_s"):  # CLAP
        return float(extractor.max_length_s)
    if hasattr(extractor, "num_mel_bins") and hasattr(extractor, "max_length"):  # AST: frames of 10 ms
        return extractor.max_length / 100
    return None


def encoder_batch(
    extractor: FeatureExtractionMixin, waveforms: list[np.ndarray], window_samples: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of windows, all of one shape.

    Args:
        waveforms (`list[np.ndarray]`): mono windows at the extractor's sampling rate, of at most `window_samples`.
    Returns:
        The encoder's main input, of shape `(windows, ...)`, and its mask `(windows, places)` int64, a single 1 if the
        extractor makes none.
    """
    settings = {"sampling_rate": extractor.sampling_rate, "return_tensors": "pt"}
    if "return_attention_mask" in inspect.signature(extractor.__call__).parameters:
        settings["return_attention_mask"] = True
    if isinstance(extractor, transformers.Wav2Vec2FeatureExtractor):
        # One length for all windows, so that a recording's features do not depend on its batch.
        settings.update(padding="max_length", max_length=window_samples, truncation=True)
    made = extractor(waveforms, **settings)
    features = made[extractor.model_input_names[0]]
    mask = made.get("attention_mask")
    return features, torch.ones(len(features), 1, dtype=torch.long) if mask is None else mask.long()


__all__ = ["encoder_batch", "extractor_settings", "load_extractor", "max_seconds"]
