"""`training.train` that is killed, has no room or loses a worker: what it saved is whole, --resume ends the same."""

import multiprocessing
import os
import shutil
import signal
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from training import train as training
from training.common.atomic_folder import atomic_folder
from training.loop.run_folder import RunFolder

from ..test_training_loop import log_of, write_config
from ..training_data import dataset_row, make_arguments, write_dataset
from .killing import Killer

KILLS = 50


@pytest.fixture
def arguments(tmp_path, tiny_checkpoint):
    """A run that saves its state after each step, and measures after every third."""
    captions = ["calm slow rainy", "fast happy jazz", "sad dark blues", "bright march", "dreamy waltz", "stormy loud"]
    rows = [dataset_row(number, captions=[caption]) for number, caption in enumerate(captions)]
    corpus = write_dataset(tmp_path / "data", rows)
    return make_arguments(
        tmp_path, tiny_checkpoint, corpus, stage={"steps": 8}, text_lora_rank=2, dropout=0.1, save_minutes=0.0,
        validation_steps=3, validation_split="train",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """As the runs that are killed: sums of several threads are rounded in another way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def command_of(arguments, output) -> list[str]:
    """The run's command as it has to be given next: with --resume where the folder holds a run already."""
    config = output.with_name(f"{output.name}.yaml")
    arguments.output = str(output)
    write_config(config, arguments)
    return [str(config), *(["--resume"] if (output / "arguments.json").exists() else [])]


def finish(arguments, output) -> None:
    assert training.main(command_of(arguments, output)) == 0


def check_equal(output, whole):
    assert log_of(output) == log_of(whole)
    for name in ("checkpoint", "best"):
        weights, expected = (load_file(folder / name / "model.safetensors") for folder in (output, whole))
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in weights)
        assert {path.name for path in (output / name).iterdir()} == {path.name for path in (whole / name).iterdir()}
    assert not [path for path in output.iterdir() if path.name.endswith((".partial", ".previous"))]
    assert len(list(output.glob("state-*"))) == 1


def check_whole(output):
    """What a killed run has saved can be loaded."""
    for name in ("checkpoint", "best"):
        if (output / name).exists():
            load_file(output / name / "model.safetensors")
            assert (output / name / "processor_config.json").exists()
    if state := RunFolder(output).latest_state():
        for name in ("weights.safetensors", "average.safetensors"):
            load_file(state[0] / name)
        stored = ("optimizer.bin", "random_states_0.pkl")
        assert all(zipfile.is_zipfile(state[0] / name) for name in stored)  # of torch, with the list at the end


def kill_often(arguments, tmp_path, kills):
    """Kills a run and its resumption, then lets it end."""
    whole, output = tmp_path / "whole", tmp_path / "killed"
    finish(arguments, whole)

    def saves(pattern):
        return any(output.glob(pattern))

    def phase(pid):
        if saves("*.partial"):
            return "saving"
        return "training" if (output / "log.jsonl").exists() else "starting"

    aims = [
        lambda: saves("checkpoint.partial/*"),
        lambda: saves("state-*.partial/*"),
        lambda: saves("best.partial"),
        lambda: saves("state-*[0-9]"),
        lambda: saves("*.previous"),
        lambda: (output / "log.jsonl").exists(),
    ]
    killer = Killer("training.train", phase, aims)
    if kills > 1:
        killer.measure(lambda name: command_of(arguments, tmp_path / name))
    for number in killer.starts(kills):
        killer.kill(command_of(arguments, output))
        check_whole(output)
        if number % 2 or killer.killed == kills:
            finish(arguments, output)
            check_equal(output, whole)
            shutil.rmtree(output)
    killer.close()
    return killer


def test_a_run_that_was_killed_while_it_saved_ends_bit_for_bit_as_one_that_was_not(arguments, tmp_path):
    killer = kill_often(arguments, tmp_path, kills=1)
    assert killer.killed == 1


@pytest.mark.faults_long
def test_a_run_that_was_killed_fifty_times_ends_bit_for_bit_as_one_that_was_not(arguments, tmp_path):
    arguments.stages[0].steps = 12
    killer = kill_often(arguments, tmp_path, KILLS)
    assert killer.phases["training"] + killer.phases["saving"] > KILLS / 2


class KilledError(BaseException):
    """Stands for a kill at a place that is too short to be hit."""


def test_a_run_killed_between_the_two_renames_of_a_checkpoint_has_it_again(arguments, tmp_path):
    whole, output = tmp_path / "whole", tmp_path / "killed"
    finish(arguments, whole)
    finish(arguments, output)
    (output / "checkpoint").rename(output / "checkpoint.previous")  # as the first of the two leaves it
    (output / "checkpoint.partial").mkdir()
    (output / "checkpoint.partial" / "of_another_version.bin").write_bytes(b"cut o")
    (output / "state-000-00000099.partial").mkdir()
    RunFolder(output).start(arguments, True, {})
    assert (output / "checkpoint" / "model.safetensors").exists()
    for state in output.glob("state-*"):
        shutil.rmtree(state)  # it starts anew
    finish(arguments, output)
    check_equal(output, whole)


def test_a_run_killed_before_its_last_measurement_is_saved_logs_it_once(arguments, tmp_path, monkeypatch):
    whole, output = tmp_path / "whole", tmp_path / "killed"
    finish(arguments, whole)
    save, measured = training.TrainingLoop.save_checkpoint, []

    def kill_at_the_end(self, name):
        if self.progress.steps == 8 and any("validation score" in line for line in log_of(output)[-1:]):
            measured.append(name)
            raise KilledError
        save(self, name)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(training.TrainingLoop, "save_checkpoint", kill_at_the_end)
        finish(arguments, output)
    assert measured
    finish(arguments, output)
    check_equal(output, whole)


def test_a_worker_that_is_killed_is_one_line_and_the_run_goes_on(arguments, tmp_path, monkeypatch, capsys):
    arguments.workers = 1
    whole, output = tmp_path / "whole", tmp_path / "killed"
    finish(arguments, whole)
    log = training.TrainingLoop.log

    def kill_the_worker(self, number, step, values):
        log(self, number, step, values)
        if step == 2:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(training.TrainingLoop, "log", kill_the_worker)
        assert training.main(command_of(arguments, output)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train:")]
    assert len(lines) == 1 and "a process that makes batches is gone" in lines[0] and "--resume" in lines[0]
    check_whole(output)
    finish(arguments, output)
    check_equal(output, whole)


@pytest.mark.parametrize("free_bytes", [0, 20_000, 150_000, 400_000])
def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    arguments, tmp_path, disk, monkeypatch, capsys, free_bytes
):
    whole, output = tmp_path / "whole", disk.folder / "run"
    finish(arguments, whole)
    log = training.TrainingLoop.log

    def fill_the_disk(self, number, step, values):
        if step == 4:
            disk.fill(free_bytes)
        log(self, number, step, values)

    capsys.readouterr()
    command = command_of(arguments, output)
    with monkeypatch.context() as patch:
        patch.setattr(training.TrainingLoop, "log", fill_the_disk)
        assert training.main(command) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train:")]
    assert len(lines) == 1 and "cannot be written (No space left on device); make room" in lines[0]
    assert str(output) in lines[0]
    check_whole(output)
    assert {"checkpoint", "best"} <= {path.name for path in output.iterdir()} and not list(output.glob("*.partial"))
    disk.empty()
    finish(arguments, output)
    check_equal(output, whole)


def test_a_folder_that_may_only_be_read_is_one_line(arguments, disk, capsys):
    finish(arguments, disk.folder / "run")
    saved = (disk.folder / "run" / "checkpoint" / "model.safetensors").read_bytes()
    commands = [command_of(arguments, disk.folder / name) for name in ("run", "other")]
    capsys.readouterr()
    disk.make_read_only()
    for name, command in zip(("run", "other"), commands, strict=True):
        assert training.main(command) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train:")]
        assert len(lines) == 1 and f"train: {disk.folder / name}" in lines[0]
        assert "cannot be written (Read-only file system); make room, or choose another place." in lines[0]
    assert (disk.folder / "run" / "checkpoint" / "model.safetensors").read_bytes() == saved


def test_two_processes_do_not_write_one_folder(tmp_path):
    with atomic_folder(tmp_path / "one") as first:
        (first / "a").write_text("1")
        with pytest.raises(ValueError, match="another process writes it"), atomic_folder(tmp_path / "one"):
            pass
    assert (tmp_path / "one" / "a").read_text() == "1"
