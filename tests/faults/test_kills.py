"""`kill -9` and other faults in the middle of `pianobind index`: the next start ends with the same result."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from modeling_pianobind import EmbeddingIndex
from modeling_pianobind.cli import main

FILES, KILLS = 12, 50


@pytest.fixture
def music(tmp_path, write_midi):
    folder = tmp_path / "music"
    folder.mkdir()
    for number in range(FILES):
        write_midi(folder / f"{number:02}.mid", seconds=20, seed=number)
    return folder


def index_command(folder, output, checkpoint) -> list[str]:
    return ["index", str(folder), "--output", str(output), "--checkpoint", str(checkpoint), "--device", "cpu"]


def check_equal(output, expected):
    index = EmbeddingIndex.load(output)
    assert index.paths == expected.paths
    np.testing.assert_allclose(index.embeddings, expected.embeddings, atol=1e-6)


def kill_often(music, tmp_path, checkpoint, kills):
    """Kills `index` at random moments of its run; each time the folder must hold a whole index or none."""
    output = tmp_path / "output"
    command = [sys.executable, "-m", "modeling_pianobind.cli"]
    start = time.monotonic()
    subprocess.run([*command, *index_command(music, tmp_path / "timed", checkpoint)], check=True, capture_output=True)
    seconds = time.monotonic() - start
    source, killed = random.Random(0), 0
    for number in range(kills):
        # Another file each time, so that there is always something to embed and to save.
        (music / "00.mid").write_bytes((music / f"{number % (FILES - 1) + 1:02}.mid").read_bytes())
        run = subprocess.Popen(
            [*command, *index_command(music, output, checkpoint)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            run.wait(source.uniform(0.3, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            killed += 1
        if (output / "index.json").exists():
            EmbeddingIndex.load(output, verify=True)
    assert killed, "every run ended before it was killed"
    assert main(index_command(music, output, checkpoint)) == 0
    fresh = tmp_path / "fresh"
    assert main(index_command(music, fresh, checkpoint)) == 0
    check_equal(output, EmbeddingIndex.load(fresh))
    print(f"{killed} of {kills} runs were killed before they ended")


@pytest.mark.faults_long
def test_an_index_that_was_killed_fifty_times_is_finished_by_the_next_start(music, tmp_path, tiny_checkpoint):
    kill_often(music, tmp_path, tiny_checkpoint, KILLS)


def test_a_full_disk_leaves_the_index_that_was_there(music, tmp_path, tiny_checkpoint, monkeypatch, capsys):
    output = tmp_path / "output"
    assert main(index_command(music, output, tiny_checkpoint)) == 0
    before = EmbeddingIndex.load(output)
    (music / "01.mid").write_bytes((music / "02.mid").read_bytes())

    def full(handle):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)  # where a disk says at last that it is full
    assert main(index_command(music, output, tiny_checkpoint)) == 2
    assert "cannot be written (No space left on device); choose another place" in capsys.readouterr().err
    check_equal(output, before)
    assert sorted(path.name[:4] for path in output.iterdir()) == ["embe", "inde", "rows"]


def test_a_file_that_vanishes_after_listing_is_named_and_the_others_are_done(
    music, tmp_path, tiny_checkpoint, monkeypatch, capsys
):
    from modeling_pianobind import embedding_pianobind

    checked = embedding_pianobind.check_content

    def vanishing(path, modality):
        if path.endswith("03.mid"):
            os.unlink(path)
        checked(path, modality)

    monkeypatch.setattr(embedding_pianobind, "check_content", vanishing)
    assert main(index_command(music, tmp_path / "output", tiny_checkpoint)) == 2
    assert "03.mid: does not exist; check the path." in capsys.readouterr().err
    assert len(EmbeddingIndex.load(tmp_path / "output")) == FILES - 1
