"""The same batch on one process and on two, at once and in chunks: the same losses and gradients."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training import train as training
from training.loop.run import Run, make_accelerator

from .test_training_loop import log_of, write_config
from .training_data import dataset_row, make_arguments, write_dataset

ROOT = Path(__file__).parent.parent
ALL_LOSSES = {
    "batch_size": 8, "label_weight": 1.0, "masked_note_weight": 1.0, "view_weight": 1.0, "onset_weight": 1.0,
    "distillation_weight": 1.0, "caption_share": 0.75,
}  # fmt: skip


@pytest.fixture
def arguments(tmp_path, tiny_checkpoint):
    """Every loss there is, on rows that share songs, captions and tags, some without audio or MIDI."""
    rows = [
        dataset_row(0, audio=True, captions=["rainy"], tags=["Sad"]),
        dataset_row(1, audio=True, captions=["rainy"], tags=["Sad", "Jazz"], song=f"{0:012x}"),
        dataset_row(2, captions=["loud march"], tags=["Jazz"]),
        dataset_row(3, audio=True, midi=False, captions=["stormy"]),
        dataset_row(4, tags=["Jazz"]),
    ]
    corpus = write_dataset(tmp_path / "data", rows)
    return make_arguments(tmp_path, tiny_checkpoint, corpus, stage=ALL_LOSSES, text_lora_rank=2)


def gradients_of(arguments, chunk):
    """Losses and gradients of the first batch."""
    arguments.mini_batch_size = chunk
    run = Run(arguments, make_accelerator(arguments))
    run.optimizer(arguments.stages[0])
    run.set_modes()
    losses = run.gradients(next(iter(run.loader(0))), arguments.stages[0])
    return losses, {name: weight.grad for name, weight in run.model.named_parameters() if weight.grad is not None}


def assert_same(first, second, atol=1e-5):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.allclose(first[name], second[name], atol=atol), name


@pytest.mark.parametrize(("chunk", "dropout"), [(3, 0.0), (100, 0.1)])
def test_cached_gradients_are_those_of_the_plain_step(arguments, chunk, dropout):
    arguments.dropout = dropout
    plain_losses, plain = gradients_of(arguments, 0)
    losses, gradients = gradients_of(arguments, chunk)
    assert len(plain_losses) == 8
    assert_same(plain_losses, losses)
    assert_same(plain, gradients)


def test_two_processes_give_the_losses_of_one(arguments, tmp_path):
    training.train(arguments)
    arguments.output = str(tmp_path / "two")
    config = write_config(tmp_path / "run.yaml", arguments)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "training.train", config],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert '"processes": 2' in (tmp_path / "two" / "environment.json").read_text()
    first, second = log_of(tmp_path / "run"), log_of(tmp_path / "two")
    assert first[0].keys() == second[0].keys() and len(first) == len(second) == 2
    assert {name: second[0][name] for name in first[0]} == pytest.approx(first[0], abs=1e-5)
    assert second[1] == pytest.approx(first[1], abs=1e-3), "after a step of the optimizer, which magnifies rounding"
