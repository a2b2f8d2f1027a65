"""Nothing that is loaded runs code of its own, and names cannot lead out of a folder.

HTML in titles is tested in test_app.py, limits of the endpoint in test_endpoint.py, damaged bytes in fuzz/.
"""

import ast
import os
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import modeling_pianobind
from modeling_pianobind import PianoBindModel, default_checkpoint
from modeling_pianobind.cli import main
from training.loop.optimization import MovingAverage
from training.loop.run_state import Progress, keep_with_state

from .conftest import save_tiny_checkpoint

ROOT = Path(modeling_pianobind.__file__).parent.parent
SOURCES = [
    path
    for folder in ("modeling_pianobind", "training", "evaluation", "model_cards")
    for path in (ROOT / folder).rglob("*.py")
]
PICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


class Payload:
    """What a hostile pickle does when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def loads_a_pickle(node) -> bool:
    """Whether a syntax tree's node is a call that may load a pickle, or brings a module for that."""
    if isinstance(node, ast.Import):
        return any(name.name.split(".")[0] in PICKLERS for name in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] in PICKLERS
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    options = {option.arg: ast.unparse(option.value) for option in node.keywords}
    match ast.unparse(node.func):
        case "torch.load":
            return options.get("weights_only") != "True"
        case "np.load":
            return options.get("allow_pickle", "False") != "False"
        case "pd.read_pickle" | "yaml.load" | "yaml.unsafe_load" | "yaml.full_load":
            return True
        case name if name.endswith("register_for_checkpointing"):  # accelerate loads these with `weights_only=False`
            return True
    return False


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from joblib import load", "torch.load(path)", "torch.load(path, weights_only=False)",
     "np.load(path, allow_pickle=True)", "yaml.load(text)", "accelerator.register_for_checkpointing(model)"],
)  # fmt: skip
def test_the_search_for_pickles_finds_them(line):
    assert any(map(loads_a_pickle, ast.walk(ast.parse(line))))


def test_no_line_loads_a_pickle():
    lines = [
        f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if loads_a_pickle(node)
    ]
    # names the class of torch's error for a pickle that `weights_only` refuses
    assert [line.split(":")[0] for line in lines] == ["modeling_pianobind/convert_original_checkpoint.py"]
    assert lines[0].endswith("import pickle")


def test_a_checkpoint_whose_weights_are_a_pickle_is_refused(tmp_path, capsys):
    folder, ran = tmp_path / "checkpoint", tmp_path / "ran"
    save_tiny_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale.weight": Payload(ran)}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=f"{folder}: "):
        PianoBindModel.from_pretrained(folder)
    example = next((ROOT / "modeling_pianobind" / "examples").glob("*.mid"))
    assert main(["describe", str(example), "--checkpoint", str(folder)]) == 2
    assert str(folder) in capsys.readouterr().err
    assert not ran.exists()


def test_a_runs_state_runs_no_code(tmp_path):
    accelerator, model = Accelerator(cpu=True), nn.Linear(2, 2)
    average, progress = MovingAverage(model, 0.9), Progress(steps=7)
    keep_with_state(accelerator, model, average, progress)
    state = tmp_path / "state"
    accelerator.save_state(str(state))
    progress.steps, expected = 0, model.weight.clone()
    nn.init.zeros_(model.weight)
    torch.save(Payload(tmp_path / "ran"), state / "random_states_0.pkl")
    accelerator.load_state(str(state))  # accelerate warns, and goes on without
    assert progress.steps == 7 and torch.equal(model.weight, expected)
    torch.save(Payload(tmp_path / "ran"), state / "custom_checkpoint_0.pkl")
    with pytest.raises(RuntimeError, match="custom checkpoints"):
        accelerator.load_state(str(state))
    assert not (tmp_path / "ran").exists()


def test_the_packages_own_checkpoint_brings_no_code_and_no_pickle():
    assert {path.suffix for path in Path(default_checkpoint()).iterdir()} == {".json", ".safetensors", ".md"}
