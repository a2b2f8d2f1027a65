"""PianoBindForSequenceClassification: its loss and pooling by hand, loading, pipelines, and its equal on numpy."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForAudioClassification, AutoModelForSequenceClassification, pipeline

from modeling_pianobind import PianoBindForSequenceClassification, PianoBindModel, embed_midi, embed_pieces
from modeling_pianobind.checkpoint_pianobind import model_fingerprint
from modeling_pianobind.classification_pianobind import classification_loss
from modeling_pianobind.embedding_pianobind import embed_example
from modeling_pianobind.label_head_pianobind import LabelHead

from .conftest import make_config
from .hub_folder import make_hub_folder

NAMES = {0: "calm", 1: "stormy", 2: "droll"}


@pytest.fixture(scope="module")
def saved(tiny_checkpoint, tiny_processor, tmp_path_factory):
    """A folder with a classifier of three labels on the tiny checkpoint."""
    folder = tmp_path_factory.mktemp("classifier") / "moods"
    torch.manual_seed(1)
    model = PianoBindForSequenceClassification.from_pretrained(tiny_checkpoint, id2label=NAMES)
    model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(saved):
    return PianoBindForSequenceClassification.from_pretrained(saved).eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory, write_midi, write_audio):
    folder = tmp_path_factory.mktemp("files")
    paths = [write_midi(folder / "short.mid", seed=1), write_midi(folder / "long.mid", seconds=50, seed=2)]
    return [str(path) for path in (*paths, write_audio(folder / "long.flac", seconds=33, seed=3))]


class TestLoss:
    def test_one_label_of_several_by_hand(self):
        logits = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0]])
        loss = classification_loss(logits, torch.tensor([1, -100]), None)
        assert loss.item() == pytest.approx(-math.log(0.75))

    def test_several_labels_by_hand_without_the_unknown_one(self):
        loss = classification_loss(torch.tensor([[0.0, 9.0]]), torch.tensor([[1.0, math.nan]]), None)
        assert loss.item() == pytest.approx(math.log(2))

    def test_numbers_by_hand(self):
        loss = classification_loss(torch.tensor([[3.0], [1.0]]), torch.tensor([1.0, math.nan]), "regression")
        assert loss.item() == 4.0

    def test_without_any_label_it_is_zero_and_not_nan(self):
        assert classification_loss(torch.zeros(1, 2), torch.tensor([-100]), "single_label_classification") == 0
        assert classification_loss(torch.zeros(1, 2), torch.full((1, 2), math.nan), None) == 0


class TestModel:
    def test_a_long_piece_is_classified_by_its_embedding(self, model, tiny_processor, files):
        batch = tiny_processor(midi=files[:2], return_tensors="pt")
        with torch.no_grad():
            logits = model(**batch).logits
            expected = model.classifier(torch.from_numpy(embed_midi(model, tiny_processor, files[:2])))
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)

    def test_both_modalities_are_one_piece(self, model, tiny_processor, files):
        batch = tiny_processor(midi=files[1:2], audio=files[2:], return_tensors="pt")
        with torch.no_grad():
            logits = model(**batch).logits
            expected = model.classifier(torch.from_numpy(embed_pieces(model, tiny_processor, files[1:])))
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)

    def test_counts_that_differ_and_nothing_at_all_are_refused(self, model, tiny_processor, files):
        with pytest.raises(ValueError, match="1 recordings and 2 MIDI pieces"):
            model(**tiny_processor(midi=files[:2], audio=files[2:], return_tensors="pt"))
        with pytest.raises(ValueError, match="nothing to classify"):
            model()

    def test_a_gradient_reaches_the_head_and_a_tower(self, tiny_checkpoint, tiny_processor, files):
        model = PianoBindForSequenceClassification.from_pretrained(tiny_checkpoint, classifier_pooling="attention")
        batch = tiny_processor(midi=files[:2], return_tensors="pt")
        model(**batch, labels=torch.tensor([0, 1])).loss.backward()
        assert model.classifier.attention.weight.grad.abs().sum() > 0
        assert model.midi_projection.weight.grad.abs().sum() > 0

    def test_attention_begins_as_the_mean_and_then_weighs_windows_within_a_piece(self):
        model = PianoBindForSequenceClassification(make_config(classifier_pooling="attention"))
        windows = torch.eye(24)[:3]
        piece = torch.tensor([0, 0, 1])
        pooled = model.classifier.pool(windows, piece, 2)
        torch.testing.assert_close(pooled[0, :2], torch.full((2,), 0.5**0.5))
        with torch.no_grad():
            model.classifier.attention.weight[0, 0] = math.log(3.0) / 24**0.5
        pooled = model.classifier.pool(windows, piece, 2)
        torch.testing.assert_close(pooled[0, 0] / pooled[0, 1], torch.tensor(3.0))
        torch.testing.assert_close(pooled[1], windows[2])
        np.testing.assert_allclose(model.label_head.pool_windows(windows[:2].numpy()), pooled[0].detach(), atol=1e-6)

    def test_a_pooling_that_is_none_is_refused(self):
        with pytest.raises(Exception, match="'mean' or 'attention'"):
            make_config(classifier_pooling="best")


class TestLoading:
    @pytest.mark.parametrize("auto", [AutoModelForSequenceClassification, AutoModelForAudioClassification])
    def test_auto_classes_load_it(self, auto, saved, model):
        loaded = auto.from_pretrained(saved)
        assert type(loaded) is PianoBindForSequenceClassification
        assert loaded.config.id2label == NAMES
        torch.testing.assert_close(loaded.classifier.output.weight, model.classifier.output.weight)

    def test_its_towers_are_those_of_the_checkpoint_and_share_its_indices(self, saved, tiny_model):
        assert model_fingerprint(PianoBindModel.from_pretrained(saved)) == model_fingerprint(tiny_model)

    def test_the_head_on_numpy_is_the_same(self, saved, model, tiny_processor, files):
        heads = LabelHead.load(saved), model.label_head
        file = embed_example(model, tiny_processor, files[1])
        with torch.no_grad():
            expected = model(**tiny_processor(midi=files[1], return_tensors="pt")).logits.softmax(-1)[0]
        for head in heads:
            np.testing.assert_allclose(head.scores(head.pool(file)), expected, atol=1e-5)
        ranked = heads[0].rank(file.embedding, 2)
        assert [NAMES[place] for place in expected.argsort(descending=True)[:2].tolist()] == [
            name for name, _ in ranked
        ]

    def test_a_checkpoint_without_a_classifier_says_so(self, tiny_checkpoint):
        with pytest.raises(ValueError, match="holds no classifier"):
            LabelHead.load(tiny_checkpoint)


class TestPipelines:
    def test_by_the_package(self, saved, model, files):
        classify = pipeline("piano-classification", model=str(saved), device="cpu")
        for ranking in classify([files[1], files[2]], top_k=2, batch_size=2):
            assert len(ranking) == 2 and ranking[0]["score"] >= ranking[1]["score"]
        ranked = model.label_head.rank(embed_example(classify.model, classify.processor, files[1]).embedding, 3)
        assert [(answer["label"], pytest.approx(answer["score"], abs=1e-5)) for answer in classify(files[1])] == ranked
        with pytest.raises(ValueError, match="no recording"):
            classify("calm")

    def test_as_published_without_the_package(self, saved, files, tmp_path, monkeypatch):
        monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
        folder = make_hub_folder(saved, tmp_path / "published")
        assert (
            "classification_pianobind"
            in json.loads((folder / "config.json").read_text())["auto_map"]["AutoModelForAudioClassification"]
        )
        assert "pipeline_tag: audio-classification" in (folder / "README.md").read_text()
        classify = pipeline("audio-classification", model=str(folder), trust_remote_code=True, device="cpu")
        assert type(classify).__module__.startswith("transformers_modules.")
        here = pipeline("piano-classification", model=str(saved), device="cpu")
        for path in files[1:]:
            assert [answer["label"] for answer in classify(path)] == [answer["label"] for answer in here(path)]

    def test_transformers_own_takes_waveforms(self, saved, model, tiny_processor):
        samples = np.sin(np.arange(32_000) / 20).astype(np.float32)
        parts = {"model": model, "feature_extractor": tiny_processor.feature_extractor, "device": "cpu"}
        answers = pipeline("audio-classification", **parts)({"raw": samples, "sampling_rate": 16_000})
        with torch.no_grad():
            batch = tiny_processor(audio=[samples], sampling_rate=16_000, return_tensors="pt")
            expected = model(**batch).logits.softmax(-1)[0]
        assert {answer["label"]: pytest.approx(answer["score"], abs=1e-4) for answer in answers} == {
            NAMES[place]: value for place, value in enumerate(expected.tolist())
        }
