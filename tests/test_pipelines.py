"""Pipelines of transformers and the module of sentence-transformers, on one folder as the Hub has it."""

import json

import numpy as np
import pytest
import soundfile
from transformers import pipeline

from modeling_pianobind import describe, embed_audio, embed_midi, embed_text
from modeling_pianobind.sources_pianobind import embed_sources, source_of

from .hub_folder import make_hub_folder

TEXTS = ["calm", "a slow, rainy nocturne"]


@pytest.fixture(scope="module")
def published(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder / "modules"))
        yield make_hub_folder(tiny_checkpoint, folder / "published")


@pytest.fixture(scope="module")
def embedding(published):
    return pipeline("piano-embedding", model=str(published), trust_remote_code=True, device="cpu")


@pytest.fixture(scope="module")
def encoder(published):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="5.4")
    return sentence_transformers.SentenceTransformer(str(published), trust_remote_code=True, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory, write_midi, write_audio):
    folder = tmp_path_factory.mktemp("files")
    midi = write_midi(folder / "waltz.mid", seconds=37, seed=1)
    return {"midi": str(midi), "audio": str(write_audio(folder / "rain.flac", seconds=24, seed=2))}


def content(path):
    with open(path, "rb") as handle:
        return handle.read()


class TestSources:
    def test_every_form_of_one_thing_gives_one_embedding(self, tiny_model, tiny_processor, files):
        samples, rate = soundfile.read(files["audio"], dtype="float32")
        forms = {
            "text": ("calm", {"text": "calm"}),
            "midi": (files["midi"], content(files["midi"]), {"midi": files["midi"]}, {"midi": content(files["midi"])}),
            "audio": (
                files["audio"],
                content(files["audio"]),
                {"audio": content(files["audio"])},
                {"array": samples, "sampling_rate": rate},
                {"raw": samples.tolist(), "sampling_rate": rate},
                {"audio": {"array": samples, "sampling_rate": rate}},
                {"audio": samples, "sampling_rate": rate},
            ),
        }
        for modality, values in forms.items():
            sources = [source_of(value) for value in values]
            assert {source.modality for source in sources} == {modality}
            embeds = embed_sources(tiny_model, tiny_processor, sources)
            np.testing.assert_allclose(embeds, np.tile(embeds[0], (len(embeds), 1)), atol=1e-5)

    def test_modalities_may_be_mixed_and_keep_their_order(self, tiny_model, tiny_processor, files):
        sources = [source_of(value) for value in ("calm", files["midi"], files["audio"], "fast")]
        expected = [
            embed_text(tiny_model, tiny_processor, "calm"),
            embed_midi(tiny_model, tiny_processor, files["midi"]),
            embed_audio(tiny_model, tiny_processor, files["audio"]),
            embed_text(tiny_model, tiny_processor, "fast"),
        ]
        embeds = embed_sources(tiny_model, tiny_processor, sources)
        np.testing.assert_allclose(embeds, np.concatenate(expected), atol=1e-5)

    @pytest.mark.parametrize(
        "value", [7, {}, {"image": b""}, {"text": "a", "midi": b""}, {"array": [0.0]}, {"text": "a", "x": 1}]
    )
    def test_what_is_none_of_these_is_refused(self, value):
        with pytest.raises(ValueError, match="pass"):
            source_of(value)

    def test_a_missing_file_is_not_taken_for_words(self):
        with pytest.raises(FileNotFoundError):
            source_of("missing.mid")

    def test_content_that_cannot_be_decoded_says_so(self, tiny_model, tiny_processor):
        with pytest.raises(ValueError, match="the given recording: cannot be decoded"):
            embed_sources(tiny_model, tiny_processor, [source_of(b"no music at all")])


class TestPipelines:
    def test_embeddings_equal_those_of_the_package(self, embedding, tiny_model, tiny_processor, files):
        assert type(embedding).__module__.startswith("transformers_modules.")  # the folder's code, not the package's
        rows = embedding([*TEXTS, files["midi"], {"audio": content(files["audio"])}])
        expected = np.concatenate(
            [
                embed_text(tiny_model, tiny_processor, TEXTS),
                embed_midi(tiny_model, tiny_processor, files["midi"]),
                embed_audio(tiny_model, tiny_processor, files["audio"]),
            ]
        )
        np.testing.assert_allclose(np.stack(rows), expected, atol=1e-5)
        np.testing.assert_allclose(embedding("calm"), expected[0], atol=1e-5)
        np.testing.assert_allclose(np.stack(embedding([*TEXTS, "fast"], batch_size=2))[:2], expected[:2], atol=1e-5)

    def test_its_model_can_be_saved(self, embedding, tmp_path):
        embedding.model.save_pretrained(tmp_path)
        tasks = json.loads((tmp_path / "config.json").read_text())["custom_pipelines"]
        assert tasks["piano-embedding"]["pt"] == ["AutoModel"]

    def test_tags_are_those_of_describe(self, published, embedding, tiny_model, tiny_processor, files):
        parts = {"model": embedding.model, "processor": embedding.processor, "device": "cpu"}
        tagging = pipeline("zero-shot-piano-tagging", **parts)  # registered by the package
        labels = ["calm", "fast", "jazz"]
        for path in files.values():
            expected = describe(tiny_model, tiny_processor, path, labels, top_k=2)
            answers = tagging(path, candidate_labels=labels, top_k=2)
            assert [answer["label"] for answer in answers] == [label for label, _ in expected]
            assert [answer["score"] for answer in answers] == pytest.approx([score for _, score in expected], abs=1e-5)
        assert tagging(files["midi"], candidate_labels="calm,fast") == tagging(
            files["midi"], candidate_labels=labels[:2]
        )
        assert len(tagging(files["midi"])) == 8

    def test_an_unknown_argument_is_refused(self, embedding):
        with pytest.raises(ValueError, match="knows no 'loud'"):
            embedding("calm", loud=True)

    def test_transformers_own_zero_shot_pipeline_takes_the_model_as_it_stands(
        self, published, tiny_checkpoint, tiny_model, tiny_processor, files
    ):
        samples, rate = soundfile.read(files["audio"], dtype="float32")
        labels = ["calm", "fast jazz"]
        settings = {"candidate_labels": labels, "hypothesis_template": "{} piano music"}
        audio = embed_audio(tiny_model, tiny_processor, files["audio"])
        words = embed_text(tiny_model, tiny_processor, [f"{label} piano music" for label in labels])
        logits = tiny_model.config.logit_scale_init_value
        shares = np.exp(np.exp(logits) * (audio @ words.T)[0])
        expected = dict(zip(labels, shares / shares.sum(), strict=True))
        assert rate == tiny_processor.feature_extractor.sampling_rate
        for folder, trust in ((tiny_checkpoint, None), (published, True)):
            classify = pipeline(
                "zero-shot-audio-classification", model=str(folder), trust_remote_code=trust, device="cpu"
            )
            scores = {answer["label"]: answer["score"] for answer in classify(samples, **settings)}
            assert scores == pytest.approx(expected, abs=1e-4)


class TestSentenceTransformers:
    def test_embeddings_equal_those_of_the_package(self, encoder, tiny_model, tiny_processor, files):
        samples, rate = soundfile.read(files["audio"], dtype="float32")
        text = encoder.encode(TEXTS, batch_size=1)
        np.testing.assert_allclose(text, embed_text(tiny_model, tiny_processor, TEXTS), atol=1e-5)
        np.testing.assert_allclose(encoder.encode("calm"), text[0], atol=1e-5)
        audio = embed_audio(tiny_model, tiny_processor, files["audio"])
        for source in (files["audio"], {"audio": files["audio"]}, {"array": samples, "sampling_rate": rate}):
            np.testing.assert_allclose(encoder.encode([source]), audio, atol=1e-5)
        midi = embed_midi(tiny_model, tiny_processor, files["midi"])
        for source in (files["midi"], {"midi": files["midi"]}, content(files["midi"])):
            np.testing.assert_allclose(encoder.encode([source]), midi, atol=1e-5)

    def test_what_evaluations_ask_an_encoder_for_is_there(self, encoder, tiny_model):
        # as mteb's wrapper calls it: queries and documents by name, tensors, a similarity
        query = encoder.encode_query(TEXTS, convert_to_tensor=True)
        document = encoder.encode_document(TEXTS, convert_to_tensor=True, show_progress_bar=False)
        scores = encoder.similarity(query, document)
        assert scores.diagonal().tolist() == pytest.approx([1, 1], abs=1e-5)
        assert encoder.get_embedding_dimension() == tiny_model.config.projection_dim
        assert encoder.max_seq_length == 64
        assert [encoder.supports(modality) for modality in ("text", "audio", "image")] == [True, True, False]
        prompted = encoder.encode(["rainy nocturne"], prompt="slow ")
        np.testing.assert_allclose(prompted, encoder.encode(["slow rainy nocturne"]), atol=1e-5)

    def test_text_reaches_the_towers_as_tensors_with_gradients(self, encoder):
        features = encoder.preprocess(TEXTS)
        encoder.zero_grad()
        encoder(features)["sentence_embedding"].sum().backward()
        assert encoder[0].model.text_projection.weight.grad.abs().sum() > 0

    def test_saved_again_it_loads_again(self, encoder, tmp_path):
        from sentence_transformers import SentenceTransformer

        encoder.save_pretrained(str(tmp_path / "again"), create_model_card=False)
        again = SentenceTransformer(str(tmp_path / "again"), trust_remote_code=True, device="cpu")
        np.testing.assert_allclose(again.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
