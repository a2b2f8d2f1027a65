"""The training loop on a tiny model and a few synthetic pieces: what it trains, writes, measures, refuses, resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from modeling_pianobind import PianoBindModel, PianoBindProcessor
from training import train as training
from training.data.arguments import CorpusArguments, InstrumentArguments, StageArguments, TrainingArguments
from training.data.augmentation import NoteAugmentation
from training.data.corpus import PackedCorpus
from training.loop import losses, objective
from training.loop.optimization import freeze

from .test_training_parts import ROWS, scale_notes
from .training_data import dataset_row, make_arguments, write_dataset

ROOT = Path(__file__).parent.parent


@pytest.fixture
def arguments(tmp_path, tiny_checkpoint):
    """A run of two steps."""
    rows = [{**ROWS[number % 3], "id": f"piece {number}", "song": f"{number:02x}"} for number in range(6)]
    PackedCorpus.pack(rows, [scale_notes(40, 0.2 + 0.1 * number) for number in range(6)]).save(tmp_path / "packed")
    stage = {"label_weight": 1.0, "masked_note_weight": 1.0, "view_weight": 1.0, "view_share": 1.0}
    stage |= {"view_queue": 6, "statistics_weight": 1.0}
    return make_arguments(
        tmp_path,
        tiny_checkpoint,
        str(tmp_path / "packed"),
        stage=stage | {"learning_rate": 0.02, "text_learning_rate": 0.02},
        text_lora_rank=2,
        augmentation=NoteAugmentation(),
        save_minutes=0.0,  # after every step, so that a checkpoint replaces another one
    )


def log_of(folder, *without) -> list[dict]:
    lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", *without)} for line in lines]


def write_config(path, arguments) -> str:
    path.write_text(yaml.safe_dump(asdict(arguments)))
    return str(path)


def test_a_run_writes_a_checkpoint_that_loads_with_other_weights_and_the_adapter_merged(arguments, tmp_path):
    before = PianoBindModel.from_pretrained(arguments.checkpoint).state_dict()
    training.train(arguments)
    model = PianoBindModel.from_pretrained(tmp_path / "run" / "checkpoint")
    assert model.dtype == torch.float32
    after = model.state_dict()
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.allclose(before[name], after[name], atol=1e-3)}
    assert any(name.startswith("midi_model") for name in moved)
    assert any("query" in name for name in moved), "the text tower's adapter is merged"
    assert not any(name.startswith("audio_model") for name in moved), "no audio was given"
    PianoBindProcessor.from_pretrained(tmp_path / "run" / "checkpoint")
    assert not list((tmp_path / "run").glob("*.partial")) and len(list((tmp_path / "run").glob("state-*"))) == 1


def test_the_folder_of_a_run_says_what_was_run_with_what_and_what_came_of_it(arguments, tmp_path):
    arguments.tracker = "tensorboard"
    training.train(arguments)
    lines = log_of(tmp_path / "run")
    assert {"midi_text", "label", "masked_note", "view", "statistics", "gradient_norm"} <= lines[0].keys()
    assert all(np.isfinite(line["midi_text"]) for line in lines)
    assert json.loads((tmp_path / "run" / "arguments.json").read_text())["text_lora_rank"] == 2
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["git_revision"] == (head or None), "None outside of a clone"
    assert list((tmp_path / "run" / "trackers").rglob("events*"))


def test_the_same_seed_gives_the_same_losses(arguments, tmp_path):
    logs = []
    for name in ("one", "two"):
        arguments.output = str(tmp_path / name)
        training.train(arguments)
        logs.append(log_of(tmp_path / name))
    assert logs[0] == logs[1]


def test_frozen_towers_and_their_projections_are_left_out_of_training(arguments, tiny_checkpoint):
    wrapped = objective.TrainingModel(PianoBindModel.from_pretrained(tiny_checkpoint))

    def trained():
        return {name for name, weight in wrapped.model.named_parameters() if weight.requires_grad}

    arguments.stages[0].frozen = ["midi", "text"]
    freeze(wrapped, arguments, arguments.stages[0])
    assert {name.split(".")[0] for name in trained()} == {"audio_model", "audio_projection", "logit_scale"}
    arguments.train_text_tower = True
    arguments.stages[0].frozen, arguments.stages[0].frozen_layers = ["audio"], {"midi": 1, "text": 2}
    freeze(wrapped, arguments, arguments.stages[0])
    towers = {name for name in trained() if name.startswith(("midi_model", "text_model"))}
    assert towers and all(
        name.startswith(("midi_model.encoder.layers.1", "midi_model.encoder.final")) for name in towers
    )
    assert {"midi_projection.weight", "text_projection.weight"} <= trained()


def test_a_fault_in_a_batch_stops_the_run_and_names_its_rows(arguments, monkeypatch):
    def fail(*_):
        raise RuntimeError("the matrix is unwell")

    monkeypatch.setattr(losses, "text_relations", fail)
    with pytest.raises(RuntimeError, match="unwell") as caught:
        training.train(arguments)
    assert "rows: piece" in caught.value.__notes__[0]


def test_a_fault_in_a_row_names_the_row(arguments, monkeypatch):
    def fail(*_):
        raise RuntimeError("the notes are unwell")

    monkeypatch.setattr(PackedCorpus, "notes", fail)
    with pytest.raises(RuntimeError, match="unwell") as caught:
        training.train(arguments)
    assert "in row piece" in caught.value.__notes__[0]


def test_eight_pairs_are_memorised_and_the_best_weights_kept(tmp_path, tiny_checkpoint):
    captions = ["calm slow rainy", "fast happy jazz", "sad dark blues", "bright march", "dreamy waltz", "stormy loud",
                "gentle swing", "high nocturne"]  # fmt: skip
    rows = [dataset_row(number, captions=[caption]) for number, caption in enumerate(captions)]
    run = make_arguments(
        tmp_path, tiny_checkpoint, write_dataset(tmp_path / "data", rows),
        stage={"steps": 80, "batch_size": 8, "warmup_steps": 5, "learning_rate": 0.01, "text_learning_rate": 0.005},
        train_text_tower=True, given_caption_share=1.0, average_decay=0.9, validation_steps=40,
        validation_split="train",
    )  # fmt: skip
    training.train(run)
    measured = [line for line in log_of(run.output) if "validation score" in line]
    assert [line["step"] for line in measured] == [39, 79]
    assert measured[-1]["validation text_to_midi recall@1"] == measured[-1]["validation midi_to_text recall@1"] == 1.0
    best = PianoBindModel.from_pretrained(tmp_path / "run" / "best").state_dict()
    last = PianoBindModel.from_pretrained(tmp_path / "run" / "checkpoint").state_dict()
    is_last = measured[-1]["validation score"] > measured[0]["validation score"]
    assert all(torch.equal(best[name], last[name]) for name in best) == is_last


def test_a_dry_run_tells_shapes_sizes_and_time_and_writes_nothing(arguments, tmp_path, capsys):
    config = write_config(tmp_path / "run.yaml", arguments)
    assert training.main([config, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "midi_ids (4, " in told and "minutes in all" in told and "6 rows, 4 of each batch" in told
    total = sum(
        weight.numel() for weight in PianoBindModel.from_pretrained(arguments.checkpoint).midi_model.parameters()
    )
    assert f"midi_model: {total:,} parameters, {total:,} of them train" in told
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_not_overwritten_and_only_the_same_run_is_resumed(arguments, tmp_path, capsys):
    config = write_config(tmp_path / "run.yaml", arguments)
    assert training.main([config, "--resume"]) == 2 and "holds no run" in capsys.readouterr().err
    assert training.main([config]) == 0
    assert training.main([config]) == 2 and "holds a run already" in capsys.readouterr().err
    arguments.weight_decay = 0.5
    assert training.main([write_config(tmp_path / "run.yaml", arguments), "--resume"]) == 2
    assert "other weight_decay" in capsys.readouterr().err


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(arguments, tmp_path):
    arguments.dropout, arguments.stages[0].steps, arguments.workers = 0.1, 12, 1
    arguments.stages.append(StageArguments(steps=2, batch_size=4))
    arguments.output = str(tmp_path / "whole")
    training.train(arguments)
    arguments.output = str(tmp_path / "killed")
    config = write_config(tmp_path / "run.yaml", arguments)
    log = tmp_path / "killed" / "log.jsonl"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    run = subprocess.Popen([sys.executable, "-m", "training.train", config], cwd=ROOT, env=environment)
    while run.poll() is None and (not log.exists() or log.read_text().count("\n") < 3):
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "the run ended before it was killed"
    assert training.main([config, "--resume"]) == 0
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole") and len(log_of(tmp_path / "whole")) == 14
    weights = [
        PianoBindModel.from_pretrained(tmp_path / name / "checkpoint").state_dict() for name in ("killed", "whole")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_every_key_has_a_help_text_and_the_help_of_the_command_shows_it(capsys):
    with pytest.raises(SystemExit):
        training.main(["--help"])
    told = capsys.readouterr().out
    for cls in (TrainingArguments, StageArguments, CorpusArguments, InstrumentArguments, NoteAugmentation):
        assert is_dataclass(cls)
        for item in fields(cls):
            assert item.metadata["help"] in told and f"  {item.name} (" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": [{"steps": 1, "batchsize": 2}]}, "unknown key batchsize"),
        ({"lora_rank": "four"}, "lora_rank: must be int"),
        ({"lora_rank": 4, "lora_towers": ["video"]}, "has video"),
        ({"stages": [{"steps": 0}]}, "`steps` is 0"),
        ({"corpus": [{"folder": "x"}]}, "unknown key folder"),
        ({"corpus": []}, "`corpus` is empty"),
        ({"instruments": [{"path": "nowhere.sf3"}]}, "does not exist"),
        ({"source_weights": {"a": "much"}}, "source_weights: a: must be float"),
        ({"checkpoint": None}, "checkpoint: must be str"),
    ],
)
def test_a_bad_key_is_one_line_that_names_file_and_key(tmp_path, capsys, change, message):
    values = {"checkpoint": "a", "corpus": "b", "output": str(tmp_path / "c"), "stages": [{"steps": 1}]} | change
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    assert training.main([str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error and str(path) in error and error.count("\n") == 1
