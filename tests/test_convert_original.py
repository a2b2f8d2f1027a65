"""Converting published checkpoints: synthetic ones in the published layout, and everything that must be refused."""

import json
import runpy
import sys

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, PreTrainedTokenizerFast

from modeling_pianobind import PianoBindModel, PianoBindProcessor
from modeling_pianobind.convert_original_checkpoint import convert_tensors, detect_variant, main, read_checkpoint
from modeling_pianobind.towers_pianobind import PianoBindMidiModel
from tests import original_reference as reference

WORDS = torch.tensor([[0, 3, 40, 5], [1, 7, 44, 9], [0, 0, 39, 63]])


@pytest.fixture
def tokenizer_folder(tmp_path):
    tokenizer = Tokenizer(
        models.WordLevel({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "calm": 4}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, pad_token="<pad>")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def converted(tmp_path, content, *arguments, name="checkpoint.pth.tar"):
    """Runs the command on what `torch.save` makes of `content`; returns its exit status and the output folder."""
    torch.save(content, tmp_path / name)
    output = tmp_path / "converted"
    return main(["--checkpoint", str(tmp_path / name), "--output", str(output), *map(str, arguments)]), output


def embeddings(model):
    """Embeddings of a fixed input of each modality that the model has."""
    mel = torch.randn(128, 626, generator=torch.Generator().manual_seed(3)) * 20
    ids = torch.tensor([[0, 4, 2] + [0] * 74])
    made = {}
    with torch.no_grad():
        if model.audio_model is not None:
            made["audio"] = model.get_audio_features(mel.T[None])[0]
        if model.midi_model is not None:
            made["midi"] = model.get_midi_features(WORDS[None])[0]
        made["text"] = model.get_text_features(ids, (torch.arange(77) < 3).long()[None])[0]
    return mel, made


@pytest.mark.parametrize("variant", ["trimodal", "audio_text", "midi_text"])
def test_a_converted_checkpoint_embeds_as_the_published_formulas_do(variant, tmp_path, tokenizer_folder, capsys):
    tensors = reference.published_state_dict(variant, seed=4)
    nested = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tensors.items()}}
    status, output = converted(tmp_path, nested, "--tokenizer", tokenizer_folder)
    assert status == 0
    assert f"variant {variant}" in capsys.readouterr().out
    model, info = PianoBindModel.from_pretrained(output, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    mel, made = embeddings(model.eval())
    plain = {"text": reference.text_embedding(tensors, [0, 4, 2]).detach()}
    if "audio" in made:
        plain["audio"] = reference.audio_embedding(tensors, mel)
    if "midi" in made:
        plain["midi"] = reference.midi_embedding(tensors, WORDS)
    for modality, embedding in made.items():
        torch.testing.assert_close(embedding, plain[modality], atol=1e-5, rtol=0)
    assert type(AutoModel.from_pretrained(output)) is PianoBindModel
    processor = PianoBindProcessor.from_pretrained(output)
    assert processor(text="calm", return_tensors="pt")["input_ids"].tolist() == [[0, 4, 2] + [0] * 74]


def test_saving_a_converted_model_again_changes_nothing(tmp_path, tokenizer_folder):
    _, output = converted(tmp_path, reference.published_state_dict("midi_text"), "--tokenizer", tokenizer_folder)
    model = PianoBindModel.from_pretrained(output)
    model.save_pretrained(tmp_path / "again")
    again = PianoBindModel.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_without_a_tokenizer_the_weights_are_converted_and_the_next_command_is_named(
    tmp_path, tokenizer_folder, capsys
):
    status, output = converted(tmp_path, reference.published_state_dict("midi_text"))
    told = capsys.readouterr().out
    assert status == 0 and "the tokenizer is missing" in told
    assert f"--output {output} --tokenizer FOLDER_OR_HUB_ID" in told
    assert json.loads((output / "processor_config.json").read_text())["text_max_length"] == 77
    PianoBindModel.from_pretrained(output)
    assert main(["--output", str(output), "--tokenizer", str(tokenizer_folder)]) == 0
    processor = PianoBindProcessor.from_pretrained(output)
    assert processor(text="calm", return_tensors="pt")["input_ids"].shape == (1, 77)
    assert processor.midi_processor.representation == "compound_word"


def test_midi_bert_alone_becomes_a_midi_tower(tmp_path):
    tensors = reference.midi_bert_state_dict(seed=6)
    status, output = converted(tmp_path, {"state_dict": tensors}, name="midi_bert.ckpt")
    assert status == 0
    tower = PianoBindMidiModel.from_pretrained(output).eval()
    words = torch.cat([WORDS, torch.tensor([reference.PAD_WORD] * 13)])
    with torch.no_grad():
        hidden = tower(words[None], (words[None, :, 0] != 2).long())[0]
    part = {name.removeprefix("midibert."): value for name, value in tensors.items()}
    torch.testing.assert_close(hidden, reference.midi_hidden(part, words), atol=1e-5, rtol=0)


def test_midi_bert_saved_without_its_prefix_is_the_same():
    tensors = reference.midi_bert_state_dict()
    bare = {name.removeprefix("midibert."): value for name, value in tensors.items() if name.startswith("midibert.")}
    with_prefix, without = (convert_tensors(given, detect_variant(given))[1] for given in (tensors, bare))
    assert all(torch.equal(value, without[name]) for name, value in with_prefix.items())


def test_a_mel_front_end_before_the_resnet_is_left_out():
    tensors = reference.published_state_dict("audio_text")
    wrapped = {name.replace("audio_backbone.", "audio_backbone.1."): value for name, value in tensors.items()}
    wrapped["audio_backbone.0.0.spectrogram.window"] = torch.hann_window(1024)
    wrapped["audio_backbone.0.0.mel_scale.fb"] = torch.zeros(513, 128)
    _, plain, _ = convert_tensors(tensors, "audio_text")
    _, weights, dropped = convert_tensors(wrapped, "audio_text")
    assert all(torch.equal(value, weights[name]) for name, value in plain.items())
    assert "audio_backbone.0.0.mel_scale.fb" in dropped


def test_what_is_left_out_is_dead_or_a_copy():
    tensors = reference.published_state_dict()
    _, weights, dropped = convert_tensors(tensors, "trimodal")
    copies = [name for name in tensors if name.startswith("midi_backbone.model.")]
    dead = ["bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight"]
    dead += ["bert.pooler.dense.weight", "bert.pooler.dense.bias"]
    expected = {*copies, *(f"midi_backbone.midibert.{name}" for name in dead)}
    assert set(dropped) == expected | {"textual_head.pooler.dense.weight", "textual_head.pooler.dense.bias"}
    assert len(weights) + len(dropped) + 1 == len(tensors)  # and the token types, which stand in a bias


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("audio_backbone.layer2.1.conv2.weight", None),
        ("midi_backbone.midibert.word_emb.0.lut.weight", None),
        ("textual_head.encoder.layer.0.output.dense.bias", None),
        ("midi_projection.weight", None),
        ("logit_scale", None),
        ("midi_projection.weight", torch.zeros(3, 3)),
        ("audio_backbone.attnpool.positional_embedding", torch.zeros(50, 128)),
    ],
)
def test_a_missing_tensor_or_another_shape_is_refused_by_name(name, change):
    tensors = reference.published_state_dict()
    if change is None:
        for key in [key for key in tensors if key in (name, name.replace("midibert", "model.midibert"))]:
            del tensors[key]
    else:
        tensors[name] = change
    with pytest.raises(ValueError, match=rf"{name}'"):
        convert_tensors(tensors, "trimodal")


@pytest.mark.parametrize(
    "name", ["midi_backbone.midibert.adapter.weight", "extra_head.weight", "audio_backbone.layer1.9.conv7.weight"]
)
def test_an_unknown_tensor_is_refused_by_name(name):
    tensors = {**reference.published_state_dict(), name: torch.zeros(2)}
    with pytest.raises(ValueError, match=rf"does not know: {name}"):
        convert_tensors(tensors, "trimodal")


@pytest.mark.parametrize("name", ["bert.encoder.layer.1.output.dense.bias", "bert.pooler.dense.weight"])
def test_copies_that_differ_are_refused(name):
    tensors = reference.published_state_dict()
    tensors[f"midi_backbone.model.midibert.{name}"] += 1e-3
    with pytest.raises(ValueError, match=f"{name}' are copies and differ"):
        convert_tensors(tensors, "trimodal")


def test_a_variant_that_the_file_is_not_is_refused(tmp_path, capsys):
    status, output = converted(tmp_path, reference.published_state_dict("audio_text"), "--variant", "trimodal")
    assert status == 2 and not output.exists()
    assert "has no tensor 'midi_backbone." in capsys.readouterr().err


class _Code:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle was run')",))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, capsys):
    content = {"state_dict": reference.published_state_dict("audio_text"), "config": _Code()}
    status, output = converted(tmp_path, content)
    assert status == 2 and not output.exists()
    assert "cannot be read as plain tensors" in capsys.readouterr().err


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(2)], {"weights": {"a": torch.zeros(2)}}])
def test_a_file_without_a_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_checkpoint(tmp_path / "file.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_one_line(content, tmp_path, capsys):
    (tmp_path / "file.pt").write_bytes(content)
    assert main(["--checkpoint", str(tmp_path / "file.pt"), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_other_models_have_no_variant():
    with pytest.raises(ValueError, match="no known variant"):
        detect_variant({"encoder.weight": torch.zeros(2)})


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "converted").mkdir()
    (tmp_path / "converted" / "notes.txt").write_text("mine")
    status, output = converted(tmp_path, reference.published_state_dict("midi_text"))
    assert status == 2 and "already holds something" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["notes.txt"]


def test_a_tokenizer_with_more_words_than_the_tower_is_refused(tmp_path, capsys):
    tokenizer = Tokenizer(models.WordLevel({f"word{number}": number for number in range(60)}, unk_token="word0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="word1").save_pretrained(tmp_path / "large")
    status, output = converted(
        tmp_path, reference.published_state_dict("midi_text"), "--tokenizer", tmp_path / "large"
    )
    assert status == 2 and not output.exists()
    assert "more than the 50 of the text tower" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".converted")]


def test_the_command_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["convert", "--help"])
    monkeypatch.delitem(sys.modules, "modeling_pianobind.convert_original_checkpoint")
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("modeling_pianobind.convert_original_checkpoint", run_name="__main__")
    assert "--checkpoint" in capsys.readouterr().out
