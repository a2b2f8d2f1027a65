"""PianoBindProcessor: recordings, MIDI and text -> one batch that the model takes as it is."""

import json
import os
import reprlib
from pathlib import Path
from typing import Any, Self

import numpy as np
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoTokenizer,
    BatchFeature,
    FeatureExtractionMixin,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.utils import cached_file

from .checkpoint_pianobind import MAX_TEXT_TOKENS, loading
from .encoder_extractor_pianobind import extractor_settings, max_seconds
from .feature_extraction_pianobind import PianoBindFeatureExtractor
from .inputs_pianobind import check_numbers, readable_text
from .midi_pianobind import PianoBindMidiProcessor

WINDOW_SECONDS = 20.0  # for encoders without a limit of their own
TEXT_SETTINGS = ("text_max_length", "text_pad_to_max", "text_pad_id")


class PianoBindProcessor(ProcessorMixin):
    """Reads any subset of audio, MIDI and text.

    Args:
        feature_extractor (`PianoBindFeatureExtractor`): for audio.
        tokenizer (`PreTrainedTokenizerBase`): for text.
        midi_processor (`PianoBindMidiProcessor` or `dict`, *optional*): for MIDI.
        text_max_length (`int`): longer texts are truncated to this many tokens.
        text_pad_to_max (`bool`): pad every text to `text_max_length`, as the published PianoBind does, instead of to
            the longest of the batch.
        text_pad_id (`int`, *optional*): the id of padding; the tokenizer's own by default.
    """

    def __init__(
        self,
        feature_extractor: PianoBindFeatureExtractor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        midi_processor: PianoBindMidiProcessor | dict | None = None,
        text_max_length: int = MAX_TEXT_TOKENS,
        text_pad_to_max: bool = False,
        text_pad_id: int | None = None,
    ):
        if midi_processor is None or isinstance(midi_processor, dict):
            midi_processor = PianoBindMidiProcessor.from_dict(midi_processor or {})
        if not isinstance(midi_processor, FeatureExtractionMixin):
            raise ValueError(f"`midi_processor` is {reprlib.repr(midi_processor)}; it must be a dict of its settings.")
        super().__init__(feature_extractor, tokenizer)
        self.midi_processor = midi_processor
        self.text_max_length = text_max_length
        self.text_pad_to_max = text_pad_to_max
        self.text_pad_id = text_pad_id
        check_numbers(self, {"text_max_length": 1} | ({} if text_pad_id is None else {"text_pad_id": 0}))
        if tokenizer is not None:
            check_numbers(tokenizer, {"model_max_length": 1})
            if tokenizer.pad_token is None:
                raise ValueError("the tokenizer has no padding token; set its `pad_token`.")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Loads a checkpoint's processor; a damaged one raises a ValueError of one line."""
        with loading(pretrained_model_name_or_path):
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_encoders(
        cls,
        audio: str | os.PathLike | None = None,
        midi: str | os.PathLike | None = None,
        text: str | os.PathLike | None = None,
    ) -> "PianoBindProcessor":
        """The processor for `PianoBindModel.from_encoders` of the same arguments."""
        return cls(**processor_parts(audio, midi, text))

    def __call__(
        self,
        audio: Any = None,
        midi: Any = None,
        text: str | list[str] | None = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Makes one batch of the given modalities.

        Args:
            audio: one or a list of paths or waveforms; see `PianoBindFeatureExtractor.__call__`.
            midi: one or a list of paths, bytes, symusic scores or `PianoNotes`.
            text (`str` or `list[str]`): descriptions; longer than the text tower's limit are cut.
            sampling_rate (`int`, *optional*): of waveforms in `audio`, in Hz.
            return_tensors (`str`, *optional*): "pt" or "np".
        Returns:
            `BatchFeature` whose keys are the arguments of `PianoBindModel.forward`.
        """
        if audio is None and midi is None and text is None:
            raise ValueError("nothing to process: pass `audio`, `midi` or `text`.")
        data = {}
        if audio is not None:
            data.update(self.feature_extractor(audio, sampling_rate=sampling_rate, return_tensors=return_tensors))
        if midi is not None:
            data.update(self.midi_processor(midi, return_tensors=return_tensors))
        if text is not None:
            data.update(self.tokenize(text, return_tensors=return_tensors))
        return BatchFeature(data, tensor_type=return_tensors)

    def tokenize(self, text: str | list[str], return_tensors: str | None = None) -> BatchFeature:
        """Text -> `input_ids` and `attention_mask`, each `(batch, tokens)`."""
        texts = [readable_text(each) for each in ([text] if isinstance(text, str) else text)]
        tokens = self.tokenizer(
            texts,
            padding="max_length" if self.text_pad_to_max else True,
            truncation=True,
            max_length=min(self.tokenizer.model_max_length, self.text_max_length),
            return_tensors=return_tensors if self.text_pad_id is None else "np",
        )
        if self.text_pad_id is not None:
            ids, mask = tokens["input_ids"], tokens["attention_mask"]
            tokens = {"input_ids": np.where(mask == 0, self.text_pad_id, ids), "attention_mask": mask}
            tokens = BatchFeature(tokens, tensor_type=return_tensors)
        return BatchFeature({key: tokens[key] for key in ("input_ids", "attention_mask")})

    @property
    def model_input_names(self) -> list[str]:
        return [
            *self.feature_extractor.model_input_names,
            *self.midi_processor.model_input_names,
            "input_ids",
            "attention_mask",
        ]


def processor_parts(
    audio: str | os.PathLike | None, midi: str | os.PathLike | None, text: str | os.PathLike | None
) -> dict:
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


def _extractor_around(extractor: FeatureExtractionMixin) -> PianoBindFeatureExtractor:
    limit = max_seconds(extractor) or WINDOW_SECONDS
    return PianoBindFeatureExtractor(
        sampling_rate=extractor.sampling_rate,
        window_seconds=limit,
        hop_seconds=limit / 2,
        encoder_extractor=extractor_settings(extractor),
    )


def _settings(source: str | os.PathLike, part: str) -> dict:
    """Saved settings of one part of a processor: from a whole processor, or from the file of a single tower."""
    whole, alone = _read(source, "processor_config.json"), _read(source, "preprocessor_config.json")
    settings = (whole or {}).get(part) or alone
    if settings is None:
        raise ValueError(f"{source} has no settings of its {part}; save the checkpoint together with its processor.")
    return settings


def _read(source: str | os.PathLike, name: str) -> dict | None:
    path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
    return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


__all__ = ["PianoBindProcessor"]
