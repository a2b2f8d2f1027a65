"""Pretrained encoders -> the parts of the processor that their towers need."""

import json
from pathlib import Path

from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer
from transformers.utils import cached_file

from .encoder_extractor_pianobind import extractor_settings, longest_seconds
from .feature_extraction_pianobind import PianoBindFeatureExtractor
from .midi_pianobind import PianoBindMidiProcessor

WINDOW_SECONDS = 20.0  # where an encoder itself sets no limit
TEXT_SETTINGS = ("text_max_length", "text_pad_to_max", "text_pad_id")


def processor_parts(audio, midi, text) -> dict:
    """What `PianoBindProcessor` is made of for towers loaded from these places.

    Args:
        audio, midi (`str` or `Path`, *optional*): as in `PianoBindModel.from_encoders`; ours by default.
        text (`str` or `Path`): whose tokenizer is taken.
    Raises:
        ValueError: no text encoder is given, or a place has no settings of its processor.
    """
    if text is None:
        raise ValueError(
            "a processor needs a tokenizer: name the text encoder, or any that its tokenizer is to be of."
        )
    parts = {"feature_extractor": PianoBindFeatureExtractor(), "midi_processor": PianoBindMidiProcessor()}
    if audio is not None:
        if AutoConfig.from_pretrained(audio).model_type.startswith("pianobind"):
            parts["feature_extractor"] = PianoBindFeatureExtractor.from_dict(_settings(audio, "feature_extractor"))
        else:
            parts["feature_extractor"] = _extractor_around(AutoFeatureExtractor.from_pretrained(audio))
    if midi is not None:
        parts["midi_processor"] = PianoBindMidiProcessor.from_dict(_settings(midi, "midi_processor"))
    parts["tokenizer"] = AutoTokenizer.from_pretrained(text)
    saved = _read(text, "processor_config.json") or {}
    parts.update({key: saved[key] for key in TEXT_SETTINGS if key in saved})
    return parts


def _extractor_around(extractor) -> PianoBindFeatureExtractor:
    limit = longest_seconds(extractor) or WINDOW_SECONDS
    return PianoBindFeatureExtractor(
        sampling_rate=extractor.sampling_rate,
        window_seconds=limit,
        hop_seconds=limit / 2,
        encoder_extractor=extractor_settings(extractor),
    )


def _settings(source, part: str) -> dict:
    """Saved settings of one part of a processor: of a whole one, or standing alone beside its tower."""
    whole, alone = _read(source, "processor_config.json"), _read(source, "preprocessor_config.json")
    found = (whole or {}).get(part) or alone
    if found is None:
        raise ValueError(f"{source} has no settings of its {part}; save the checkpoint together with its processor.")
    return found


def _read(source, name: str) -> dict | None:
    path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
    return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


__all__ = ["processor_parts"]
