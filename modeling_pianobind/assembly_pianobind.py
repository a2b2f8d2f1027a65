"""Pretrained encoders -> the towers of a first, untrained checkpoint."""

import inspect

import torch
from transformers import AutoConfig, AutoModel

from .audio_encoder_pianobind import PianoBindEncoderTower, audio_encoder_of
from .towers_pianobind import PianoBindAudioModel, PianoBindMidiModel


def load_tower(modality: str, source, whole_class):
    """Loads one modality's pretrained encoder.

    Args:
        modality (`str`): "audio", "midi" or "text".
        source (`str` or `Path`): Hub id or folder of an encoder, or of a whole PianoBind checkpoint.
        whole_class: `PianoBindModel`.
    Returns:
        The tower, and its PianoBind config where it comes from a whole checkpoint, else None.
    Raises:
        ValueError: there is no encoder for this modality in it.
    """
    config = AutoConfig.from_pretrained(source)
    float32 = {"dtype": torch.float32}  # training starts from full precision, whatever is on disk
    if config.model_type == "pianobind":
        return whole_class.from_pretrained(source, **float32)._tower(modality), config
    own_class = {"audio": PianoBindAudioModel, "midi": PianoBindMidiModel}.get(modality)
    if own_class is not None and config.model_type == own_class.config_class.model_type:
        return own_class.from_pretrained(source, **float32), None
    if modality == "midi" or config.model_type.startswith("pianobind"):
        raise ValueError(
            f"{source} holds a {config.model_type!r} model; the {modality} tower needs a PianoBind checkpoint with one"
            + (", or MIDI-BERT converted by `convert_original_checkpoint`." if modality == "midi" else ".")
        )
    if modality == "audio":
        encoder = audio_encoder_of(AutoModel.from_pretrained(source, **float32))
        return PianoBindEncoderTower(encoder.config, encoder), None
    if getattr(config, "is_encoder_decoder", False) or not hasattr(config, "hidden_size"):
        raise ValueError(f"{source} holds a {config.model_type!r} model, not a text encoder; give one such as BERT.")
    return AutoModel.from_pretrained(source, **float32, **without_pooler(config)), None


def without_pooler(config) -> dict:
    """What to tell a text encoder's class, so that it leaves out BERT's pooler, whose weights no loss would reach."""
    model_class = AutoModel._model_mapping[type(config)]
    takes = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if takes else {}


__all__ = ["load_tower", "without_pooler"]
