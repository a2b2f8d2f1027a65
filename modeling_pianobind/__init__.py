"""PianoBind: piano recordings, piano MIDI and text in one embedding space.

Public names load what they need when they are first used, so that `import modeling_pianobind` costs next to nothing.
"""

import importlib
import sys

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
    "embed_pieces": "retrieval",
    "embed_text": "retrieval",
}

__all__ = [*_HOMES, "__version__"]

# Auto class -> (transformers module that defines it, how to register ours there). Registering waits until transformers
# imports that module, because importing transformers here would take seconds from whoever needs no Auto class.
_AUTO_MODULES = {
    "transformers.models.auto.configuration_auto": ("AutoConfig", "configuration_pianobind"),
    "transformers.models.auto.modeling_auto": ("AutoModel", "modeling_pianobind"),
    "transformers.models.auto.feature_extraction_auto": ("AutoFeatureExtractor", "feature_extraction_pianobind"),
    "transformers.models.auto.processing_auto": ("AutoProcessor", "processing_pianobind"),
    "transformers.pipelines": ("AutoModel", "pipelines_pianobind"),
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)


def _register(auto_module):
    """Makes one Auto class, or the pipelines, of an imported transformers module know ours."""
    auto_name, home = _AUTO_MODULES[auto_module]
    auto_class = getattr(sys.modules[auto_module], auto_name)
    configuration = importlib.import_module(".configuration_pianobind", __name__)
    ours = importlib.import_module(f".{home}", __name__)
    if auto_module == "transformers.pipelines":
        for task, settings in ours.CUSTOM_PIPELINES.items():
            pipeline_class = getattr(ours, settings["impl"].split(".")[1])
            sys.modules[auto_module].PIPELINE_REGISTRY.register_pipeline(task, pipeline_class, auto_class)
    elif auto_name == "AutoConfig":
        for config in ("PianoBindConfig", "PianoBindAudioConfig", "PianoBindMidiConfig"):
            config_class = getattr(configuration, config)
            auto_class.register(config_class.model_type, config_class, exist_ok=True)
    elif auto_name == "AutoModel":
        towers = importlib.import_module(".towers_pianobind", __name__)
        auto_class.register(configuration.PianoBindConfig, ours.PianoBindModel, exist_ok=True)
        auto_class.register(configuration.PianoBindAudioConfig, towers.PianoBindAudioModel, exist_ok=True)
        auto_class.register(configuration.PianoBindMidiConfig, towers.PianoBindMidiModel, exist_ok=True)
    else:
        auto_class.register(
            configuration.PianoBindConfig, getattr(ours, auto_name.replace("Auto", "PianoBind")), exist_ok=True
        )


_OWN_MODULES = {f"{__name__}.{home}" for home in _HOMES.values()}
_loading, _waiting = set(), []


class _RegisterOnImport:
    """A finder that finds nothing itself; it only has a module of `_AUTO_MODULES` registered once it has run.

    A module of ours that is first imported imports transformers, while its own classes are yet to come: registering
    then waits until ours is there too.
    """

    def find_spec(self, name, path=None, target=None):
        if name not in _AUTO_MODULES and name not in _OWN_MODULES:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((found for finder in others if (found := finder.find_spec(name, path, target))), None)
        if spec is not None:
            run = spec.loader.exec_module

            def run_and_register(module):
                _loading.add(name)
                try:
                    run(module)
                finally:
                    _loading.discard(name)
                if name in _AUTO_MODULES:
                    _waiting.append(name)
                while _waiting and not _loading & _OWN_MODULES:
                    _register(_waiting.pop(0))

            spec.loader.exec_module = run_and_register
        return spec


for _module in _AUTO_MODULES:
    if _module in sys.modules:
        _register(_module)
sys.meta_path.insert(0, _RegisterOnImport())
