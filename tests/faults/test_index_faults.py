"""`pianobind index` that is killed, has no room, or whose files change meanwhile: the next start ends the same."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from modeling_pianobind import EmbeddingIndex, embedding_pianobind
from modeling_pianobind.cli import main
from modeling_pianobind.index.storage import TEMPORARY

from .killing import ROOT, Killer, has_loaded

FILES, KILLS = 12, 50


@pytest.fixture
def music(tmp_path, write_midi):
    folder = tmp_path / "music"
    folder.mkdir()
    for number in range(FILES):
        write_midi(folder / f"{number:02}.mid", seconds=20, seed=number)
    return folder


def index_command(folder, output, checkpoint, *more) -> list[str]:
    return ["index", str(folder), "--output", str(output), "--checkpoint", str(checkpoint), "--device", "cpu", *more]


def check_equal(output, expected):
    index = EmbeddingIndex.load(output, verify=True)
    assert (index.paths, index.failures) == (expected.paths, expected.failures)
    np.testing.assert_allclose(index.embeddings, expected.embeddings, atol=1e-6)


def names(output) -> list[str]:
    """The beginnings of the names in an index's folder: those of its three files, and nothing of a killed save."""
    return sorted(path.name[:4] for path in output.iterdir())


def kill_often(music, tmp_path, write_midi, checkpoint, kills):
    """Kills `index` twice, then lets it end; each time the folder must hold a whole index or none."""
    output, fresh = tmp_path / "output", tmp_path / "fresh"

    def temporaries():
        return [path for path in output.glob(".*") if TEMPORARY.fullmatch(path.name)]

    def phase(pid):
        if any(path.name.endswith(f".{pid}") for path in temporaries()):
            return "saving"
        return "embedding" if has_loaded(pid, "symusic") else "importing"

    def aim():
        return len(temporaries()) > before

    killer = Killer("modeling_pianobind.cli", phase, [aim])
    if kills > 1:
        killer.measure(lambda name: index_command(music, tmp_path / name, checkpoint))
    for number in killer.starts(kills):
        write_midi(music / "00.mid", seconds=20, seed=1_000 + number)  # so that there is something to save
        before = len(temporaries())
        killer.kill(index_command(music, output, checkpoint))
        if (output / "index.json").exists():
            EmbeddingIndex.load(output, verify=True)
        if number % 2 or killer.killed == kills:
            assert main(index_command(music, output, checkpoint)) == 0
            assert main(index_command(music, fresh, checkpoint)) == 0
            check_equal(output, EmbeddingIndex.load(fresh))
            assert names(output) == ["embe", "inde", "rows"]
        if number % 4 == 3:
            shutil.rmtree(output)  # the next kill meets an index that is written for the first time
    killer.close()
    return killer


def test_an_index_that_was_killed_is_finished_by_the_next_start(music, tmp_path, write_midi, tiny_checkpoint):
    killer = kill_often(music, tmp_path, write_midi, tiny_checkpoint, kills=1)
    assert killer.killed == 1


@pytest.mark.faults_long
def test_an_index_that_was_killed_fifty_times_is_finished_by_the_next_start(
    music, tmp_path, write_midi, tiny_checkpoint
):
    for number in range(FILES, 60):
        write_midi(music / f"{number:03}.mid", seconds=20, seed=number)
    killer = kill_often(music, tmp_path, write_midi, tiny_checkpoint, KILLS)
    assert killer.phases["embedding"] + killer.phases["saving"] > KILLS / 2


@pytest.mark.faults_long
def test_a_kill_costs_no_more_than_the_time_between_two_saves():
    program = [
        sys.executable,
        "-m",
        "tests.faults.lost_work",
        "--kills",
        "5",
        "--longest",
        "20",
        "--save-seconds",
        "2",
    ]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, check=True)
    result = json.loads(done.stdout)
    assert len(result["runs"]) == 5 and any(run["saved"] for run in result["runs"])
    assert result["most_lost_seconds"] < 10, "a save begins every two seconds; a busy machine needs time for it"


def test_what_killed_saves_have_left_is_removed_by_the_next(music, tmp_path, tiny_checkpoint):
    output = tmp_path / "output"
    assert main(index_command(music, output, tiny_checkpoint)) == 0
    for name in (".rows.123", ".embeddings.123", ".index.json.123", "rows-0.parquet", "embeddings-0.safetensors"):
        (output / name).write_bytes(b"cut o")
    (output / "notes.txt").write_text("mine")
    assert main(index_command(music, output, tiny_checkpoint)) == 0
    assert names(output) == ["embe", "inde", "note", "rows"]
    EmbeddingIndex.load(output, verify=True)


def test_one_shard_that_is_killed_leaves_the_others_and_is_made_by_the_next_start(music, tmp_path, tiny_checkpoint):
    output, whole = tmp_path / "output", tmp_path / "whole"
    assert main(index_command(music, output, tiny_checkpoint, "--shard", "2/2")) == 0
    killed = output / "shard-00001-of-00002"
    killed.mkdir()
    (killed / ".embeddings.123").write_bytes(b"cut o")
    (killed / "rows-0.parquet").write_bytes(b"whole, but named by no header")
    with pytest.raises(ValueError, match="1 of 2 shards are finished; run `pianobind index` with --shard 1/2"):
        EmbeddingIndex.load(output)
    assert main(index_command(music, output, tiny_checkpoint, "--shard", "1/2")) == 0
    assert names(killed) == ["embe", "inde", "rows"]
    assert main(index_command(music, whole, tiny_checkpoint)) == 0
    actual, expected = (
        dict(zip(index.paths, index.embeddings, strict=True)) for index in map(EmbeddingIndex.load, (output, whole))
    )
    assert actual.keys() == expected.keys()
    assert all(np.allclose(actual[path], expected[path], atol=1e-6) for path in actual)


@pytest.mark.parametrize("free_bytes", [0, 4_096, 12_288])
def test_a_full_disk_leaves_the_index_that_was_there(music, disk, tiny_checkpoint, capsys, free_bytes):
    output = disk.folder / "output"
    assert main(index_command(music, output, tiny_checkpoint)) == 0
    before = EmbeddingIndex.load(output)
    (music / "01.mid").write_bytes((music / "02.mid").read_bytes())
    disk.fill(free_bytes)
    assert main(index_command(music, output, tiny_checkpoint)) == 2
    error = capsys.readouterr().err
    assert f"{output}: cannot be written (No space left on device); choose another place" in error
    assert error.count("\n") == 1
    check_equal(output, before)
    assert names(output) == ["embe", "inde", "rows"]
    disk.empty()
    assert main(index_command(music, output, tiny_checkpoint)) == 0
    assert EmbeddingIndex.load(output).paths == before.paths


def test_a_folder_that_may_only_be_read_is_one_line(music, disk, tiny_checkpoint, capsys):
    output = disk.folder / "output"
    assert main(index_command(music, output, tiny_checkpoint)) == 0
    before = EmbeddingIndex.load(output)
    (music / "01.mid").write_bytes((music / "02.mid").read_bytes())
    disk.make_read_only()
    for target in (output, disk.folder / "other"):
        assert main(index_command(music, target, tiny_checkpoint)) == 2
        error = capsys.readouterr().err
        assert f"{target}: cannot be written (Read-only file system); choose another place" in error
        assert error.count("\n") == 1
    check_equal(output, before)


@pytest.fixture
def before_reading(monkeypatch):
    """`before_reading(function)` calls it with each path after it was listed and hashed, before it is read."""
    checked = embedding_pianobind.check_content

    def set_function(function):
        def check_content(path, modality):
            function(path)
            checked(path, modality)

        monkeypatch.setattr(embedding_pianobind, "check_content", check_content)

    return set_function


def test_a_file_that_vanishes_after_listing_is_named_and_the_others_are_done(
    music, tmp_path, tiny_checkpoint, before_reading, capsys
):
    before_reading(lambda path: path.endswith("03.mid") and os.unlink(path))
    assert main(index_command(music, tmp_path / "output", tiny_checkpoint)) == 2
    assert "03.mid: does not exist; check the path." in capsys.readouterr().err
    assert len(EmbeddingIndex.load(tmp_path / "output")) == FILES - 1


def test_a_file_that_changes_after_listing_is_not_taken_for_what_it_held_before(
    music, tmp_path, tiny_checkpoint, before_reading, capsys
):
    output, fresh = tmp_path / "output", tmp_path / "fresh"
    copy = music / "copy.mid"

    def change(path):
        if path.endswith("03.mid") and not copy.exists():
            shutil.copyfile(path, copy)
            shutil.copyfile(music / "04.mid", path)

    before_reading(change)
    assert main(index_command(music, output, tiny_checkpoint)) == 2
    error = capsys.readouterr().err
    assert "03.mid: changed or vanished while it was read; try it again." in error and error.count("\n") == 1
    assert len(EmbeddingIndex.load(output)) == FILES - 1
    assert main(index_command(music, output, tiny_checkpoint)) == 0
    assert main(index_command(music, fresh, tiny_checkpoint)) == 0
    check_equal(output, EmbeddingIndex.load(fresh))
