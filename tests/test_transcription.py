"""Recordings that are transcribed as well: `transcribe=True` and `--transcribe`; the transcriber is a stand-in."""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import symusic
import torch

from modeling_pianobind import EmbeddingIndex, PianoBindModel, describe, embed_audio, embed_midi, embed_pieces
from modeling_pianobind import embedding_pianobind as embedding
from modeling_pianobind import transcription_pianobind as transcription
from modeling_pianobind.midi_pianobind import read_midi

from .conftest import make_config, piano_waveform


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def transcribed_file(tmp_path_factory, write_midi):
    """The MIDI file of three windows that every recording sounds like."""
    return write_midi(tmp_path_factory.mktemp("heard") / "heard.mid", seconds=37, seed=9)


@pytest.fixture
def transcriber(monkeypatch, transcribed_file):
    """Names of the recordings that get transcribed."""
    names = []

    def transcribed_midi(audio, sampling_rate=None):
        names.append(os.path.basename(audio) if isinstance(audio, (str, os.PathLike)) else sampling_rate)
        return transcribed_file.read_bytes()

    monkeypatch.setattr(embedding, "transcribed_midi", transcribed_midi)
    monkeypatch.setattr(embedding, "load_transcriber", lambda: None)
    return names


@pytest.fixture
def no_transkun(monkeypatch):
    transcription.load_transcriber.cache_clear()
    monkeypatch.setitem(sys.modules, "transkun", None)


class TestEmbedding:
    def test_the_midi_tower_counts_three_times_whatever_the_windows(
        self, tiny_model, tiny_processor, corpus, transcribed_file, transcriber
    ):
        rain = corpus / "rain.wav"
        plain = embed_audio(tiny_model, tiny_processor, rain)
        fused = embed_audio(tiny_model, tiny_processor, rain, transcribe=True)
        np.testing.assert_allclose(
            fused, unit(plain + 3 * embed_midi(tiny_model, tiny_processor, transcribed_file)), atol=1e-5
        )
        assert transcriber == ["rain.wav"] and (fused * plain).sum() < 0.999

    def test_a_piece_is_the_mean_of_its_files_and_midi_is_not_transcribed(
        self, tiny_model, tiny_processor, corpus, transcriber
    ):
        midi, audio = corpus / "take.mid", corpus / "take.flac"
        piece = embed_pieces(tiny_model, tiny_processor, [midi, audio], transcribe=True)
        assert transcriber == ["take.flac"]
        fused = embed_audio(tiny_model, tiny_processor, audio, transcribe=True)
        np.testing.assert_allclose(piece, unit(fused + embed_midi(tiny_model, tiny_processor, midi)), atol=1e-5)

    def test_waveforms_are_transcribed_at_their_own_rate(self, tiny_model, tiny_processor, transcriber):
        fused = embed_audio(tiny_model, tiny_processor, piano_waveform(3), sampling_rate=16_000, transcribe=True)
        assert transcriber == [16_000] and np.linalg.norm(fused) == pytest.approx(1, abs=1e-6)

    def test_windows_of_both_towers_have_their_spans(self, tiny_model, tiny_processor, corpus, transcriber):
        (_, file), *_ = embedding.embed_files(tiny_model, tiny_processor, [corpus / "rain.wav"], transcribe=True)
        assert list(file.towers) == ["audio"] * 2 + ["midi"] * 3 and file.spans[2:, 0].tolist() == [0, 10, 20]

    def test_describe_sees_the_transcription(self, tiny_model, tiny_processor, corpus, transcriber):
        settings = {"labels": ["calm", "fast"], "top_k": 2}
        plain = describe(tiny_model, tiny_processor, corpus / "rain.wav", **settings)
        fused = describe(tiny_model, tiny_processor, corpus / "rain.wav", **settings, transcribe=True)
        assert dict(plain) != pytest.approx(dict(fused), abs=1e-3)

    def test_what_cannot_be_transcribed_stops_no_other(
        self, tiny_model, tiny_processor, corpus, transcribed_file, transcriber, monkeypatch
    ):
        def only_rain(audio, sampling_rate=None):
            if "rain" not in str(audio):
                raise ValueError(f"{audio}: no piano note is heard in it")
            return transcribed_file.read_bytes()

        monkeypatch.setattr(embedding, "transcribed_midi", only_rain)
        index = EmbeddingIndex.build(tiny_model, tiny_processor, corpus, transcribe=True)
        assert [failure.message for failure in index.failures] == [
            f"{corpus / 'take.flac'}: no piano note is heard in it"
        ]
        assert len(index) == 4

    def test_a_checkpoint_without_midi_tower_says_so(self, tiny_processor, corpus, transcriber):
        model = PianoBindModel(make_config(midi_config=None)).eval()
        with pytest.raises(ValueError, match="no midi tower"):
            embed_audio(model, tiny_processor, corpus / "rain.wav", transcribe=True)

    def test_without_the_extra_nothing_is_begun(self, tiny_model, tiny_processor, corpus, no_transkun):
        with pytest.raises(ImportError, match=r'pip install "pianobind\[transcribe\]"'):
            embed_audio(tiny_model, tiny_processor, corpus / "rain.wav", transcribe=True)


class TestIndex:
    def test_the_index_knows_it_and_the_other_way_embeds_again(
        self, tiny_model, tiny_processor, corpus, transcriber, tmp_path
    ):
        plain = EmbeddingIndex.build(tiny_model, tiny_processor, corpus)
        fused = EmbeddingIndex.build(tiny_model, tiny_processor, corpus, previous=plain, transcribe=True)
        assert sorted(transcriber) == ["rain.wav", "take.flac"]
        EmbeddingIndex.build(tiny_model, tiny_processor, corpus, previous=fused, transcribe=True)
        assert len(transcriber) == 2
        fused.save(tmp_path / "fused")
        assert EmbeddingIndex.load(tmp_path / "fused").transcribed and not plain.transcribed

    def test_an_index_of_an_earlier_version_was_made_without(self, tmp_path):
        EmbeddingIndex().save(tmp_path / "old")
        header = json.loads((tmp_path / "old" / "index.json").read_text())
        del header["transcribed"]
        (tmp_path / "old" / "index.json").write_text(json.dumps(header))
        assert EmbeddingIndex.load(tmp_path / "old").transcribed is False


class TestCommand:
    def test_a_folder_has_a_cache_of_either_kind(self, pianobind, corpus, transcriber):
        plain = pianobind("search", corpus, "calm", "--json")
        fused = pianobind("search", corpus, "calm", "--json", "--transcribe")
        assert len(transcriber) == 2 and plain[0] == fused[0] == 0 and plain[1] != fused[1]
        assert pianobind("search", corpus, "calm", "--json") == plain
        assert pianobind("search", corpus, "calm", "--json", "--transcribe") == fused and len(transcriber) == 2

    def test_an_index_is_neither_extended_nor_asked_in_the_other_way(self, pianobind, corpus, tmp_path, transcriber):
        assert pianobind("index", corpus, "--output", tmp_path / "fused", "--transcribe")[0] == 0
        assert pianobind("index", corpus, "--output", tmp_path / "plain")[0] == 0
        del transcriber[:]
        like = ["--like", corpus / "rain.wav"]
        for arguments, reason in (
            (["index", corpus, "--output", tmp_path / "fused"], "made with --transcribe; give it"),
            (["index", corpus, "--output", tmp_path / "plain", "--transcribe"], "made without --transcribe; leave"),
            (["search", tmp_path / "fused", *like], "made with --transcribe; give it"),
            (["search", tmp_path / "plain", *like, "--transcribe"], "made without --transcribe; leave"),
        ):
            status, out, err = pianobind(*arguments)
            assert status == 2 and out == "" and err.count("\n") == 1 and reason in err
        assert not transcriber
        rows = json.loads(pianobind("search", tmp_path / "fused", *like, "--transcribe", "--json")[1])
        assert rows[0]["path"] == str(corpus / "rain.wav") and rows[0]["score"] > 0.9999
        assert pianobind("search", tmp_path / "fused", "calm")[0] == 0  # words are the same either way

    def test_embed_and_describe_transcribe_too(self, pianobind, corpus, tmp_path, transcriber):
        rain = corpus / "rain.wav"
        assert pianobind("embed", rain, "--output", tmp_path / "one.npz", "--transcribe")[0] == 0
        assert pianobind("describe", rain, "--transcribe", "--labels", "calm,fast")[0] == 0
        assert transcriber == ["rain.wav", "rain.wav"]

    def test_without_the_extra_it_is_one_line(self, pianobind, corpus, tmp_path, no_transkun):
        for arguments in (
            ["search", corpus, "calm"],
            ["search", corpus, "--like", corpus / "rain.wav"],
            ["index", corpus, "--output", tmp_path / "index"],
            ["embed", corpus, "--output", tmp_path / "all.npz"],
            ["describe", corpus / "rain.wav"],
        ):
            status, out, err = pianobind(*arguments, "--transcribe")
            assert status == 2 and out == "" and err.count("\n") == 1 and 'pip install "pianobind[transcribe]"' in err


class TestTranscriber:
    """Stretches are put together; transkun itself is not run, since it takes too long."""

    @pytest.fixture
    def transkun(self, monkeypatch):
        """A model that hears a note of two seconds every other second, the last one past the end."""
        lengths = []

        class Model:
            fs = 1000

            def parameters(self):
                yield torch.zeros(1)

            def transcribe(self, samples, stepInSecond, segmentSizeInSecond, discardSecondHalf):  # noqa: N803
                assert stepInSecond < segmentSizeInSecond
                lengths.append(len(samples))
                notes = [SimpleNamespace(start=at, end=at + 2, pitch=60, velocity=80) for at in range(0, 300, 2)]
                return [note for note in notes if note.start * self.fs <= len(samples)]

        def write(notes):
            score = symusic.Score(480)  # 960 ticks are a second
            score.tracks.append(symusic.Track())
            for note in notes:
                length = round((note.end - note.start) * 960)
                score.tracks[0].notes.append(symusic.Note(round(note.start * 960), length, note.pitch, note.velocity))
            return SimpleNamespace(write=lambda file: file.write(score.dumps_midi()))

        monkeypatch.setattr(transcription, "load_transcriber", lambda: (Model(), write))
        return lengths

    def test_a_long_recording_is_transcribed_in_stretches(self, transkun, tmp_path, write_audio):
        path = write_audio(tmp_path / "long.wav", seconds=305, sampling_rate=8000)
        notes = read_midi(transcription.transcribed_midi(path))
        assert len(transkun) == 2 and sum(transkun) == pytest.approx(305_000, abs=2)
        expected = [*range(0, 300, 2), *(transkun[0] / 1000 + at for at in (0, 2, 4))]
        assert notes.onset.tolist() == pytest.approx(expected, abs=0.01)
        assert notes.seconds == pytest.approx(305, abs=0.01)

    def test_a_recording_without_notes_is_named(self, transkun, tmp_path, write_audio, monkeypatch):
        model, write = transcription.load_transcriber()
        model.transcribe = lambda samples, *seconds, discardSecondHalf: []  # noqa: N803
        monkeypatch.setattr(transcription, "load_transcriber", lambda: (model, write))
        with pytest.raises(ValueError, match=r"wind\.wav: no piano note"):
            transcription.transcribed_midi(write_audio(tmp_path / "wind.wav"))

    def test_bfloat16_is_for_processors_that_multiply_it(self, monkeypatch):
        for capabilities, answer in (
            ({}, False),
            ({"avx512_f": True, "avx512_bf16": False}, False),
            ({"amx_bf16": True}, True),
        ):
            monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capabilities=capabilities: capabilities)
            assert transcription.multiplies_bfloat16(torch.device("cpu")) is answer
