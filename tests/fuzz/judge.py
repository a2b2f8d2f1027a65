"""What may come of a hostile input: an embedding, or a clear error of ours."""

import random
import re
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np

from modeling_pianobind import EmbeddingIndex, PianoBindMidiProcessor, embed_audio, embed_midi, embed_text
from modeling_pianobind.cli_support import Checkpoint, UserError

from .audio_cases import FAMILIES, audio_case
from .folder_cases import damage_folder
from .midi_cases import midi_case
from .text_cases import text_case

KINDS = ("midi", "midi_original", "audio", *FAMILIES, "text", "text_numpy", "index", "checkpoint")
LARGEST_MESSAGE = 2_000


class Judge:
    """Makes cases and judges them, with a tiny checkpoint.

    Args:
        checkpoint: its folder.
        model (`PianoBindModel`), processor (`PianoBindProcessor`): loaded from it.
        folder: where to work.
    """

    def __init__(self, checkpoint, model, processor, folder):
        self.checkpoint, self.model, self.processor, self.folder = checkpoint, model, processor, Path(folder)
        self.compound = PianoBindMidiProcessor(representation="compound_word")
        self.tower = Checkpoint(str(checkpoint), "cpu")
        self.index = self.folder / "index"
        if not self.index.exists():
            _save_index(model, processor, self.folder)

    def make(self, kind: str, source: random.Random):
        """A case: bytes, a text, or the seed of a folder's damage."""
        if kind.startswith("midi"):
            return midi_case(source)
        if kind == "audio" or kind in FAMILIES:
            return audio_case(source, kind)
        return text_case(source) if kind.startswith("text") else source.getrandbits(32)

    def try_case(self, kind: str, case) -> str:
        """Runs a case: "embedding", or "refused: ..." with our message.

        Raises:
            AssertionError: neither; the reason is in the message. Or whatever else the code under test raised.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                getattr(self, "_audio" if kind in FAMILIES else f"_{kind}")(case)
            except UserError as error:
                return f"refused: {_clear(error, kind)}"
            except (ValueError, OSError) as error:
                assert type(error) is ValueError, f"{type(error).__name__}: {error}"
                return f"refused: {_clear(error, kind)}"
        return "embedding"

    def _midi(self, content):
        _check_embeds(embed_midi(self.model, self.processor, content))

    def _midi_original(self, content):
        rows, spans = self.compound.windows(self.compound.read(content))
        assert rows and len(rows) == len(spans) and np.isfinite(spans).all(), "windows and their times do not fit"
        for window in rows:
            assert len(window) and (window >= 0).all() and (window < self.compound.pad_row).all(), "ids out of range"

    def _audio(self, content):
        _check_embeds(embed_audio(self.model, self.processor, content))

    def _text(self, text):
        _check_embeds(embed_text(self.model, self.processor, text))

    def _text_numpy(self, text):
        _check_embeds(self.tower.embed_text([text]))

    def _index(self, seed):
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            copy = Path(shutil.copytree(self.index, Path(folder) / "index"))
            damage_folder(random.Random(seed), copy)
            index = EmbeddingIndex.load(copy)
            hits = index.search(np.eye(1, index.dim or 1, dtype=np.float32), 5)[0]
            assert len(hits) == min(5, len(index)), f"{len(hits)} hits of {len(index)} pieces"
            times = [at for hit in hits for at in (hit.start_seconds, hit.end_seconds) if at is not None]
            assert np.isfinite([*times, *(hit.score for hit in hits)]).all(), "a score or time is not finite"

    def _checkpoint(self, seed):
        """Both ways to embed words, then a MIDI file."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            copy = Path(shutil.copytree(self.checkpoint, Path(folder) / "checkpoint"))
            damage_folder(random.Random(seed), copy)
            checkpoint = Checkpoint(str(copy), "cpu")
            _check_embeds(checkpoint.embed_text(["calm piano"]))
            _check_embeds(checkpoint.embed_file(self.folder / "music" / "a.mid")[None])


def _check_embeds(embeds):
    assert embeds.ndim == 2 and len(embeds) == 1, f"embeddings of shape {embeds.shape}"
    length = float(np.linalg.norm(embeds))
    assert np.isfinite(length) and abs(length - 1) < 1e-3, f"an embedding of length {length}"


def _clear(error, kind) -> str:
    """The message, if it is one of ours: it names what is wrong and, after a semicolon or colon, what to do."""
    message = " ".join(str(error).split())
    assert 20 < len(message) < LARGEST_MESSAGE, f"a message of {len(message)} characters: {message[:200]}"
    assert re.search(r"[;:] \S", message), f"{type(error).__name__} says not what to do: {message}"
    recordings = dict.fromkeys(("audio", *FAMILIES), "the given recording: ")
    named = recordings | dict.fromkeys(("midi", "midi_original"), "the given MIDI: ")
    assert message.startswith(named.get(kind, "")), f"{type(error).__name__} names no file: {message}"
    return message


def _save_index(model, processor, folder):
    """Saves an index of two MIDI files and their folder."""
    music = folder / "music"
    music.mkdir()
    for number, name in enumerate("ab"):
        notes = b"".join(bytes([0, 0x90, 60 + number + key, 80, 120, 60 + number + key, 0]) for key in range(9))
        track = notes + b"\x00\xff\x2f\x00"
        header = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xe0MTrk"
        (music / f"{name}.mid").write_bytes(header + len(track).to_bytes(4, "big") + track)
    (music / "bad.mid").write_bytes(b"no music")
    EmbeddingIndex.build(model, processor, music).save(folder / "index")
