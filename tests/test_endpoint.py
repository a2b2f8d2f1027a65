"""The Inference Endpoint's handler, behind a small HTTP server, from a checkpoint's folder alone."""

import base64
import importlib
import json
import os
import subprocess
import sys
import urllib.request
import wave
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser

import numpy as np
import pytest

from modeling_pianobind import describe, embed_audio, embed_midi, embed_score, embed_text
from modeling_pianobind.gate_pianobind import Gate

from .hub_folder import ROOT, make_hub_folder


@pytest.fixture(scope="module")
def ask(tiny_checkpoint, tmp_path_factory):
    """`ask(inputs, **parameters)` -> the answer; bytes are sent as they are, all else as JSON."""
    folder = tmp_path_factory.mktemp("endpoint")
    make_hub_folder(tiny_checkpoint, folder / "published")
    environment = os.environ | {"HF_MODULES_CACHE": str(folder / "modules")}
    program = [sys.executable, "-I", str(ROOT / "evaluation" / "serve_endpoint.py"), str(folder / "published")]
    server = subprocess.Popen(program, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    port = server.stdout.readline().strip()
    assert port, "the handler could not be started"

    def post(inputs, **parameters):
        if isinstance(inputs, bytes):
            body, kind = inputs, "application/octet-stream"
        else:
            body, kind = json.dumps({"inputs": inputs, "parameters": parameters}).encode(), "application/json"
        request = urllib.request.Request(f"http://127.0.0.1:{port}", body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    yield post
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def files(tmp_path_factory, write_midi, write_audio):
    folder = tmp_path_factory.mktemp("files")
    midi = write_midi(folder / "waltz.mid", seconds=37, seed=1)
    return {"midi": midi, "audio": write_audio(folder / "rain.ogg", seconds=24, seed=2)}


def encoded(content):
    return base64.b64encode(content).decode()


def midi_of(track: bytes, division=480) -> bytes:
    header = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1]) + division.to_bytes(2, "big")
    return header + b"MTrk" + len(track).to_bytes(4, "big") + track


class TestAnswers:
    def test_text_gives_the_packages_embeddings(self, ask, tiny_model, tiny_processor):
        texts = ["calm", "a slow, rainy nocturne"]
        expected = embed_text(tiny_model, tiny_processor, texts)
        for inputs in (texts, {"text": texts}):
            np.testing.assert_allclose(ask(inputs)["embeddings"], expected, atol=1e-5)
        np.testing.assert_allclose(ask("calm")["embeddings"], expected[:1], atol=1e-5)

    def test_files_give_the_packages_embeddings_in_every_form(self, ask, tiny_model, tiny_processor, files):
        for modality, embed in (("midi", embed_midi), ("audio", embed_audio)):
            content = files[modality].read_bytes()
            expected = embed(tiny_model, tiny_processor, files[modality])
            data_uri = f"data:application/octet-stream;base64,{encoded(content)}"
            for inputs in (content, {"file": encoded(content)}, {modality: encoded(content)}, {"file": data_uri}):
                np.testing.assert_allclose(ask(inputs)["embeddings"], expected, atol=1e-5)

    def test_scores_give_the_packages_embeddings_in_every_form(self, ask, tiny_model, tiny_processor):
        pytest.importorskip("verovio")
        from .test_scores import ABC

        content = ABC.encode()
        expected = embed_score(tiny_model, tiny_processor, content)
        for inputs in (content, *({kind: encoded(content)} for kind in ("file", "midi", "score"))):
            np.testing.assert_allclose(ask(inputs)["embeddings"], expected, atol=1e-5)
        large = ABC.encode() + b"% " + b"x" * 2_500_000 + b"\n"
        np.testing.assert_allclose(ask(large)["embeddings"], expected, atol=1e-5)

    def test_labels_are_ranked(self, ask, tiny_model, tiny_processor, files):
        labels = ["calm", "fast", "jazz"]
        for path in files.values():
            expected = describe(tiny_model, tiny_processor, path, labels, top_k=2)
            answer = ask({"file": encoded(path.read_bytes())}, candidate_labels=labels, top_k=2)["labels"]
            assert [item["label"] for item in answer] == [label for label, _ in expected]
            assert [item["score"] for item in answer] == pytest.approx([score for _, score in expected], abs=1e-5)

    def test_many_at_once_get_their_own_answers(self, ask, tiny_model, tiny_processor):
        texts = ["calm", "fast", "jazz", "waltz", "dark", "bright", "slow", "sad"]
        with ThreadPoolExecutor(8) as pool:
            answers = [answer["embeddings"][0] for answer in pool.map(ask, texts)]
        np.testing.assert_allclose(answers, embed_text(tiny_model, tiny_processor, texts), atol=1e-5)


class TestRefusals:
    @pytest.fixture
    def refused(self, ask):
        def check(inputs, *parts, **parameters):
            answer = ask(inputs, **parameters)
            assert list(answer) == ["error"] and "\n" not in answer["error"]
            for part in parts:
                assert part in answer["error"], answer

        return check

    def test_requests_of_a_wrong_form(self, refused, files):
        midi = encoded(files["midi"].read_bytes())
        refused(7, '"inputs" is neither words')
        refused({"path": "/etc/passwd"}, '"inputs" is neither words')
        refused({"midi": midi, "text": "calm"}, '"inputs" is neither words')
        refused([], "1 to 64 strings")
        refused(["calm", "  "], "1 to 2000 characters")
        refused("calm " * 500, "1 to 2000 characters")
        refused(["calm"] * 65, "1 to 64 strings")
        refused({"file": "not base64!"}, "not valid base64")
        refused({"file": ""}, "empty")
        refused({"file": 7}, "bytes or base64")
        refused({"audio": midi}, "is a MIDI file", '"file"')
        refused({"midi": encoded(files["audio"].read_bytes())}, "is no MIDI file or score", '"file"')
        refused({"file": midi}, "candidate_labels", candidate_labels=["calm", 7])
        refused({"file": midi}, '"top_k" is 0', candidate_labels=["calm"], top_k=0)
        refused({"file": midi}, '"parameters" may hold', loud=True)
        refused(["calm", "fast"], "one input at a time", candidate_labels=["calm"])

    def test_words_that_look_like_a_path_are_words(self, ask, tiny_model, tiny_processor, files):
        path = str(files["midi"])
        np.testing.assert_allclose(ask(path)["embeddings"], embed_text(tiny_model, tiny_processor, path), atol=1e-5)

    def test_files_that_are_too_large_too_long_or_no_music(self, refused, tmp_path):
        refused({"file": "A" * 34_000_000}, "25.5 MB", "at most 25 MB")
        refused(b"RIFF" + bytes(25_000_000), "at most 25 MB")
        refused(b"MThd" + bytes(2_000_000), "MIDI file has 2.0 MB", "at most 2 MB")
        refused(b"nothing that plays", "neither MIDI, a score nor audio")
        refused(midi_of(b"\\x00\\xff"), "MIDI")
        with wave.open(str(tmp_path / "hour.wav"), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(1)
            sound.setframerate(1000)
            sound.writeframes(bytes([128]) * 3_600_000)
        refused((tmp_path / "hour.wav").read_bytes(), "lasts 3600 s", "at most 900 s")

    def test_midi_whose_clock_runs_for_years_costs_no_memory(self, refused):
        slow = b"\x00\xff\x51\x03\xff\xff\xff"  # 16.8 s a quarter note
        note = b"\x00\x90\x3c\x40" + b"\xff\xff\xff\x7f\x80\x3c\x00"  # held for 2 ** 28 - 1 ticks
        refused(midi_of(slow + note + b"\x00\xff\x2f\x00", division=1), "more than 24 hours")

    def test_thousands_of_notes_at_one_instant_are_bounded(self, ask, refused):
        chord = b"\x00\x90\x3c\x40" + b"\x00\x3c\x40" * 1_500 + b"\x83\x60\x80\x3c\x40" + b"\x00\x3c\x40" * 1_500
        assert len(ask(midi_of(chord + b"\x00\xff\x2f\x00"))["embeddings"]) == 1
        many = b"\x00\x90\x3c\x40" + b"\x01\x3c\x00\x01\x3c\x40" * 25_000
        refused(midi_of(many + b"\x00\xff\x2f\x00"), "at most 20000")


def test_when_all_places_are_taken_it_says_busy(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "training" / "hub" / "hub_files")
    handler = importlib.import_module("handler").EndpointHandler.__new__(sys.modules["handler"].EndpointHandler)
    monkeypatch.delitem(sys.modules, "handler")
    handler.gate = Gate(running=1, waiting=0, patience_seconds=20)
    with handler.gate.turn():
        assert "is busy" in handler({"inputs": "calm"})["error"]


def test_its_requirements_are_those_of_the_package():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = (setup["options"]["install_requires"] + setup["options.extras_require"]["scores"]).split()
    listed = (ROOT / "training" / "hub" / "hub_files" / "requirements.txt").read_text().split()
    assert listed and set(listed) <= set(required)
