"""A first index that is killed keeps what it did; a second look at a folder reads nothing twice; ensembles."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import symusic

from modeling_pianobind import EmbeddingIndex, cli
from modeling_pianobind.index import build, shards
from modeling_pianobind.index.build import FolderContent, embed_folder
from modeling_pianobind.notes_pianobind import read_midi
from modeling_pianobind.service import progress

from .test_finder import PITCHES, write_scale

SLOW = """
import sys, time
from modeling_pianobind.index import build
from modeling_pianobind import cli, embedding_pianobind
build.SAVE_SECONDS, build.SAVE_SHARE = 0.2, 1.0
embed = embedding_pianobind.embed_files
def slowly(model, processor, paths, **settings):
    for position, path in enumerate(paths):
        for _, file in embed(model, processor, [path], **settings):
            time.sleep(0.05)
            print("done", flush=True)
            yield position, file
embedding_pianobind.embed_files = slowly
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def music(tmp_path, write_midi):
    folder = tmp_path / "music"
    folder.mkdir()
    for number in range(30):
        write_midi(folder / f"{number:02}.mid", seed=number)
        os.utime(folder / f"{number:02}.mid", (1, 1))
    return folder


def test_a_first_index_that_is_killed_loses_no_more_than_the_time_between_two_saves(music, tmp_path, tiny_checkpoint):
    output = tmp_path / "index"
    command = ["index", str(music), "--output", str(output), "--checkpoint", str(tiny_checkpoint)]
    run = subprocess.Popen([sys.executable, "-c", SLOW, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for _ in range(20):
        assert run.stdout.readline() == b"done\n"
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    index = EmbeddingIndex.load(output, verify=True)
    assert 8 <= len(index) <= 21 and not index.complete  # a save begins every 0.2 s, files come every 0.05 s or slower
    assert cli.main(command) == 0
    index = EmbeddingIndex.load(output)
    assert len(index) == 30 and index.complete


def test_an_unfinished_index_is_searched_with_a_warning(
    music, tmp_path, tiny_model, tiny_processor, capsys, tiny_checkpoint
):
    index = EmbeddingIndex.build(tiny_model, tiny_processor, music)
    index.complete = False
    index.save(tmp_path / "index")
    assert cli.main(["search", str(tmp_path / "index"), "calm", "--checkpoint", str(tiny_checkpoint)]) == 0
    assert "was stopped before it was finished" in capsys.readouterr().err


def test_an_unfinished_shard_does_not_count(music, tmp_path, tiny_model, tiny_processor):
    index = EmbeddingIndex.build(tiny_model, tiny_processor, music)
    index.complete = False
    index.save(shards.shard_folder(tmp_path / "index", 1, 2))
    assert shards.shards_of(tmp_path / "index") == {2: []}
    with pytest.raises(ValueError, match="0 of 2 shards are finished"):
        EmbeddingIndex.load(tmp_path / "index")


class File:
    """What `embed_files` yields of a file."""

    windows, spans, error = np.ones((1, 2), np.float32), np.array([[0.0, 8.0]]), None
    notes = measures = reading = None
    embedding = np.array([1, 0], np.float32)


def test_files_whose_size_and_times_stayed_are_not_hashed_again(music, monkeypatch):
    hashed = []
    content_hash = build.content_hash
    monkeypatch.setattr(
        build, "content_hash", lambda path: (hashed.append(os.path.basename(path)), content_hash(path))[1]
    )
    monkeypatch.setattr(build, "SETTLED_SECONDS", -10.0)  # files of this test are as new as can be

    def embed(paths):
        return ((position, File()) for position in range(len(paths)))

    first = embed_folder(music, FolderContent(), embed)
    assert len(hashed) == 30
    assert embed_folder(music, first, embed).rows[0].content_hash == first.rows[0].content_hash and len(hashed) == 30
    (music / "03.mid").write_bytes((music / "04.mid").read_bytes())
    embed_folder(music, first, embed)
    assert hashed[30:] == ["03.mid"]


def test_a_file_that_changed_a_moment_ago_is_hashed_the_next_time_too(music, monkeypatch):
    now = time.time()
    os.utime(music / "03.mid", (now, now))
    content = embed_folder(music, FolderContent(), lambda paths: ((row, File()) for row in range(len(paths))))
    stamps = {os.path.basename(row.path): row.stamp for row in content.rows}
    assert stamps["03.mid"] == (0, 0, 0)


def test_lines_say_how_far_the_work_has_come(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)
    with progress.ProgressLines() as lines:
        lines.begin("embedded", 4)
        lines.step()
        time.sleep(0.1)
    assert "pianobind: 1 of 4 files are embedded; less than a minute to go" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["describe", "x.m4b"], ["search", "{folder}", "calm"], ["describe", "no.mid"]])
def test_what_no_model_is_needed_for_is_said_before_it_is_loaded(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.m4b").write_bytes(b"x")
    (tmp_path / "no.mid").write_bytes(b"x")
    monkeypatch.setattr(cli.Checkpoint, "_loaded", property(lambda self: pytest.fail("the model was loaded")))
    monkeypatch.setattr(cli.Checkpoint, "_text_tower", property(lambda self: pytest.fail("the text tower was loaded")))
    (tmp_path / "empty").mkdir()
    assert cli.main([argument.format(folder=tmp_path / "empty") for argument in arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


class TestEnsembles:
    def test_the_pianos_tracks_are_taken_with_one_line(self, tmp_path):
        solo = read_midi(write_scale(tmp_path / "solo.mid", PITCHES["D minor"], 96))
        with pytest.warns(UserWarning, match="its 1 piano track is taken; notes for program 33 are left out") as said:
            trio = read_midi(write_scale(tmp_path / "trio.mid", PITCHES["D minor"], 96, others=[32]))
        assert len(said) == 1 and np.array_equal(solo.onset, trio.onset) and np.array_equal(solo.pitch, trio.pitch)

    def test_solo_only_refuses_them_and_forgets_it_without(self, tmp_path, tiny_checkpoint, capsys):
        folder, output = tmp_path / "music", tmp_path / "index"
        folder.mkdir()
        write_scale(folder / "solo.mid", PITCHES["D minor"], 96)
        write_scale(folder / "trio.mid", PITCHES["E flat major"], 96, others=[32, 40])
        command = ["index", str(folder), "--output", str(output), "--checkpoint", str(tiny_checkpoint)]
        for solo_only, pieces in ((True, 1), (False, 2), (True, 1), (False, 2)):
            assert cli.main(command + ["--solo-only"] * solo_only) == (2 if solo_only else 0)
            out, err = capsys.readouterr()
            assert f"{pieces} pieces" in out and ("not a piano piece" in err) == solo_only

    def test_a_file_without_a_piano_is_refused(self, tmp_path):
        score = symusic.Score.from_file(write_scale(tmp_path / "a.mid", PITCHES["D minor"], 96, others=[32]))
        score.tracks = [track for track in score.tracks if track.program == 32]
        with pytest.raises(ValueError, match="not a piano piece, it has notes for program 33"):
            read_midi(score)
