"""`training.build_dataset` that is killed, has no room, or whose files change meanwhile: all of a dataset, or none."""

import shutil

import pytest
import soundfile
import yaml
from datasets import load_from_disk

from training import build_dataset
from training.data.dataset_rows import inspect

from ..corpus_files import RATE, make_notes, noise, write_notes, write_samples, write_table
from .killing import Killer

KILLS, SONGS = 50, 6


@pytest.fixture
def music(tmp_path):
    """Songs as MIDI, one of them with a recording; a folder of samples renders the others."""
    write_samples(tmp_path / "samples")
    return add_songs(tmp_path / "music", range(SONGS))


def add_songs(folder, seeds):
    for seed in seeds:
        write_notes(folder / f"song{seed:02}.mid", make_notes(seed))
    soundfile.write(folder / "recorded.wav", noise(12), RATE)
    names = sorted(path.name for path in folder.iterdir() if path.suffix != ".csv")
    write_table(folder / "metadata.csv", [{"file_name": name, "licence": "CC0"} for name in names])
    return folder


@pytest.fixture
def command(tmp_path, music):
    """`command(output, **options)` -> the arguments that build the dataset of `music` there."""

    def write(output, **options):
        config = tmp_path / f"{output.name}.yaml"
        values = {
            "sources": [{"path": str(music)}],
            "output": str(output),
            "window_seconds": 15,
            "sampling_rate": RATE,
        }
        values |= {"instruments": [{"path": str(tmp_path / "samples")}], "shard_megabytes": 0.5} | options
        config.write_text(yaml.safe_dump(values))
        return [str(config)]

    return write


def content(folder) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(folder) -> dict:
    return {split: rows.to_list() for split, rows in load_from_disk(str(folder)).items()}


def kill_often(command, tmp_path, kills):
    """Kills a build twice, then lets it end."""
    whole, output, disk = tmp_path / "whole", tmp_path / "output", tmp_path / "disk"
    assert build_dataset.main(command(whole, save_to_disk=str(tmp_path / "whole_disk"))) == 0
    expected, expected_rows = content(whole), rows_of(tmp_path / "whole_disk")
    partial = tmp_path / "output.partial"

    def phase(pid):
        if (partial / "report.json").exists():
            return "saving to disk"
        if (partial / "data").exists():
            return "writing rows"
        return "reading" if partial.exists() else "starting"

    aims = [
        lambda: any(partial.glob("data/*.parquet")),
        lambda: any(partial.glob("data/*-of-*")),
        lambda: (partial / "report.json").exists(),
        lambda: any(tmp_path.glob("disk.partial/*/*")),
        lambda: disk.exists(),
        lambda: (partial / ".work").exists(),
    ]
    killer = Killer("training.build_dataset", phase, aims)
    if kills > 1:
        killer.measure(lambda name: command(tmp_path / name, save_to_disk=str(tmp_path / f"{name}-disk")))
    for number in killer.starts(kills):
        killer.kill(command(output, save_to_disk=str(disk)))
        if disk.exists() and not output.exists():
            shutil.rmtree(disk)  # killed between their two renames: the command asks for a place that is empty
        if number % 2 or killer.killed == kills or output.exists():
            if not output.exists():
                assert build_dataset.main(command(output, save_to_disk=str(disk))) == 0
            assert content(output) == expected and rows_of(disk) == expected_rows
            assert not (tmp_path / "output.partial").exists() and not (tmp_path / "disk.partial").exists()
            shutil.rmtree(output)
            shutil.rmtree(disk)
    killer.close()
    return killer


def test_a_build_that_was_killed_is_made_by_the_next_start(command, tmp_path):
    killer = kill_often(command, tmp_path, kills=1)
    assert killer.killed == 1


@pytest.mark.faults_long
def test_a_build_that_was_killed_fifty_times_is_made_by_the_next_start(command, music, tmp_path):
    add_songs(music, range(SONGS, 40))
    killer = kill_often(command, tmp_path, KILLS)
    assert killer.phases["starting"] < KILLS / 2


def test_what_a_killed_build_left_does_not_enter_the_next(command, tmp_path):
    output = tmp_path / "output"
    assert build_dataset.main(command(tmp_path / "whole")) == 0
    (tmp_path / "output.partial" / "data").mkdir(parents=True)
    (tmp_path / "output.partial" / "data" / "train-00000.parquet").write_bytes(b"PAR1 cut o")
    assert build_dataset.main(command(output)) == 0
    assert content(output) == content(tmp_path / "whole") and not (tmp_path / "output.partial").exists()


@pytest.mark.parametrize("free_bytes", [0, 40_000, 400_000])
def test_a_full_disk_is_one_line_and_nothing_half_is_left(command, disk, capsys, free_bytes):
    output = disk.folder / "deep" / "output"
    disk.fill(free_bytes)
    assert build_dataset.main(command(output)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("build_dataset:")]
    assert lines == [
        f"build_dataset: {output}: cannot be written (No space left on device); make room, or choose another place."
    ]
    assert not output.exists() and not output.with_name("output.partial").exists()
    disk.empty()
    assert build_dataset.main(command(output)) == 0


def test_a_full_disk_in_the_copy_for_load_from_disk_names_that_place(command, tmp_path, disk, capsys):
    disk.fill(20_000)
    target = disk.folder / "target"
    assert build_dataset.main(command(tmp_path / "output", save_to_disk=str(target))) == 2
    assert f"build_dataset: {target}: cannot be written (No space left on device)" in capsys.readouterr().err
    assert not target.exists() and not (tmp_path / "output").exists()


def test_a_place_that_no_folder_can_take_is_refused_before_the_work(command, disk, capsys):
    assert build_dataset.main(command(disk.folder)) == 2
    error = capsys.readouterr().err
    assert f"{disk.folder}: is where a disk is mounted" in error and error.count("\n") == 1
    assert not list(disk.folder.iterdir())


def test_a_folder_that_may_only_be_read_is_one_line(command, disk, capsys):
    disk.make_read_only()
    assert build_dataset.main(command(disk.folder / "output")) == 2
    error = capsys.readouterr().err
    assert "output: cannot be written (Read-only file system)" in error and error.count("\n") == 1


@pytest.mark.parametrize("vanishes", [True, False])
@pytest.mark.parametrize("name", ["song03.mid", "recorded.wav"])
def test_a_file_that_vanishes_or_changes_meanwhile_is_refused_and_the_others_are_done(
    command, music, tmp_path, monkeypatch, name, vanishes
):
    assert build_dataset.main(command(tmp_path / "whole")) == 0

    def inspect_and_change(piece, *rest):
        seen = inspect(piece, *rest)
        if piece.piece_id.endswith(name.split(".")[0]):
            (music / name).unlink()
            if not vanishes:
                write_notes(music / name, make_notes(77))
        return seen

    monkeypatch.setattr(build_dataset, "inspect", inspect_and_change)
    assert build_dataset.main(command(tmp_path / "output")) == 0
    refused = (tmp_path / "output" / "refused.csv").read_text().splitlines()
    assert len(refused) == 2 and ",changed," in refused[1] and name in refused[1]
    assert "changed or vanished while the dataset was built; build it again" in refused[1]
    piece = f"music/{name.split('.')[0]}"
    built, whole = (
        {row["piece_id"] for part in folder.glob("data/*") for row in pieces_of(part)}
        for folder in (tmp_path / "output", tmp_path / "whole")
    )
    assert built == whole - {piece} and piece in whole


def pieces_of(path) -> list[dict]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path, columns=["piece_id"]).to_pylist()
