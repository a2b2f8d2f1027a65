"""PianoBind: piano recordings, piano MIDI and text in one embedding space.

Public names load what they need when they are first used, so that `import modeling_pianobind` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

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
    "PianoBindForSequenceClassification": "classification_pianobind",
    "PianoClassificationPipeline": "pipelines_pianobind",
    "PianoEmbeddingPipeline": "pipelines_pianobind",
    "PianoTaggingPipeline": "pipelines_pianobind",
    "EmbeddingIndex": "retrieval",
    "Hit": "retrieval",
    "default_checkpoint": "retrieval",
    "describe": "retrieval",
    "describe_difficulty": "moods",
    "describe_emotion": "moods",
    "embed_audio": "retrieval",
    "embed_example": "retrieval",
    "embed_midi": "retrieval",
    "embed_score": "retrieval",
    "embed_pieces": "retrieval",
    "embed_text": "retrieval",
    "refine": "retrieval",
}

__all__ = [*_HOMES, "__version__"]


if TYPE_CHECKING:  # for editors and type checkers, which do not run `__getattr__`
    from .classification_pianobind import PianoBindForSequenceClassification as PianoBindForSequenceClassification
    from .configuration_pianobind import PianoBindAudioConfig as PianoBindAudioConfig
    from .configuration_pianobind import PianoBindConfig as PianoBindConfig
    from .configuration_pianobind import PianoBindMidiConfig as PianoBindMidiConfig
    from .feature_extraction_pianobind import PianoBindFeatureExtractor as PianoBindFeatureExtractor
    from .midi_pianobind import PianoBindMidiProcessor as PianoBindMidiProcessor
    from .modeling_pianobind import PianoBindModel as PianoBindModel
    from .modeling_pianobind import PianoBindOutput as PianoBindOutput
    from .modeling_pianobind import contrastive_loss as contrastive_loss
    from .moods import describe_difficulty as describe_difficulty
    from .moods import describe_emotion as describe_emotion
    from .pipelines_pianobind import PianoClassificationPipeline as PianoClassificationPipeline
    from .pipelines_pianobind import PianoEmbeddingPipeline as PianoEmbeddingPipeline
    from .pipelines_pianobind import PianoTaggingPipeline as PianoTaggingPipeline
    from .processing_pianobind import PianoBindProcessor as PianoBindProcessor
    from .retrieval import EmbeddingIndex as EmbeddingIndex
    from .retrieval import Hit as Hit
    from .retrieval import default_checkpoint as default_checkpoint
    from .retrieval import describe as describe
    from .retrieval import embed_audio as embed_audio
    from .retrieval import embed_example as embed_example
    from .retrieval import embed_midi as embed_midi
    from .retrieval import embed_pieces as embed_pieces
    from .retrieval import embed_score as embed_score
    from .retrieval import embed_text as embed_text
    from .retrieval import refine as refine
    from .towers_pianobind import PianoBindAudioModel as PianoBindAudioModel
    from .towers_pianobind import PianoBindMidiModel as PianoBindMidiModel


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


register_on_import()
