"""Requests of `evaluation.load_app` to the page and the endpoint: valid ones, and invalid ones of every kind."""

import base64
import io
import random
from collections.abc import Callable
from functools import cache

import httpx
import numpy as np
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from modeling_pianobind.service.examples import DEMO_QUERIES, EXAMPLES

FILES = sorted(EXAMPLES.glob("*.mid"))
TIMEOUT_SECONDS = 120
# The name of a request -> what sends it: a number, which varies it, -> its answer, and what that has to contain.
Requests = dict[str, Callable[[int], tuple[str, str]]]


def midi_of(track: bytes) -> bytes:
    """A MIDI file of one track."""
    track += b"\x00\xff\x2f\x00"
    return b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xe0MTrk" + len(track).to_bytes(4, "big") + track


def flac_of(seconds: float, sampling_rate: int) -> bytes:
    """A recording of decaying tones."""
    time = np.arange(round(seconds * sampling_rate)) / sampling_rate
    tones = np.sin(2 * np.pi * 220 * time * (1 + (2 * time).astype(int) % 5)) * np.exp(-3 * (time % 0.5))
    content = io.BytesIO()
    soundfile.write(content, 0.3 * tones, sampling_rate, format="FLAC")
    return content.getvalue()


def chord(notes: int) -> bytes:
    """Notes that all begin at one instant."""
    keys = [21 + number % 88 for number in range(notes)]
    events = [bytes([0, 0x90, key, 64]) for key in keys] + [b"\x83\x60\x80\x15\x40"]
    return midi_of(b"".join(events + [bytes([0, 0x80, key, 64]) for key in keys]))


@cache
def make_files() -> dict[str, tuple[str, bytes, str]]:
    """Name, content, and expected part of the answer; "" for a valid file."""
    return {
        "recording": ("take.flac", flac_of(25, 16_000), ""),
        "notes at one instant": ("chord.mid", chord(1_000), ""),
        "path as name": ("../../../../tmp/evil.mid", chord(10), ""),
        "corrupt midi": ("corrupt.mid", b"MThd" + bytes(40), "time division is zero"),
        "corrupt audio": ("corrupt.flac", b"fLaC" + random.Random(0).randbytes(2_000), "decoded"),
        "wrong type": ("words.txt", b"nothing that plays", "MIDI"),
        "an hour": ("hour.flac", flac_of(3_600, 2_000), "at most"),
        "large midi": ("large.mid", b"MThd" + bytes(2_100_000), "at most 2 MB"),
        "large file": ("large.wav", b"RIFF" + bytes(26_000_000), "at most"),
    }


def app_requests(url: str) -> Requests:
    """Requests to the page at `url`."""
    client = Client(url, verbose=False, httpx_kwargs={"timeout": TIMEOUT_SECONDS})

    def predict(*values, api_name):
        try:
            return str(client.predict(*values, api_name=api_name))
        except AppError as error:
            return f"refused: {error}"

    def upload(name, content):
        """Sends a file as a browser does: under the visitor's own file name."""
        answer = httpx.post(f"{url}gradio_api/upload", files={"files": (name, content)}, timeout=TIMEOUT_SECONDS)
        if answer.status_code == 413:
            return "refused: at most so much is taken"  # gradio's own message
        return handle(answer.raise_for_status().json()[0])

    def handle(path):
        return predict({"path": path, "meta": {"_type": "gradio.FileData"}}, api_name="/upload")

    def play(number):
        answer = httpx.get(f"{url}audio/{number % len(FILES)}.flac", timeout=TIMEOUT_SECONDS)
        return answer.text if answer.status_code == 503 else answer.raise_for_status().headers["content-type"]

    expected = "pb-card"
    return {
        "search": lambda number: (
            predict(DEMO_QUERIES[number % len(DEMO_QUERIES)], 0.5, api_name="/search"),
            expected,
        ),
        "play": lambda number: (play(number), "audio/flac"),
        "midi": lambda number: (predict(handle_file(FILES[number % len(FILES)]), api_name="/upload"), expected),
        "too many words": lambda _: (predict("calm " * 500, 0.5, api_name="/search"), "characters"),
        "a file of the server": lambda _: (handle("/etc/passwd"), "refused"),
        **{kind: lambda _, file=file: (upload(*file[:2]), file[2] or expected) for kind, file in make_files().items()},
    }


def endpoint_requests(url: str) -> Requests:
    """Requests to the handler behind `evaluation/serve_endpoint.py` at `url`."""
    client = httpx.Client(timeout=TIMEOUT_SECONDS)

    def ask(inputs, **parameters):
        if isinstance(inputs, bytes):
            return client.post(url, content=inputs).raise_for_status().text
        return client.post(url, json={"inputs": inputs, "parameters": parameters}).raise_for_status().text

    def encoded(content):
        return {"file": base64.b64encode(content).decode()}

    expected, midi = '"embeddings"', [path.read_bytes() for path in FILES]
    return {
        "words": lambda number: (ask(DEMO_QUERIES[number % len(DEMO_QUERIES)]), expected),
        "midi": lambda number: (ask(midi[number % len(midi)]), expected),
        "labels": lambda number: (
            ask(encoded(midi[number % len(midi)]), candidate_labels=["calm", "fast"]),
            '"labels"',
        ),
        "too many words": lambda _: (ask("calm " * 500), "characters"),
        "a file of the server": lambda _: (ask({"path": "/etc/passwd"}), "is neither"),
        "no base64": lambda _: (ask({"file": "../../etc/passwd"}), "base64"),
        **{
            kind: lambda number, file=file: (ask(file[1] if number % 2 else encoded(file[1])), file[2] or expected)
            for kind, file in make_files().items()
        },
    }


__all__ = ["app_requests", "endpoint_requests"]
