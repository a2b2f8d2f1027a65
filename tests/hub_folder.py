"""A checkpoint with the code and files that it has on the Hub, made without the publishing tools."""

import json
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
AUTO_MAP = {
    "config.json": {
        "AutoConfig": "configuration_pianobind.PianoBindConfig",
        "AutoModel": "modeling_pianobind.PianoBindModel",
    },
    "processor_config.json": {
        "AutoProcessor": "processing_pianobind.PianoBindProcessor",
        "AutoFeatureExtractor": "feature_extraction_pianobind.PianoBindFeatureExtractor",
    },
}


def make_hub_folder(checkpoint, folder) -> Path:
    """Copies a checkpoint to `folder` and puts beside it what makes it load without the package."""
    from modeling_pianobind.pipelines_pianobind import CUSTOM_PIPELINES

    shutil.copytree(checkpoint, folder)
    shutil.copytree(ROOT / "training" / "hub_files", folder, dirs_exist_ok=True)
    for module in (ROOT / "modeling_pianobind").glob("*_pianobind.py"):
        shutil.copy(module, folder)
    for name, auto_map in AUTO_MAP.items():
        settings = json.loads((folder / name).read_text())
        settings["auto_map"] = auto_map
        if name == "config.json":
            settings["custom_pipelines"] = CUSTOM_PIPELINES
        else:
            settings["feature_extractor"]["auto_map"] = auto_map
        (folder / name).write_text(json.dumps(settings))
    return folder
