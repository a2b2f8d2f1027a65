"""A checkpoint, an adapter, the metric or the demo -> the folder that the Hub gets.

A published checkpoint is loaded with `trust_remote_code=True` without the package: the folder holds the package's flat
modules unchanged, and config and processor name their classes (`auto_map`).
"""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files

import modeling_pianobind
from model_cards.hub_card import HUB_ID, HubOptions, base_of, write_card
from modeling_pianobind.service.piece_heads import DifficultyHead, EmotionHead

ROOT = Path(__file__).parent.parent.parent
PACKAGE = Path(modeling_pianobind.__file__).parent
HUB_FILES = Path(__file__).parent / "hub_files"  # further files of every published checkpoint, such as handler.py
METRIC, FIGURES = ROOT / "evaluation" / "piano_retrieval", PACKAGE / "metric"
DEMO_TEMPLATE = Path(__file__).parent / "demo_space"

CONFIG, PROCESSOR, TOKENIZER = "config.json", "processor_config.json", "tokenizer_config.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PROCESSOR_FILES = (PROCESSOR, "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
                   "*.model")  # fmt: skip
AUTO_MAP = {
    "AutoConfig": "configuration_pianobind.PianoBindConfig",
    "AutoModel": "modeling_pianobind.PianoBindModel",
    "AutoProcessor": "processing_pianobind.PianoBindProcessor",
    "AutoFeatureExtractor": "feature_extraction_pianobind.PianoBindFeatureExtractor",
}
BESIDE = (EmotionHead.file, DifficultyHead.file)  # small files for the same weights
CLASSIFICATION_TASK = "piano-classification"
CLASSIFIER = "PianoBindForSequenceClassification"
CLASSIFIER_MAP = dict.fromkeys(
    ("AutoModelForSequenceClassification", "AutoModelForAudioClassification"), f"classification_pianobind.{CLASSIFIER}"
)
OPTIONAL_MODULES = ("pipelines_pianobind", "sentence_transformers_pianobind")
METRIC_MODULES = ("ranking.py", "tie_groups.py")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.pyc")


def write_checkpoint(checkpoint: Path, folder: Path, options: HubOptions) -> None:
    """Writes the files of a full checkpoint or, if it holds an `adapter_config.json`, of an adapter.

    Raises:
        ValueError: a file is missing or wrong, or a required option is missing.
        OSError: a file cannot be read or written.
    """
    is_adapter = (checkpoint / ADAPTER_CONFIG).is_file()
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if is_adapter else (CONFIG, PROCESSOR):
        if not (checkpoint / name).is_file():
            raise ValueError(f"{checkpoint}: it has no {name}; give the folder of a checkpoint or of a PEFT adapter.")
    if is_adapter:
        settings = _read_json(checkpoint / ADAPTER_CONFIG)
        settings["base_model_name_or_path"] = base_of(checkpoint, settings, options)
        settings["auto_mapping"] = {
            "base_model_class": "PianoBindModel", "parent_library": "modeling_pianobind.modeling_pianobind"
        }  # fmt: skip
        _write_json(folder / ADAPTER_CONFIG, settings)
        _copy(checkpoint, folder, (ADAPTER_WEIGHTS,))
    else:
        settings = _read_json(checkpoint / CONFIG)
        if settings.get("model_type") != "pianobind":
            raise ValueError(
                f"{checkpoint / CONFIG}: it is of a {settings.get('model_type')!r} model, not of PianoBind."
            )
        settings["auto_map"] = _auto_map("AutoConfig", "AutoModel")
        is_classifier = CLASSIFIER in (settings.get("architectures") or ())
        if is_classifier:
            settings["auto_map"] |= CLASSIFIER_MAP
        settings |= _custom_pipelines(is_classifier)
        _write_json(folder / CONFIG, _without_local_paths(settings))
        if not _copy(checkpoint, folder, ("model*.safetensors", "model.safetensors.index.json")):
            raise ValueError(f"{checkpoint}: it has no model.safetensors; save it with `save_pretrained`.")
        _copy(checkpoint, folder, BESIDE)
        shutil.copytree(HUB_FILES, folder, dirs_exist_ok=True, ignore=LEFT_OUT)
        if (checkpoint / "onnx").is_dir():
            shutil.copytree(checkpoint / "onnx", folder / "onnx")
    if (checkpoint / PROCESSOR).is_file():
        _write_processor(checkpoint, folder)
        _copy_modules(folder, with_model=not is_adapter)
    write_card(checkpoint, folder, settings, options)


def _write_processor(checkpoint: Path, folder: Path) -> None:
    """Copies the processor and the tokenizer, and names the classes of the copied code."""
    _copy(checkpoint, folder, PROCESSOR_FILES)
    processor = _read_json(checkpoint / PROCESSOR)
    processor["auto_map"] = _auto_map("AutoProcessor", "AutoFeatureExtractor")
    if processor.get("feature_extractor"):
        processor["feature_extractor"]["auto_map"] = _auto_map("AutoFeatureExtractor")
    _write_json(folder / PROCESSOR, processor)
    if (folder / TOKENIZER).is_file():
        _write_json(folder / TOKENIZER, _without_local_paths(_read_json(folder / TOKENIZER)))


def _copy_modules(folder: Path, with_model: bool) -> None:
    """Copies the modules that the `auto_map` or a file of `hub_files` names, and all that these import."""
    classes = AUTO_MAP if with_model else ("AutoProcessor", "AutoFeatureExtractor")
    entries = {AUTO_MAP[name].split(".")[0] for name in classes}
    if with_model:
        named = {name for path in folder.glob("*") if path.suffix in (".py", ".json")
                 for name in re.findall(r"\b\w+_pianobind\b", path.read_text(encoding="utf-8"))}  # fmt: skip
        entries |= {name for name in (*named, *OPTIONAL_MODULES) if (PACKAGE / f"{name}.py").is_file()}
    for entry in entries:
        path = PACKAGE / f"{entry}.py"
        for needed in (path, *get_relative_import_files(path)):
            shutil.copyfile(needed, folder / Path(needed).name)


def _auto_map(*classes: str) -> dict:
    return {name: AUTO_MAP[name] for name in classes}


def _custom_pipelines(is_classifier: bool) -> dict:
    """The pipelines that `pipeline(task, model=..., trust_remote_code=True)` finds in the config."""
    if not (PACKAGE / "pipelines_pianobind.py").is_file():
        return {}
    from modeling_pianobind.pipelines_pianobind import CUSTOM_PIPELINES

    tasks = {name: task for name, task in CUSTOM_PIPELINES.items() if name != CLASSIFICATION_TASK}
    if is_classifier:  # of recordings alone by transformers' own pipeline, which needs ffmpeg
        tasks |= dict.fromkeys((CLASSIFICATION_TASK, "audio-classification"), CUSTOM_PIPELINES[CLASSIFICATION_TASK])
    return {"custom_pipelines": tasks}


def _without_local_paths(settings: Any) -> Any:
    """Settings without local folders in `name_or_path`."""
    if isinstance(settings, list):
        return [_without_local_paths(value) for value in settings]
    if not isinstance(settings, dict):
        return settings
    cleaned = {name: _without_local_paths(value) for name, value in settings.items()}
    for name in ("_name_or_path", "name_or_path"):
        if isinstance(value := cleaned.get(name), str) and (Path(value).is_absolute() or Path(value).exists()):
            cleaned[name] = ""
    return cleaned


def write_metric(folder: Path, repo_id: str) -> None:
    """Writes the metric's Space.

    Raises:
        ValueError: the repository has another name than the metric, which `evaluate` could then not load.
    """
    if repo_id.split("/")[1] != METRIC.name:
        raise ValueError(
            f"--repo-id is {repo_id!r}; the metric's Space must be called OWNER/{METRIC.name}, because "
            "`evaluate.load` looks for a script with the name of its repository."
        )
    shutil.copytree(METRIC, folder, dirs_exist_ok=True, ignore=LEFT_OUT)
    for module in METRIC_MODULES:
        shutil.copyfile(FIGURES / module, folder / module)
    script = folder / f"{METRIC.name}.py"  # a Space runs without the package
    script.write_text(script.read_text(encoding="utf-8").replace(f"{PACKAGE.name}.metric.", "."), encoding="utf-8")
    card = folder / "README.md"
    here = f'evaluate.load("{METRIC.relative_to(ROOT).as_posix()}")  # this folder; a Space\'s id works the same'
    card.write_text(card.read_text(encoding="utf-8").replace(here, f'evaluate.load("{repo_id}")'), encoding="utf-8")


def write_demo(folder: Path, repo_id: str, checkpoint: str | None) -> None:
    """Writes the demo's Space: the package with its example corpus, and the few lines that start its page.

    Args:
        checkpoint (`str`, *optional*): Hub id that the Space loads; the package's own checkpoint by default.
    Raises:
        ValueError: `checkpoint` is not a Hub id.
    """
    import jinja2

    if not (PACKAGE / "app").is_dir():
        raise ValueError("this version of the package has no page to show (`pianobind app`); use one that has it.")
    if checkpoint and not re.fullmatch(HUB_ID, checkpoint):
        raise ValueError(f"{checkpoint}: a Space loads a checkpoint from the Hub; publish it, then give OWNER/NAME.")
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=LEFT_OUT)
    shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    for template in DEMO_TEMPLATE.glob("*.jinja"):
        text = environment.from_string(template.read_text(encoding="utf-8")).render(
            repo_id=repo_id, checkpoint=checkpoint, requirements=_requirements("install_requires", "demo")
        )
        (folder / template.stem).write_text(text, encoding="utf-8")


def _requirements(*sections: str) -> list[str]:
    """The lines of setup.cfg's lists of requirements, such as `install_requires` or an extra."""
    from configparser import ConfigParser

    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = dict(setup["options"]) | dict(setup["options.extras_require"])
    return [line for section in sections for line in listed[section].split("\n") if line]


def _copy(source: Path, folder: Path, patterns: Iterable[str]) -> list[Path]:
    matches = sorted({path for pattern in patterns for path in source.glob(pattern) if path.is_file()})
    for path in matches:
        shutil.copyfile(path, folder / path.name)
    return matches


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: this is not JSON ({error}); copy the file again.") from error


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


__all__ = ["ADAPTER_CONFIG", "write_checkpoint", "write_demo", "write_metric"]
