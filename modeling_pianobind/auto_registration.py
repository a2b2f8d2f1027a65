"""Registers PianoBind with transformers' Auto classes and pipelines.

`import modeling_pianobind` makes `AutoModel.from_pretrained(checkpoint)` and `pipeline("piano-embedding")` work.
Registering at import would import transformers' Auto classes and torch: 4.8 s on two CPU cores, where the command line
itself starts in 0.11 s. Registration therefore waits for the import of one of the five modules of transformers that
define the Auto classes.

The finder below reacts to these modules and to our own, and ignores all others. It does not change loaders: our loader
calls the original one and takes itself out of the module's spec.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGE = __name__.rpartition(".")[0]
# module of transformers -> its Auto class, and our module whose classes are registered there
AUTO_MODULES = {
    "transformers.models.auto.configuration_auto": ("AutoConfig", "configuration_pianobind"),
    "transformers.models.auto.modeling_auto": ("AutoModel", "modeling_pianobind"),
    "transformers.models.auto.feature_extraction_auto": ("AutoFeatureExtractor", "feature_extraction_pianobind"),
    "transformers.models.auto.processing_auto": ("AutoProcessor", "processing_pianobind"),
    "transformers.pipelines": ("AutoModel", "pipelines_pianobind"),
}


def register_on_import() -> None:
    """Registers with the Auto classes that are imported already, and with each other one when it is imported."""
    for module in AUTO_MODULES:
        if module in sys.modules:
            _register(module)
    sys.meta_path.insert(0, _Finder())


def _register(auto_module: str) -> None:
    """Registers our classes with one Auto class, or with the pipelines, of an imported transformers module."""
    auto_name, home = AUTO_MODULES[auto_module]
    auto_class = getattr(sys.modules[auto_module], auto_name)
    configuration = importlib.import_module(".configuration_pianobind", PACKAGE)
    ours = importlib.import_module(f".{home}", PACKAGE)
    if auto_module == "transformers.pipelines":
        for task, settings in ours.CUSTOM_PIPELINES.items():
            pipeline_class = getattr(ours, settings["impl"].split(".")[1])
            model_class = getattr(sys.modules["transformers.models.auto.modeling_auto"], settings["pt"][0])
            sys.modules[auto_module].PIPELINE_REGISTRY.register_pipeline(task, pipeline_class, model_class)
    elif auto_name == "AutoConfig":
        for config in ("PianoBindConfig", "PianoBindAudioConfig", "PianoBindMidiConfig"):
            config_class = getattr(configuration, config)
            auto_class.register(config_class.model_type, config_class, exist_ok=True)
    elif auto_name == "AutoModel":
        towers = importlib.import_module(".towers_pianobind", PACKAGE)
        auto_class.register(configuration.PianoBindConfig, ours.PianoBindModel, exist_ok=True)
        auto_class.register(configuration.PianoBindAudioConfig, towers.PianoBindAudioModel, exist_ok=True)
        auto_class.register(configuration.PianoBindMidiConfig, towers.PianoBindMidiModel, exist_ok=True)
        classifier = importlib.import_module(".classification_pianobind", PACKAGE).PianoBindForSequenceClassification
        for name in ("AutoModelForSequenceClassification", "AutoModelForAudioClassification"):
            of_task = getattr(sys.modules[auto_module], name)
            of_task.register(configuration.PianoBindConfig, classifier, exist_ok=True)
    else:
        ours_class = getattr(ours, auto_name.replace("Auto", "PianoBind"))
        auto_class.register(configuration.PianoBindConfig, ours_class, exist_ok=True)


def _is_own(module: str) -> bool:
    return module.startswith(f"{PACKAGE}.") and module.endswith("_pianobind")


class _Finder(MetaPathFinder):
    """Notices the import of the modules above and of our own; finds none itself.

    Our modules import transformers before they define their classes: registration also waits until none of them
    is partly imported.
    """

    def __init__(self):
        self._half_imported, self._waiting = set(), []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in AUTO_MODULES and not _is_own(fullname):
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(
            (other_spec for finder in others if (other_spec := finder.find_spec(fullname, path, target))), None
        )
        if spec is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec

    def started(self, name: str) -> None:
        if _is_own(name):
            self._half_imported.add(name)

    def ended(self, name: str, is_there: bool) -> None:
        self._half_imported.discard(name)
        if is_there and name in AUTO_MODULES:
            self._waiting.append(name)
        while self._waiting and not self._half_imported:
            _register(self._waiting.pop(0))


class _Loader(Loader):
    """Loads a module by its own loader, and tells the finder."""

    def __init__(self, loader: Loader, finder: _Finder):
        self._loader, self._finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__spec__.name
        module.__loader__ = module.__spec__.loader = self._loader
        self._finder.started(name)
        is_there = False
        try:
            self._loader.exec_module(module)
            is_there = True
        finally:
            self._finder.ended(name, is_there)


__all__ = ["register_on_import"]
