"""Training an adapter: what moves, what is saved, and that every way of loading it gives the same embeddings."""

import json
import warnings

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from modeling_pianobind import PianoBindModel, PianoBindProcessor
from training import merge_adapter
from training.loop.run import Run, make_accelerator
from training.train import TrainingLoop

from .training_data import dataset_row, make_arguments, write_dataset

TOWERS = ["midi", "text"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_checkpoint):
    """A run of four steps with adapters on the MIDI and text towers; and its folder."""
    tmp_path = tmp_path_factory.mktemp("lora")
    rows = [
        dataset_row(number, captions=[caption]) for number, caption in enumerate(["calm", "loud", "jazz", "waltz"])
    ]
    arguments = make_arguments(
        tmp_path, tiny_checkpoint, write_dataset(tmp_path / "data", rows), stage={"steps": 4, "learning_rate": 0.02},
        lora_rank=2, lora_towers=TOWERS, ema_decay=0.0,
    )  # fmt: skip
    run = Run(arguments, make_accelerator(arguments))
    TrainingLoop(run).train()
    return run, tmp_path / "run" / "checkpoint"


@pytest.fixture(scope="module")
def inputs(tiny_processor):
    return dict(
        tiny_processor(
            midi=[dataset_row(number)["midi"] for number in (1, 2)], text=["a calm waltz", "jazz"], return_tensors="pt"
        )
    )


@torch.no_grad()
def embeddings(model, inputs):
    out = model.eval()(**inputs)
    return torch.cat([part.flatten() for part in (out.midi_embeds, out.text_embeds, out.logits_per_midi)])


@pytest.fixture(scope="module")
def base_embeddings(tiny_checkpoint, inputs):
    return embeddings(PianoBindModel.from_pretrained(tiny_checkpoint), inputs)


def test_the_base_stays_bit_for_bit_and_only_adapter_projections_and_temperature_train(trained, tiny_checkpoint):
    run, _ = trained
    state, base = run.model.model.state_dict(), load_file(tiny_checkpoint / "model.safetensors")
    for name, weight in base.items():
        module, _, leaf = name.rpartition(".")
        held = [
            key for key in (name, f"{module}.base_layer.{leaf}", f"{module}.original_module.{leaf}") if key in state
        ]
        assert len(held) == 1 and torch.equal(state[held[0]], weight), name
    moving = {name for name, weight in run.model.model.named_parameters() if weight.requires_grad}
    assert moving and all("lora_" in name or "modules_to_save" in name for name in moving)
    assert not any(name.startswith("audio") for name in moving)
    assert {name.split(".")[0] for name in moving if "modules_to_save" in name} == {
        "midi_projection", "text_projection", "logit_scale",
    }  # fmt: skip


def test_the_saved_folder_holds_the_adapter_and_the_processor_and_no_base_weight(trained, tiny_checkpoint):
    _, folder = trained
    assert {path.name for path in folder.iterdir()} >= {
        "adapter_config.json", "adapter_model.safetensors", "processor_config.json", "tokenizer.json",
    }  # fmt: skip
    assert not (folder / "model.safetensors").exists()
    names = {name.removeprefix("base_model.model.") for name in load_file(folder / "adapter_model.safetensors")}
    saved = ("midi_projection.", "text_projection.", "logit_scale.")
    assert all(("lora_" in name and name.startswith(("midi_model.", "text_model."))) or name.startswith(saved)
               for name in names)  # fmt: skip
    assert {name for name in names if name.startswith(saved)} == {f"{prefix}weight" for prefix in saved}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_checkpoint.resolve()) and config["r"] == 2
    PianoBindProcessor.from_pretrained(folder)


def test_the_adapter_loads_alike_by_transformers_and_by_peft_and_is_the_base_when_disabled(
    trained, tiny_checkpoint, inputs, base_embeddings
):
    run, folder = trained
    expected = embeddings(run.model.model, inputs)
    assert not torch.allclose(expected, base_embeddings, atol=1e-2), "it has learnt something"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # as of missing keys
        by_transformers = PianoBindModel.from_pretrained(folder)
        by_peft = PeftModel.from_pretrained(PianoBindModel.from_pretrained(tiny_checkpoint), folder)
    assert torch.allclose(embeddings(by_transformers, inputs), expected, atol=1e-6)
    assert torch.allclose(embeddings(by_peft, inputs), expected, atol=1e-6)
    by_transformers.disable_adapters()
    assert torch.equal(embeddings(by_transformers, inputs), base_embeddings)
    with by_peft.disable_adapter():
        assert torch.equal(embeddings(by_peft, inputs), base_embeddings)


def test_the_merged_checkpoint_is_a_plain_one_with_the_same_embeddings(trained, tmp_path, inputs, capsys):
    _, folder = trained
    output = tmp_path / "merged"
    assert merge_adapter.main([str(folder), "--output", str(output)]) == 0
    merged = PianoBindModel.from_pretrained(output)
    assert not any("lora" in name or "base_layer" in name for name in merged.state_dict())
    expected = embeddings(PianoBindModel.from_pretrained(folder), inputs)
    assert torch.allclose(embeddings(merged, inputs), expected, atol=1e-5)
    PianoBindProcessor.from_pretrained(output)
    assert merge_adapter.main([str(folder), "--output", str(output)]) == 2
    assert "already holds something" in capsys.readouterr().err
