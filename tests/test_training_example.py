"""The way from a folder to an adapter that finds more, as training/README.md shows it, on a few pieces."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from training import build_dataset
from training import train as training
from training.data.arguments import TrainingArguments
from training.data.build_arguments import BuildArguments
from training.data.make_example_corpus import KINDS, write_corpus
from training.loop import measure_retrieval
from training.loop.benchmark_loader import measure_rates
from training.loop.run import Run, make_accelerator

from .training_data import dataset_row, make_arguments, write_dataset

CONFIGS = Path(__file__).parent.parent / "training" / "configs"


def configured(name, **changes):
    return yaml.safe_load((CONFIGS / name).read_text()) | changes


def test_the_example_goes_from_a_folder_to_a_table_of_before_and_after(tmp_path, tiny_checkpoint, capsys):
    write_corpus(tmp_path / "music", pieces_of_a_kind=2)
    rows = list(csv.DictReader((tmp_path / "music" / "metadata.csv").open()))
    assert len(rows) == 2 * len(KINDS) and len({row["caption"] for row in rows}) > len(KINDS)
    source = configured("example_dataset.yaml")["sources"][0] | {"path": str(tmp_path / "music")}
    build = configured("example_dataset.yaml", sources=[source], output=str(tmp_path / "data"))
    (tmp_path / "build.yaml").write_text(yaml.safe_dump(build))
    assert build_dataset.main([str(tmp_path / "build.yaml")]) == 0
    stage = configured("example_lora.yaml")["stages"][0]
    stage |= {"steps": 3, "batch_size": 4, "warmup_steps": 1, "learning_rate": 0.2, "text_learning_rate": 0.2}
    output, data = str(tmp_path / "run"), str(tmp_path / "data")
    run = configured(
        "example_lora.yaml", checkpoint=str(tiny_checkpoint), corpus=data, output=output, stages=[stage], tracker=""
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run | {"workers": 0}))
    assert training.main([str(tmp_path / "run.yaml")]) == 0
    capsys.readouterr()
    adapter, figures = f"{output}/checkpoint", tmp_path / "scores.json"
    assert measure_retrieval.main([data, str(tiny_checkpoint), adapter, "--output", str(figures)]) == 0
    table = capsys.readouterr().out.splitlines()
    scores = json.loads(figures.read_text())
    assert len(table) == 8 and "recall@1, tiny | recall@1, run" in table[0]
    assert set(scores) == {str(tiny_checkpoint), adapter} and scores[adapter] != scores[str(tiny_checkpoint)]
    assert all(row["rows"] >= 3 for row in scores.values())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_files_of_runs_that_come_along_have_known_keys_only(path, monkeypatch):
    cls = BuildArguments if "dataset" in path.stem else TrainingArguments
    monkeypatch.setattr(cls, "check", lambda *_: None)  # of folders that are made by earlier commands
    assert cls.from_yaml(path).output.startswith("runs/")


def test_a_split_that_has_nothing_to_measure_is_one_line(tmp_path, tiny_checkpoint, capsys):
    data = write_dataset(tmp_path / "data", [dataset_row(0, captions=["calm"])])
    assert measure_retrieval.main([data, str(tiny_checkpoint)]) == 2
    assert "no row of split 'test'" in capsys.readouterr().err


def test_the_loader_is_timed_beside_the_bare_step(tmp_path, tiny_checkpoint):
    data = write_dataset(tmp_path / "data", [dataset_row(number, captions=["calm"]) for number in range(2)])
    arguments = make_arguments(tmp_path, tiny_checkpoint, data)
    rates = measure_rates(Run(arguments, make_accelerator(arguments)), steps=2)
    assert min(rates.values()) > 0 and rates["ratio"] == pytest.approx(rates["with_loader"] / rates["bare_step"])
