"""The folder that goes to the Hub: what is in it, what is refused, and that it loads without the package."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from safetensors.numpy import save_file
from transformers.dynamic_module_utils import get_relative_imports

from modeling_pianobind import embed_audio, embed_midi, embed_text
from training.publish import main

from .hub_client import ROOT, Client

PACKAGE = ROOT / "modeling_pianobind"


def results_of(checkpoint: Path, licence="CC BY 4.0") -> dict:
    """A small file of results, as evaluation.evaluate_checkpoint writes them."""
    scores = {"macro_roc_auc": 0.625, "macro_roc_auc_interval": [0.6, 0.65]}
    return {
        "weights_sha256": hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest(),
        "split": "valid",
        "protocols": {"tagging": {"scores": scores, "baselines": {"chance": {"macro_roc_auc": 0.5}}}},
        "sources": [{"name": "asap", "pieces": 3, "licence": licence}],
    }


def publish(*arguments) -> int:
    return main([*map(str, arguments), "--dry-run"])


@pytest.fixture(scope="module")
def published(tiny_checkpoint, tmp_path_factory):
    """The published folder of the tiny checkpoint, with results."""
    folder = tmp_path_factory.mktemp("publish")
    results = folder / "measured.json"
    results.write_text(json.dumps(results_of(tiny_checkpoint)))
    target = ("--repo-id", "someone/tiny", "--licence", "cc-by-nc-sa-4.0", "--dataset", "someone/corpus@abc123")
    assert publish(tiny_checkpoint, *target, "--results", results, "--output", folder / "tiny") == 0
    return folder / "tiny"


def test_the_folder_holds_weights_as_they_are_and_all_the_code_that_they_need(published, tiny_checkpoint):
    for name in ("model.safetensors", "tokenizer.json"):
        assert (published / name).read_bytes() == (tiny_checkpoint / name).read_bytes()
    config, processor = (
        json.loads((published / name).read_text()) for name in ("config.json", "processor_config.json")
    )
    named = [*config["auto_map"].values(), *processor["auto_map"].values()]
    named += processor["feature_extractor"]["auto_map"].values()
    named += [pipeline["impl"] for pipeline in config["custom_pipelines"].values()]
    modules = {path.stem for path in published.glob("*_pianobind.py")}
    assert {reference.split(".")[0] for reference in named} | {"sentence_transformers_pianobind"} <= modules
    for module in modules:
        assert (published / f"{module}.py").read_bytes() == (PACKAGE / f"{module}.py").read_bytes()
        assert set(get_relative_imports(published / f"{module}.py")) <= modules
    for path in (ROOT / "training" / "hub" / "hub_files").glob("*.*"):
        assert (published / path.name).read_bytes() == path.read_bytes()
    assert not [path for path in published.rglob("*") if path.name == "__pycache__"]


def test_card_and_leaderboard_files_quote_the_results(published):
    card = ModelCard.load(published / "README.md")
    assert (card.data.license, card.data.pipeline_tag) == ("cc-by-nc-sa-4.0", "feature-extraction")
    assert [widget["text"] for widget in card.data.widget]
    assert [(entry.metric_value, entry.dataset_type) for entry in card.data.eval_results] == [
        (0.625, "someone/corpus")
    ]
    assert '"someone/tiny", trust_remote_code=True' in card.text and "0.625" in card.text
    entries = parse_eval_result_entries(yaml.safe_load((published / ".eval_results" / "corpus.yaml").read_text()))
    assert [(entry.dataset_id, entry.dataset_revision, entry.value) for entry in entries] == [
        ("someone/corpus", "abc123", 0.625)
    ]
    assert json.loads((published / "results.json").read_text())["split"] == "valid"
    assert "by-nc-sa/4.0" in (published / "LICENSE").read_text()
    assert (published / "LICENSE-CODE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_a_checkpoints_own_card_stays_and_its_pictures_come_along(tiny_checkpoint, tmp_path):
    checkpoint = tmp_path / "own"
    shutil.copytree(tiny_checkpoint, checkpoint)
    (tmp_path / "map.png").write_bytes(b"a picture")
    (checkpoint / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# Mine\n\n![A map](../map.png)\n")
    assert publish(checkpoint, "--repo-id", "someone/own", "--output", tmp_path / "out") == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.text.strip().startswith("# Mine\n\n![A map](plots/map.png)") and '"someone/own"' in card.text
    assert (tmp_path / "out" / "plots" / "map.png").read_bytes() == b"a picture"


def test_no_folder_of_this_machine_is_published(tiny_checkpoint, tmp_path):
    checkpoint = tmp_path / "local"
    shutil.copytree(tiny_checkpoint, checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"]["_name_or_path"] = "/home/somebody/encoder"
    config["audio_config"]["_name_or_path"] = "owner/encoder"
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert publish(checkpoint, "--repo-id", "a/b", "--licence", "cc0-1.0", "--output", tmp_path / "out") == 0
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["text_config"]["_name_or_path"] == ""
    assert written["audio_config"]["_name_or_path"] == "owner/encoder"


@pytest.fixture(scope="module")
def local_adapter(tmp_path_factory):
    """The folder of an adapter that was trained on a checkpoint of this machine."""
    folder = tmp_path_factory.mktemp("adapter")
    settings = {"peft_type": "LORA", "r": 2, "base_model_name_or_path": "/home/somebody/runs/start"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"base_model.model.midi_model.layers.0.lora_A.weight": np.zeros((2, 8), np.float32)},
              folder / "adapter_model.safetensors")  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CHECKPOINT", "--repo-id", "a/b"], "say `--licence ID`"),
        (["CHECKPOINT", "--repo-id", "a/b", "--licence", "wtfpl"], "--licence-file"),
        (["CHECKPOINT", "--repo-id", "a/b", "--licence", "cc-by-4.0", "--results", "NC"], "used commercially"),
        (["CHECKPOINT", "--repo-id", "a/b", "--licence", "cc-by-4.0", "--results", "OTHER"], "other weights"),
        (["CHECKPOINT", "--repo-id", "a/b", "--licence", "cc-by-4.0", "--results", "NONE"], "are not results"),
        (["CHECKPOINT", "--repo-id", "alone", "--licence", "cc-by-4.0"], "OWNER/NAME"),
        (["nowhere", "--repo-id", "a/b"], "is not a folder"),
        (["EMPTY", "--repo-id", "a/b"], "has no config.json"),
        (["ADAPTER", "--repo-id", "a/b", "--licence", "cc-by-4.0"], "--base-model OWNER/NAME"),
        (["--space", "metric", "--repo-id", "a/b"], "OWNER/piano_retrieval"),
        (["EMPTY", "--space", "demo", "--repo-id", "a/b"], "publish it, then give OWNER/NAME"),
        (["CHECKPOINT", "--repo-id", "a/b", "--licence", "cc-by-4.0", "--output", "CHECKPOINT"], "already holds"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments, message, tiny_checkpoint, local_adapter, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    named = {"CHECKPOINT": tiny_checkpoint, "ADAPTER": local_adapter, "EMPTY": tmp_path / "empty"}
    for name, changes in (("NC", {}), ("OTHER", {"weights_sha256": "0"})):
        named[name] = tmp_path / f"{name}.json"
        named[name].write_text(json.dumps(results_of(tiny_checkpoint, "CC BY-NC-SA 4.0") | changes))
    named["NONE"] = tiny_checkpoint / "config.json"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert publish(*(named.get(argument, argument) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_adapters_card_names_its_base_on_the_hub(local_adapter, tmp_path):
    target = ("--repo-id", "someone/mine", "--licence", "cc-by-4.0", "--base-model", "someone/tiny")
    assert publish(local_adapter, *target, "--output", tmp_path / "out") == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.base_model, card.data.library_name) == ("someone/tiny", "peft")
    assert (
        json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == "someone/tiny"
    )
    assert "| midi | 16 |" in card.text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "README.md", "LICENSE",
    }  # fmt: skip


def test_the_metrics_space_is_its_folder_under_its_name_on_the_hub(tmp_path):
    assert publish("--space", "metric", "--repo-id", "someone/piano_retrieval", "--output", tmp_path / "out") == 0
    source = ROOT / "evaluation" / "piano_retrieval"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(path.name for path in source.iterdir() if path.is_file()), "ranking.py", "tie_groups.py",
    }  # fmt: skip
    assert "from .ranking import" in (tmp_path / "out" / "piano_retrieval.py").read_text()
    assert 'evaluate.load("someone/piano_retrieval")' in (tmp_path / "out" / "README.md").read_text()
    assert ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()["app_file"] == "app.py"


def test_the_demos_space_holds_the_package_and_starts_its_page(tmp_path):
    target = ("--space", "demo", "--repo-id", "someone/demo")
    assert publish("someone/tiny", *target, "--output", tmp_path / "out") == 0
    card = ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()
    assert (card["sdk"], card["models"]) == ("gradio", ["someone/tiny"])
    compile((tmp_path / "out" / "app.py").read_text(), "app.py", "exec")
    assert '"--checkpoint", "someone/tiny"' in (tmp_path / "out" / "app.py").read_text()
    requirements = (tmp_path / "out" / "requirements.txt").read_text().split("\n")
    assert "symusic==0.5.8" in requirements and any(line.startswith("gradio") for line in requirements)
    assert (tmp_path / "out" / "modeling_pianobind" / "examples" / "examples.jsonl").is_file()


LOAD_AND_EMBED = """
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor

try:
    import modeling_pianobind
except ModuleNotFoundError:
    modeling_pianobind = None
remote = {"trust_remote_code": True, **settings}
model, report = AutoModel.from_pretrained(name, output_loading_info=True, **remote)
processor = AutoProcessor.from_pretrained(name, **remote)
output = model(**processor(audio=[audio], midi=[midi], text=[text], return_tensors="pt"))
result = {
    "has_package": modeling_pianobind is not None,
    "missing": [*report["missing_keys"], *report["unexpected_keys"]],
    "config": type(AutoConfig.from_pretrained(name, **remote)).__name__,
    "extractor": type(AutoFeatureExtractor.from_pretrained(name, **remote)).__name__,
    **{modality: output[modality + "_embeds"].tolist() for modality in ("audio", "midi", "text")},
}
"""


def test_without_the_package_the_folder_embeds_the_same(
    published, tiny_model, tiny_processor, write_audio, write_midi, tmp_path
):
    audio, midi = write_audio(tmp_path / "long.wav", seconds=25), write_midi(tmp_path / "long.mid", seconds=45)
    client = Client(tmp_path, has_package=False, HF_HUB_OFFLINE="1")
    actual = client.run(LOAD_AND_EMBED, name=published, settings={}, audio=audio, midi=midi, text="calm, slow, rainy")
    client.close()
    assert (actual["has_package"], actual["missing"]) == (False, [])
    assert (actual["config"], actual["extractor"]) == ("PianoBindConfig", "PianoBindFeatureExtractor")
    expected = {
        "audio": embed_audio(tiny_model, tiny_processor, [audio]),
        "midi": embed_midi(tiny_model, tiny_processor, [midi]),
        "text": embed_text(tiny_model, tiny_processor, ["calm, slow, rainy"]),
    }
    for modality, embeds in expected.items():
        np.testing.assert_allclose(actual[modality], embeds, atol=1e-6, err_msg=modality)
