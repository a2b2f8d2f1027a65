"""An index in shards: shares of a folder, listed as one index."""

import itertools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest

from modeling_pianobind import EmbeddingIndex
from modeling_pianobind.index import ray_job
from modeling_pianobind.index.shards import (
    PARQUET_COLUMNS,
    _row,
    in_shard,
    parquet_row,
    shard_folder,
    write_parquet_header,
)
from modeling_pianobind.index.storage import IndexMetadata
from modeling_pianobind.index.table import FileTable


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """Removes what torchrun sets: an index of its processes is made in shards by default."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def whole(pianobind, corpus, tmp_path):
    """The folder's index in one."""
    assert pianobind("index", corpus, "--output", tmp_path / "whole")[0] == 0
    return tmp_path / "whole"


@pytest.fixture
def sharded(pianobind, corpus, tmp_path):
    for number in (2, 1, 3):
        assert pianobind("index", corpus, "--output", tmp_path / "sharded", "--shard", f"{number}/3")[0] == 0
    return tmp_path / "sharded"


def hits(pianobind, index, query="calm"):
    status, out, err = pianobind("search", index, query, "--json")
    assert status == 0 and err == ""
    # Files embedded in other batches differ in the last bits.
    return [row | {"score": pytest.approx(row["score"], abs=1e-5)} for row in json.loads(out)]


def assert_one_line(err, *parts):
    assert err.startswith("pianobind: ") and err.count("\n") == 1, err
    for part in parts:
        assert str(part) in err, err


class TestShares:
    def test_each_piece_is_in_one_share_whatever_the_folder_is_called(self):
        pieces = [f"set {row % 3}/{row}" for row in range(400)]
        shares = [[row for row in pieces if in_shard(f"/music/{row}", "/music", n, 4)] for n in (1, 2, 3, 4)]
        assert sorted(itertools.chain(*shares)) == sorted(pieces) and min(map(len, shares)) > 60
        assert shares[0] == [row for row in pieces if in_shard(f"/elsewhere/{row}", "/elsewhere/", 1, 4)]

    def test_shards_find_what_the_whole_finds(self, pianobind, whole, sharded):
        for query in ("calm", "fast happy ragtime"):
            assert hits(pianobind, sharded, query) == hits(pianobind, whole, query)

    def test_pieces_with_two_files_stay_together(self, whole, sharded):
        first, second = EmbeddingIndex.load(whole), EmbeddingIndex.load(sharded)
        assert sorted(first.paths) == sorted(second.paths) and len(second) == 4 and second.dim == first.dim
        rows = [first.paths.index(path) for path in second.paths]
        np.testing.assert_allclose(first.embeddings[rows], second.embeddings, atol=1e-5)

    def test_the_list_copies_nothing(self, sharded):
        names = {entry.name for entry in sharded.iterdir()}
        assert names == {"index.json", *(shard_folder(sharded, number, 3).name for number in (1, 2, 3))}

    def test_failures_of_all_shards_are_known(self, pianobind, corpus, tmp_path):
        for name in ("a.mid", "b.mid", "c.mid", "d.mid"):
            (corpus / name).write_bytes(b"MThd")
        statuses = [pianobind("index", corpus, "--output", tmp_path / "s", "--shard", f"{n}/2")[0] for n in (1, 2)]
        failures = EmbeddingIndex.load(tmp_path / "s").failures
        assert 2 in statuses and [os.path.basename(failure.path) for failure in failures] == [
            "a.mid", "b.mid", "c.mid", "d.mid",
        ]  # fmt: skip

    def test_a_shard_is_brought_up_to_date_alone(self, pianobind, corpus, sharded, write_midi):
        number = next(number for number in (1, 2, 3) if in_shard(str(corpus / "new"), corpus, number, 3))
        write_midi(corpus / "new.mid", seed=9)
        before = {entry: entry.stat().st_mtime_ns for entry in sharded.glob("shard-*/*")}
        pianobind("index", corpus, "--output", sharded, "--shard", f"{number}/3")
        assert str(corpus / "new.mid") in EmbeddingIndex.load(sharded).paths
        changed = {
            entry.parent.name for entry in sharded.glob("shard-*/*") if before.get(entry) != entry.stat().st_mtime_ns
        }
        assert changed == {shard_folder(sharded, number, 3).name}

    def test_it_can_be_saved_as_one(self, pianobind, whole, sharded, tmp_path):
        EmbeddingIndex.load(sharded).save(tmp_path / "again")
        assert hits(pianobind, tmp_path / "again") == hits(pianobind, whole)


class TestMerge:
    def test_indices_are_listed_from_anywhere(self, pianobind, corpus, whole, tmp_path, write_midi, monkeypatch):
        (tmp_path / "other").mkdir()
        write_midi(tmp_path / "other" / "etude.mid", seed=8)
        pianobind("index", tmp_path / "other", "--output", tmp_path / "etudes")
        monkeypatch.chdir(tmp_path)
        status, out, _ = pianobind("index", "--merge", "whole", "etudes", "--output", "all")
        assert status == 0 and "5 pieces in 2 indices" in out
        monkeypatch.chdir("/")
        assert len(hits(pianobind, tmp_path / "all")) == 5

    def test_a_file_in_two_of_them_is_refused(self, pianobind, corpus, whole, tmp_path):
        pianobind("index", corpus, "--output", tmp_path / "twice")
        status, _, err = pianobind("index", "--merge", whole, tmp_path / "twice", "--output", tmp_path / "all")
        assert status == 2 and not (tmp_path / "all").exists()
        assert_one_line(err, "twice: holds", "march.mid", "leave one of the two out")

    def test_indices_of_two_checkpoints_are_refused(self, pianobind, whole, tmp_path):
        other = EmbeddingIndex("another")
        other.add(["x"], [[1.0] * 24])
        other.save(tmp_path / "other")
        status, _, err = pianobind("index", "--merge", whole, tmp_path / "other", "--output", tmp_path / "all")
        assert status == 2
        assert_one_line(err, "were made by different checkpoints")


class TestMistakes:
    def test_missing_shards_are_one_line(self, pianobind, corpus, tmp_path):
        pianobind("index", corpus, "--output", tmp_path / "s", "--shard", "2/3")
        status, out, err = pianobind("search", tmp_path / "s", "calm")
        assert status == 2 and out == ""
        assert_one_line(err, "1 of 3 shards are finished", "--shard 1/3")

    def test_a_shard_that_went_away_is_one_line(self, pianobind, sharded):
        os.rename(shard_folder(sharded, 2, 3), sharded.parent / "gone")
        status, _, err = pianobind("search", sharded, "calm")
        assert status == 2
        assert_one_line(err, sharded, "shard-00002-of-00003 is missing", "make that shard again")

    @pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "-1/2"])
    def test_a_shard_of_no_number_is_one_line(self, pianobind, corpus, tmp_path, shard):
        status, _, err = pianobind("index", corpus, "--output", tmp_path / "s", f"--shard={shard}")
        assert status == 2 and not (tmp_path / "s").exists()
        assert_one_line(err, f"{shard!r} is not I/N, such as 1/4")

    def test_shards_and_whole_indices_do_not_mix(self, pianobind, corpus, whole, sharded, tmp_path):
        for output, more, reason in (
            (whole, ["--shard", "1/2"], "that is not a list of shards"),
            (sharded, [], "an index in shards"),
            (sharded, ["--shard", "1/2"], "shards of 3, not of 2"),
            (corpus, ["--shard", "1/2"], "something else than an index"),
        ):
            status, _, err = pianobind("index", corpus, "--output", output, *more)
            assert status == 2
            assert_one_line(err, output, reason)

    def test_path_or_merge_has_to_be_given(self, pianobind, corpus, tmp_path):
        for arguments in ([], [corpus, "--merge", corpus]):
            status, _, err = pianobind("index", *arguments, "--output", tmp_path / "s")
            assert status == 2
            assert_one_line(err, "give either the PATH of a folder, or --merge")


class TestLaunchers:
    def test_each_process_takes_its_own_share(self, pianobind, corpus, whole, tmp_path, monkeypatch):
        (corpus / "bad.mid").write_bytes(b"MThd")
        monkeypatch.setenv("WORLD_SIZE", "2")
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            status = pianobind("index", corpus, "--output", tmp_path / "s")[0]
            assert status == 0  # an error would make the launcher kill the others
        monkeypatch.delenv("WORLD_SIZE")
        assert hits(pianobind, tmp_path / "s") == hits(pianobind, whole)
        assert len(EmbeddingIndex.load(tmp_path / "s").failures) == 1

    def test_torchrun_makes_one_index(self, pianobind, corpus, whole, tmp_path, tiny_checkpoint):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = ["-m", "modeling_pianobind.cli", "index", str(corpus), "--output", str(tmp_path / "s")]
        done = subprocess.run(
            [*launch, *command, "--checkpoint", str(tiny_checkpoint)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert re.search(r"s: all 2 shards are there", done.stdout)
        assert hits(pianobind, tmp_path / "s") == hits(pianobind, whole)


def test_the_parquet_files_of_a_job_hold_all_that_an_index_does_and_older_ones_less(
    pianobind, corpus, tmp_path, whole
):
    made, output = EmbeddingIndex.load(whole), tmp_path / "job"
    rows = [row._replace(names=f"Etude {number}") for number, row in enumerate(made.file_table.rows())]
    index = EmbeddingIndex(made.fingerprint, FileTable.from_rows(rows))
    rows = [parquet_row(row) for row in rows] + [parquet_row(rows[0], "bad")]
    for columns in (PARQUET_COLUMNS, PARQUET_COLUMNS[:7]):
        output.mkdir(exist_ok=True)
        table = pyarrow.table({name: [row[name] for row in rows] for name in columns})
        pyarrow.parquet.write_table(table, output / "0.parquet")
        write_parquet_header(output, IndexMetadata(index.fingerprint, False, []))
        loaded = EmbeddingIndex.load(output)
        assert loaded.paths == index.paths and np.array_equal(loaded.embeddings, index.embeddings)
        is_new = columns == PARQUET_COLUMNS
        assert (loaded.names == index.names) == is_new
        for name in ("facts", "pitches", "onsets", "measures"):
            same = np.array_equal(getattr(loaded.file_table, name), getattr(index.file_table, name), equal_nan=True)
            assert same == (is_new or name == "measures")
        assert loaded.search(np.ones(24)) == index.search(np.ones(24))
        status, _, err = pianobind("search", output, "calm", "--minutes", "0.1-")
        assert status == 0 and ("an index of an older version has to be brought up to date" in err) != is_new


def test_a_worker_of_a_job_gives_the_rows_of_an_index_and_a_line_for_a_bad_file(corpus, tiny_checkpoint, whole):
    paths = list(EmbeddingIndex.load(whole).file_table.paths)
    (corpus / "bad.mid").write_bytes(b"MThd")
    batch = {"paths": [[os.fsencode(path)] for path in [*paths, corpus / "bad.mid"]]}
    columns = ray_job.EmbedPieces(str(tiny_checkpoint), "cpu", solo_only=True)(batch)
    assert tuple(columns) == PARQUET_COLUMNS and "bad.mid: the file ends within its header" in columns["error"][-1]
    assert columns["error"][:-1] == [""] * len(paths)
    rows = [_row({name: columns[name][row] for name in columns}) for row in range(len(paths))]
    made, read = EmbeddingIndex.load(whole).file_table, FileTable.from_rows(rows)
    assert read.hashes == list(made.hashes) and np.allclose(read.embeds, made.embeds, atol=1e-5)
    for name in ("facts", "pitches", "onsets", "measures", "spans"):
        assert np.array_equal(getattr(read, name), getattr(made, name), equal_nan=True)
