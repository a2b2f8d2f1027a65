"""The published PianoBind's settings: the config and the processor that its weights need.

Parameters, as its own code counts them and as they stand here:

| part | published | here |
|---|---|---|
| audio tower | 2,439,176 | 2,439,176 |
| MIDI tower | 111,235,504 | 86,673,920 |
| text tower | 124,645,632 | 124,055,040 |
| projections (131,072 audio, 393,216 MIDI, 393,216 text) and temperature | 917,505 | 917,505 |
| trimodal | 239,237,817 | 214,085,641 |
| audio_text | 127,609,097 | 127,018,505 |
| midi_text | 236,667,569 | 211,515,393 |

No embedding depends on what is left out. Of the MIDI tower that is the word embedding (23,440,896), the pooler
(590,592), the absolute positions (393,216), the masked language heads (135,344) and the second token type (768); the
first one (768) is added to every note alike, so it stands in the input projection's bias. Of the text tower it is the
pooler (590,592).
"""

from typing import Any

from transformers import PreTrainedConfig, RobertaConfig

from ..compound_words_pianobind import FIELD_SIZES
from ..configuration_pianobind import PianoBindAudioConfig, PianoBindConfig, PianoBindMidiConfig
from ..feature_extraction_pianobind import PianoBindFeatureExtractor
from ..midi_pianobind import PianoBindMidiProcessor

TOWERS = {"trimodal": ("audio", "midi", "text"), "audio_text": ("audio", "text"), "midi_text": ("midi", "text")}
TEXT_SETTINGS = {"text_max_length": 77, "text_pad_to_max": True, "text_pad_id": 0}
TOKENIZER = "FacebookAI/roberta-base"


def original_audio_config(**overrides: Any) -> PianoBindAudioConfig:
    """CLIP's ResNet for 128 bands x 626 frames (20 s)."""
    settings = {"architecture": "modified_resnet", "num_mel_bins": 128, "frame_seconds": 0.032, "window_frames": 626}
    return PianoBindAudioConfig(**{**settings, **overrides})


def original_midi_config(**overrides: Any) -> PianoBindMidiConfig:
    """MIDI-BERT (arXiv 2107.05223), BERT's base size with relative key-query positions."""
    settings = {
        "field_sizes": FIELD_SIZES,
        "field_embedding_size": 256,
        "scale_embeddings": True,
        "embedding_norm": True,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "norm_position": "post",
        "position_embedding_type": "relative_key_query",
        "max_relative_position": 512,
        "pool_padding": True,
        "layer_norm_eps": 1e-12,
    }
    return PianoBindMidiConfig(**{**settings, **overrides})


def original_text_config(**overrides: Any) -> RobertaConfig:
    """roberta-base."""
    settings = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    return RobertaConfig(**{**settings, **overrides})


def original_config(
    audio: PreTrainedConfig | None = None,
    midi: PreTrainedConfig | None = None,
    text: PreTrainedConfig | None = None,
    projection_dim: int = 512,
) -> PianoBindConfig:
    """The whole model of the given towers' configs: no audio-MIDI loss, text pooled over its padding."""
    return PianoBindConfig(
        audio_config=audio,
        midi_config=midi,
        text_config=text,
        projection_dim=projection_dim,
        pool_text_padding=True,
        loss_pairs=("audio_text", "midi_text"),
    )


def original_feature_extractor(**overrides: Any) -> PianoBindFeatureExtractor:
    """Mel decibels of 20 s at 16 kHz; bands 116 to 127 of the 128 lie above 8 kHz and are always empty."""
    settings = {
        "feature_size": 128,
        "fft_size": 1024,
        "hop_length": 512,
        "min_frequency": 0.0,
        "max_frequency": 11_025.0,
        "top_db": 100.0,
        "normalize": "none",
        "window_norm": True,
        "filter_precision": "float32",
    }
    return PianoBindFeatureExtractor(**{**settings, **overrides})


def original_midi_processor(**overrides: Any) -> PianoBindMidiProcessor:
    """Compound words of 20 s, at most 512."""
    return PianoBindMidiProcessor(**{"representation": "compound_word", "max_notes": 512, **overrides})


__all__ = [
    "original_audio_config",
    "original_config",
    "original_feature_extractor",
    "original_midi_config",
    "original_midi_processor",
    "original_text_config",
]
