"""The training loop on a tiny model and six synthetic pieces."""

import json

import numpy as np
import pytest
import torch

from modeling_pianobind import PianoBindModel, PianoBindProcessor
from training import train as training
from training.arguments import StageArguments, TrainingArguments
from training.corpus import PackedCorpus

from .test_training_parts import ROWS, scale_notes


@pytest.fixture
def arguments(tmp_path, tiny_checkpoint):
    """A run of two steps."""
    rows = [
        {**ROWS[number % 3], "id": f"piece {number}", "song": f"{number:02x}", "split": "train"} for number in range(6)
    ]
    PackedCorpus.pack(rows, [scale_notes(40, 0.2 + 0.1 * number) for number in range(6)]).save(tmp_path / "packed")
    return TrainingArguments(
        checkpoint=str(tiny_checkpoint),
        corpus=str(tmp_path / "packed"),
        output=str(tmp_path / "run"),
        stages=[
            StageArguments(
                steps=2, batch_size=4, label_weight=1.0, masked_note_weight=1.0, warmup_steps=1, learning_rate=0.02
            )
        ],
        text_lora_rank=2,
        workers=0,
        save_minutes=0.0,  # after every step, so that a checkpoint replaces another one twice
    )


def test_a_run_writes_a_checkpoint_that_loads_with_other_weights_and_the_adapter_merged(arguments, tmp_path):
    before = PianoBindModel.from_pretrained(arguments.checkpoint).state_dict()
    training.train(arguments)
    model = PianoBindModel.from_pretrained(tmp_path / "run" / "checkpoint")
    assert model.dtype == torch.float32
    after = model.state_dict()
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.allclose(before[name], after[name], atol=1e-3)}
    assert any(name.startswith("midi_model") for name in moved)
    assert not any(name.startswith("audio_model") for name in moved), "no audio was given"
    PianoBindProcessor.from_pretrained(tmp_path / "run" / "checkpoint")


def test_the_log_names_every_loss(arguments, tmp_path):
    training.train(arguments)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {"midi_text", "label", "masked_note", "gradient_norm"} <= lines[0].keys()
    assert all(np.isfinite(line["midi_text"]) for line in lines)
    assert json.loads((tmp_path / "run" / "arguments.json").read_text())["text_lora_rank"] == 2


def test_the_same_seed_gives_the_same_losses(arguments, tmp_path):
    losses = []
    for name in ("one", "two"):
        arguments.output = str(tmp_path / name)
        training.train(arguments)
        losses.append(
            [json.loads(line)["midi_text"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        )
    assert losses[0] == losses[1]


def test_frozen_towers_and_their_projections_are_left_out_of_training(arguments):
    model = PianoBindModel.from_pretrained(arguments.checkpoint)
    wrapped = training.TrainingModel(model, 2)
    training.freeze(wrapped, ["midi", "text"])
    trained = {name.split(".")[0] for name, weight in wrapped.model.named_parameters() if weight.requires_grad}
    assert trained == {"audio_model", "audio_projection", "logit_scale"}


def test_a_fault_in_a_batch_stops_the_run_and_names_its_rows(arguments, monkeypatch):
    def fail(*_):
        raise RuntimeError("the matrix is unwell")

    monkeypatch.setattr(training, "caption_relations", fail)
    with pytest.raises(RuntimeError, match="unwell") as caught:
        training.train(arguments)
    assert "rows: piece" in caught.value.__notes__[0]
