"""PianoBind: piano recordings, piano MIDI and text in one embedding space.

Public names load what they need when they are first used, so that `import modeling_pianobind` costs next to nothing.
"""

import importlib

from .auto_registration import register_on_import

__version__ = "0.1.0"

_HOMES = {
    "PianoBindAudioConfig": "configuration_pianobind",
    "PianoBindConfig": "configuration_pianobind",
    "PianoBindMidiConfig": "configuration_pianobind",
    "PianoBindFeatureExtractor": "feature_extraction_pianobind",
    "PianoBindMidiProcessor": "midi_pianobind",
    "PianoBindProcessor": "processing_pianobind",
    "PianoBindAudioModel": "towers_pianobind",
    "PianoBindMidiModel": "towers_pianobind",
    "PianoBindModel": "modeling_pianobind",
    "PianoBindOutput": "modeling_pianobind",
    "contrastive_loss": "modeling_pianobind",
    "PianoEmbeddingPipeline": "pipelines_pianobind",
    "PianoTaggingPipeline": "pipelines_pianobind",
    "EmbeddingIndex": "retrieval",
    "Hit": "retrieval",
    "default_checkpoint": "retrieval",
    "describe": "retrieval",
    "embed_audio": "retrieval",
    "embed_example": "retrieval",
    "embed_midi": "retrieval",
    "embed_score": "retrieval",
    "embed_pieces": "retrieval",
    "embed_text": "retrieval",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)


register_on_import()
