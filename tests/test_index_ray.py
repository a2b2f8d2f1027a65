"""The embedding of a folder as a Ray Data job, on a local cluster of two workers."""

import os
import signal

import numpy as np
import pytest

ray = pytest.importorskip("ray")

from modeling_pianobind import EmbeddingIndex, cli  # noqa: E402
from modeling_pianobind.index import ray_job  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    ray.init(num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def large(tmp_path, write_midi, write_audio):
    """Thirty pieces, one of them with two files, and a bad file."""
    folder = tmp_path / "music"
    folder.mkdir()
    for row in range(30):
        write_midi(folder / f"{row:02}.mid", seed=row)
    write_audio(folder / "07.wav", seed=7)
    (folder / "bad.mid").write_bytes(b"MThd")
    return folder


def test_a_worker_killed_in_the_middle_loses_nothing(
    cluster, large, tmp_path, tiny_checkpoint, tiny_model, tiny_processor, capsys, monkeypatch
):
    marker = str(tmp_path / "killed")

    class KilledOnce(ray_job.EmbedPieces):
        """Dies, as by `kill -9`, with the first batch that holds a certain piece."""

        def __call__(self, batch):
            rows = super().__call__(batch)
            if any(path.endswith(b"15.mid") for path in rows["path"]) and not os.path.exists(marker):
                open(marker, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return rows

    monkeypatch.setattr(ray_job, "EmbedPieces", KilledOnce)
    settings = {"workers": 2, "device": "cpu", "pieces_per_batch": 5}
    failures = ray_job.embed_folder(large, tmp_path / "index", tiny_checkpoint, **settings)
    assert os.path.exists(marker)
    assert len(failures) == 1 and "bad.mid: the file ends within its header" in failures[0]
    whole, index = EmbeddingIndex.build(tiny_model, tiny_processor, large), EmbeddingIndex.load(tmp_path / "index")
    assert sorted(index.paths) == sorted(whole.paths) and len(index) == 30
    assert dict(zip(index.file_table.paths, index.file_table.facts[:, 0].tolist(), strict=True)) == dict(
        zip(whole.file_table.paths, whole.file_table.facts[:, 0].tolist(), strict=True)
    )
    rows = [whole.paths.index(path) for path in index.paths]
    np.testing.assert_allclose(index.embeddings, whole.embeddings[rows], atol=1e-5)
    assert [failure.path for failure in index.failures] == [str(large / "bad.mid")]

    search = ["search", str(tmp_path / "index"), "calm", "--top-k", "30", "--checkpoint", str(tiny_checkpoint)]
    assert cli.main(search) == 0
    assert str(large / "07.wav") in capsys.readouterr().out  # where Ray may say something as well
    index.save(tmp_path / "mapped", dtype="int8")
    query = np.ones(24)
    assert EmbeddingIndex.load(tmp_path / "mapped").search(query) == index.search(query)

    file = next((tmp_path / "index").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is missing or was changed"):
        EmbeddingIndex.load(tmp_path / "index")


def test_mistakes_are_one_line(tmp_path, capsys, corpus):
    (tmp_path / "empty").mkdir()
    for folder, output, reason in (
        (tmp_path / "missing", tmp_path / "x", "does not exist"),
        (tmp_path / "empty", tmp_path / "x", "there is no .mid"),
        (corpus, corpus, "something else than an index"),
    ):
        assert ray_job.main([str(folder), "--output", str(output)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and reason in err
