"""ONNX files of the towers: equal to PyTorch for any batch and length, int8 measured, mistakes in one line."""

import json
import shutil
import sys

import numpy as np
import pytest

from modeling_pianobind import (
    PianoBindMidiConfig,
    PianoBindModel,
    cli,
    describe,
    embed_audio,
    embed_midi,
    embed_text,
    onnx_export,
)
from modeling_pianobind.notes_pianobind import read_midi
from modeling_pianobind.onnx_export import OnnxModel, export_onnx, measure_int8

from .conftest import make_config

TEXTS = ["calm", "a slow, rainy nocturne", "fast happy ragtime"]


@pytest.fixture(scope="module")
def exported(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "towers"
    report = export_onnx(tiny_model, folder, int8=True)
    return folder, report


@pytest.fixture(scope="module")
def midi_files(tmp_path_factory, write_midi):
    folder = tmp_path_factory.mktemp("midi")
    return [write_midi(folder / f"{seed}.mid", seconds, seed=seed) for seed, seconds in enumerate((8, 45, 3))]


def test_exported_towers_embed_files_as_the_model_does(
    exported, tiny_model, tiny_processor, midi_files, tmp_path, write_audio
):
    folder, report = exported
    onnx = OnnxModel(folder)
    recordings = [write_audio(tmp_path / "rain.wav", 31), write_audio(tmp_path / "short.wav", 3, seed=2)]
    for embed, sources in ((embed_text, TEXTS), (embed_midi, midi_files), (embed_audio, recordings)):
        expected = embed(tiny_model, tiny_processor, sources)
        for batch_size in (1, 3):
            actual = embed(onnx, tiny_processor, sources, batch_size=batch_size)
            np.testing.assert_allclose(actual, expected, atol=1e-4)
    words, expected = (
        dict(describe(model, tiny_processor, midi_files[0], ["calm", "fast"])) for model in (onnx, tiny_model)
    )
    assert words == pytest.approx(expected, abs=1e-4)
    assert set(report["towers"]) == {"text", "midi", "audio"}
    assert all(tower["largest_difference"] <= 1e-4 for tower in report["towers"].values())
    assert sorted(path.name for path in folder.iterdir()) == [
        "audio.onnx", "export.json", "midi.int8.onnx", "midi.onnx", "text.int8.onnx", "text.onnx",
    ]  # fmt: skip


def test_int8_is_smaller_and_its_loss_is_measured(exported, tiny_processor, midi_files):
    folder, report = exported
    assert all(report["int8"][tower]["bytes"] < report["towers"][tower]["bytes"] for tower in ("text", "midi"))
    loss = measure_int8(folder, tiny_processor, TEXTS, midi_files, paired=True)
    for tower, embed, sources in (("text", embed_text, TEXTS), ("midi", embed_midi, midi_files)):
        float_rows, int8_rows = (embed(OnnxModel(folder, int8), tiny_processor, sources) for int8 in (False, True))
        cosines = (float_rows * int8_rows).sum(axis=1)
        assert loss["cosine"][tower] == pytest.approx({"mean": cosines.mean(), "least": cosines.min()}, abs=1e-6)
        assert 0.9 < loss["cosine"][tower]["least"] < 0.9999999
    assert loss["recall@10"] == {"float": 1.0, "int8": 1.0}  # three files are all among the first ten
    assert "recall@10" not in measure_int8(folder, tiny_processor, TEXTS[:2], midi_files)


def test_int8_embeddings_do_not_depend_on_what_stands_beside_them(exported, tiny_processor, midi_files):
    onnx = OnnxModel(exported[0], int8=True)
    for embed, sources in ((embed_text, TEXTS), (embed_midi, midi_files)):
        together = embed(onnx, tiny_processor, sources, batch_size=16)
        alone = np.concatenate([embed(onnx, tiny_processor, [source]) for source in sources])
        np.testing.assert_array_equal(together, alone)


def test_an_export_that_differs_is_not_left_behind(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.onnx.export", lambda tower, inputs, file, **settings: file.write_bytes(b"towers"))
    monkeypatch.setattr(onnx_export, "_difference", lambda tower, file: 2e-4)
    with pytest.raises(ValueError, match=r"the text tower's ONNX file differs from PyTorch by 2\.0e-04"):
        export_onnx(tiny_model, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_another_family_is_refused_before_the_work(tmp_path):
    midi = PianoBindMidiConfig(
        position_embedding_type="relative_key_query", hidden_size=32, num_attention_heads=2, num_hidden_layers=1
    )
    with pytest.raises(ValueError, match="the midi tower is not of PianoBind's default family"):
        export_onnx(PianoBindModel(make_config(midi_config=midi)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class TestCommand:
    @pytest.fixture
    def export(self, tiny_checkpoint, tmp_path, capsys):
        def run(*arguments):
            where = ["--onnx", str(tmp_path / "out"), "--checkpoint", str(tiny_checkpoint)]
            return cli.main(["export", *where, *map(str, arguments)]), *capsys.readouterr()

        return run

    def test_it_says_what_was_written_and_what_int8_costs(self, export, exported, monkeypatch, tmp_path, midi_files):
        folder, report = exported
        monkeypatch.setattr(
            onnx_export, "export_onnx", lambda model, target, int8: (shutil.copytree(folder, target), report)[1]
        )
        rows = [json.dumps({"text": text, "file": str(path)}) for text, path in zip(TEXTS, midi_files, strict=True)]
        (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
        status, out, err = export("--int8", "--pairs", tmp_path / "pairs.jsonl")
        assert (status, err) == (0, "")
        assert "text.onnx" in out and "midi.int8.onnx" in out and "R@10 1.000, of int8 1.000" in out

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            ("", "holds no row"),
            ("[1]", "line 1 is no"),
            ('{"text": "calm"}', "line 1 is no"),
            ('{"text": "calm", "file": "missing.mid"}', "there is no such file"),
            (None, "does not exist"),
        ],
    )
    def test_pairs_of_a_wrong_form_are_one_line(self, export, tmp_path, content, part):
        pairs = tmp_path / "pairs.jsonl"
        if content is not None:
            pairs.write_text(content)
        status, out, err = export("--int8", "--pairs", pairs)
        assert status == 2 and out == "" and err.count("\n") == 1 and part in err and not (tmp_path / "out").exists()

    def test_pairs_without_int8_are_one_line(self, export, tmp_path):
        status, out, err = export("--pairs", tmp_path / "pairs.jsonl")
        assert status == 2 and out == "" and err.count("\n") == 1 and "--int8" in err

    def test_without_the_extra_it_is_one_line(self, export, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        status, out, err = export()
        assert status == 2 and out == "" and err.count("\n") == 1 and 'pip install "pianobind[onnx]"' in err


def test_a_folder_that_is_no_export_is_refused(tmp_path):
    (tmp_path / "export.json").write_text("{}")
    with pytest.raises(ValueError, match="export the checkpoint again"):
        OnnxModel(tmp_path)


def test_a_corpus_is_measured_with_each_kind_of_towers(
    exported, tiny_checkpoint, midi_files, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("datasets")
    from evaluation import measure_onnx
    from training.data.corpus import PackedCorpus

    folder, report = exported
    rows = [
        {"id": str(number), "song": str(number), "source": "mine", "licence": "CC0", "tier": "human", "split": "valid",
         "captions": [text]} for number, text in enumerate(TEXTS)
    ]  # fmt: skip
    PackedCorpus.pack(rows, [read_midi(path) for path in midi_files]).save(tmp_path / "packed")
    monkeypatch.setattr(
        measure_onnx,
        "export_onnx",
        lambda model, target, int8: (shutil.copytree(folder, target, dirs_exist_ok=True), report)[1],
    )
    arguments = [tiny_checkpoint, tmp_path / "packed", "--output", tmp_path / "out.json", "--bootstrap-samples", 0]
    assert measure_onnx.main([*map(str, arguments)]) == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["embedded"] == {"text": 3, "midi": 3, "audio": 3}
    assert max(result["largest_difference"].values()) < 1e-4
    assert {name: scores["recall@10"] for name, scores in result["text_to_piece"].items()} == {
        "pytorch": 1.0, "onnx": 1.0, "onnx_int8": 1.0,
    }  # fmt: skip
    for tower in ("text", "midi"):
        assert 0.9 < result["int8_cosine"][tower]["least"] < 0.9999999
