"""What may come of a hostile input: an embedding, or a clear error of ours."""

import random
import re
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from modeling_pianobind import (
    EmbeddingIndex,
    PianoBindMidiProcessor,
    PianoBindModel,
    PianoBindProcessor,
    embed_audio,
    embed_midi,
    embed_text,
)
from modeling_pianobind.checkpoint_pianobind import check_fit
from modeling_pianobind.index.shards import list_shards, shard_folder
from modeling_pianobind.service.checkpoint import Checkpoint
from modeling_pianobind.service.errors import UserError

from .audio_cases import FAMILIES, audio_case
from .folder_cases import damage_folder
from .midi_cases import midi_case
from .score_cases import SCORE_FORMATS, score_case
from .text_cases import text_case

KINDS = ("midi", "midi_original", *SCORE_FORMATS, "audio", *FAMILIES, "text", "text_numpy", "index", "checkpoint")
MAX_MESSAGE_CHARACTERS = 2_000


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
        self.music = self.folder / "music"
        _save_music(self.music)
        self.indices = _save_indices(model, processor, self.music, self.folder / "indices")

    def make(self, kind: str, source: random.Random):
        """A case: bytes, a text, or the seed of a folder's damage."""
        if kind.startswith("midi"):
            return midi_case(source)
        if kind in SCORE_FORMATS:
            return score_case(source, kind)
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
                method = "audio" if kind in FAMILIES else "score" if kind in SCORE_FORMATS else kind
                getattr(self, f"_{method}")(case)
            except UserError as error:
                return f"refused: {self._clear(error, kind)}"
            except (ValueError, OSError) as error:
                assert type(error) is ValueError, f"{type(error).__name__}: {error}"
                return f"refused: {self._clear(error, kind)}"
        return "embedding"

    def _midi(self, content):
        _check_embeds(embed_midi(self.model, self.processor, content))

    def _score(self, content):
        path = self.music.parent / "case.musicxml"  # the content decides, and this name forbids reading it as MIDI
        path.write_bytes(content)
        _check_embeds(embed_midi(self.model, self.processor, path))

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
        """One of its own, one of int8, one in shards."""
        source = random.Random(seed)
        with self._damaged(self.indices[source.choice(("float32", "int8", "shards"))], source) as copy:
            index = EmbeddingIndex.load(copy)
            hits = index.search(np.eye(1, index.dim or 1, dtype=np.float32), 5)[0]
            assert len(hits) == min(5, len(index)), f"{len(hits)} hits of {len(index)} pieces"
            times = [at for hit in hits for at in (hit.start_seconds, hit.end_seconds) if at is not None]
            assert np.isfinite([*times, *(hit.score for hit in hits)]).all(), "a score or time is not finite"

    def _checkpoint(self, seed):
        """As the commands load it: words on numpy or the model, then a MIDI file; or as Python programs do."""
        source = random.Random(seed)
        with self._damaged(self.checkpoint, source) as copy:
            if source.random() < 0.3:
                processor, model = PianoBindProcessor.from_pretrained(copy), PianoBindModel.from_pretrained(copy)
                check_fit(copy, model, processor)
                _check_embeds(embed_midi(model, processor, self.music / "a" / "a.mid"))
                return
            checkpoint = Checkpoint(str(copy), "cpu")
            _check_embeds(checkpoint.embed_text(["calm piano"]))
            ((_, file),) = checkpoint.embed_files([self.music / "a" / "a.mid"], progress=False)
            if file.error is not None:
                raise file.error
            _check_embeds(file.embedding[None])

    def _clear(self, error, kind) -> str:
        """The message, if it is one of ours: it names the file and, after a semicolon or colon, what to do."""
        message = " ".join(str(error).split())
        assert 20 < len(message) < MAX_MESSAGE_CHARACTERS, f"a message of {len(message)} characters: {message[:200]}"
        assert re.search(r"[;:] \S", message), f"{type(error).__name__} says not what to do: {message}"
        named = dict.fromkeys(("audio", *FAMILIES), "the given recording: ")
        named |= dict.fromkeys(("midi", "midi_original"), "the given MIDI: ")
        named |= dict.fromkeys(("index", "checkpoint", *SCORE_FORMATS), str(self.folder))
        assert message.startswith(named.get(kind, "")), f"{type(error).__name__} names no file: {message}"
        return message

    @contextmanager
    def _damaged(self, folder, source):
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            copy = Path(shutil.copytree(folder, Path(place) / "copy"))
            damage_folder(source, copy)
            yield copy


def _check_embeds(embeds):
    assert embeds.ndim == 2 and len(embeds) == 1, f"embeddings of shape {embeds.shape}"
    length = float(np.linalg.norm(embeds))
    assert np.isfinite(length) and abs(length - 1) < 1e-3, f"an embedding of length {length}"


def _save_music(folder):
    """Two MIDI files, and one that is none, in a folder for each."""
    for number, name in enumerate("ab"):
        notes = b"".join(bytes([0, 0x90, 60 + number + key, 80, 120, 60 + number + key, 0]) for key in range(9))
        track = notes + b"\x00\xff\x2f\x00"
        header = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xe0MTrk"
        (folder / name).mkdir(parents=True)
        (folder / name / f"{name}.mid").write_bytes(header + len(track).to_bytes(4, "big") + track)
    (folder / "a" / "bad.mid").write_bytes(b"no music")


def _save_indices(model, processor, music, folder) -> dict[str, Path]:
    """Indices of that music, by the way in which they are stored."""
    EmbeddingIndex.build(model, processor, music).save(folder / "float32")
    vectors = EmbeddingIndex()
    vectors.add("abc", np.random.default_rng(0).normal(size=(3, 32)))
    vectors.save(folder / "int8", "int8")
    for number, name in enumerate("ab", 1):
        EmbeddingIndex.build(model, processor, music / name).save(shard_folder(folder / "shards", number, 2))
    list_shards(folder / "shards", 2)
    return {name: folder / name for name in ("float32", "int8", "shards")}
