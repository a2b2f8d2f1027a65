"""Excerpts of MIDI files and recordings as sound, behind one interface."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..decoding_pianobind import needs_ffmpeg
from ..feature_extraction_pianobind import audio_blocks
from ..inputs_pianobind import gives_notes, modality_of
from ..notes_pianobind import PianoNotes, read_midi
from .synthesis import SAMPLING_RATE, Instrument, levelled

MAX_CHANNELS, MAX_SAMPLING_RATE = 8, 192_000  # a small file could otherwise unpack to gigabytes
BLOCK_SECONDS = 5.0  # decoded at a time
EXCERPT_SECONDS = 180.0  # longest excerpt that is drawn and played; bounds memory, and a longer roll is not legible


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a piece, in seconds from the piece's start."""

    start_seconds: float
    end_seconds: float

    @property
    def seconds(self) -> float:
        return self.end_seconds - self.start_seconds


def excerpt_around(seconds: float, window: tuple[float, float] | None) -> Excerpt:
    """The whole of a piece of `seconds`, or as much of a long one as is shown, with `window` in its middle."""
    if seconds <= EXCERPT_SECONDS:
        return Excerpt(0.0, seconds)
    middle = sum(window) / 2 if window else 0.0
    start = min(max(0.0, middle - EXCERPT_SECONDS / 2), seconds - EXCERPT_SECONDS)
    return Excerpt(start, start + EXCERPT_SECONDS)


class Midi:
    """A piece that is known by its notes."""

    def __init__(self, notes: PianoNotes):
        self.notes = notes
        self.seconds = notes.seconds

    @property
    def kept_bytes(self) -> int:
        """Memory that it holds."""
        return sum(values.nbytes for values in vars(self.notes).values())

    def sound(self, excerpt: Excerpt, instrument: Instrument) -> np.ndarray:
        """`(samples, 2)` float32 at `SAMPLING_RATE`."""
        return instrument.render(self.notes.crop(excerpt.start_seconds, excerpt.end_seconds))


class Recording:
    """A piece that is known by its sound.

    Args:
        source: a path, or a file's content as bytes.
    Raises:
        ValueError: it cannot be decoded, or does not say how long it is.
        OSError: it cannot be opened.
    """

    def __init__(self, source: str | os.PathLike | bytes):
        self.source = source
        with self._open() as sound:
            if not 0 < sound.frames < 2**40:
                raise ValueError(f"{self._name}: does not say how long it is; convert it to WAV or FLAC.")
            if sound.channels > MAX_CHANNELS or sound.samplerate > MAX_SAMPLING_RATE:
                raise ValueError(
                    f"{self._name}: has {sound.channels} channels at {sound.samplerate} Hz, and at most "
                    f"{MAX_CHANNELS} at {MAX_SAMPLING_RATE} Hz are allowed; mix it down to stereo at 44100 Hz."
                )
            self.seconds = sound.frames / sound.samplerate

    @property
    def kept_bytes(self) -> int:
        """Memory that it holds."""
        return len(self.source) if isinstance(self.source, bytes) else 0

    @cached_property
    def _name(self) -> str:
        return "the recording" if isinstance(self.source, bytes) else str(self.source)

    @contextmanager
    def _open(self) -> Iterator[soundfile.SoundFile]:
        try:
            with (
                io.BytesIO(self.source) if isinstance(self.source, bytes) else open(self.source, "rb") as source,
                soundfile.SoundFile(source) as sound,
            ):
                yield sound
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"{self._name}: cannot be decoded as audio ({error.error_string.strip('. ')}); "
                "if it plays elsewhere, convert it to WAV or FLAC."
            ) from error

    def samples(self, excerpt: Excerpt, sampling_rate: int, channels: int) -> np.ndarray:
        """`(samples, channels)` float32 of an excerpt; 1 channel is the mean of all."""
        with self._open() as sound:
            first, last = (round(at * sound.samplerate) for at in (excerpt.start_seconds, excerpt.end_seconds))
            sound.seek(min(first, sound.frames))
            resampler = soxr.ResampleStream(sound.samplerate, sampling_rate, channels, dtype="float32")
            block, parts = round(BLOCK_SECONDS * sound.samplerate), []
            for start in range(first, last, block):
                samples = np.nan_to_num(sound.read(min(block, last - start), dtype="float32", always_2d=True))
                samples = samples.mean(axis=1, keepdims=True) if channels == 1 else samples[:, [0, -1]]
                parts.append(resampler.resample_chunk(np.ascontiguousarray(samples), last=start + block >= last))
        return np.concatenate(parts).reshape(-1, channels)

    def sound(self, excerpt: Excerpt, instrument: Instrument | None = None) -> np.ndarray:
        """`(samples, 2)` float32 at `SAMPLING_RATE`; no instrument is needed."""
        return levelled(self.samples(excerpt, SAMPLING_RATE, channels=2))


def open_music(path: str | os.PathLike) -> Midi | Recording:
    """Opens a MIDI file, score or recording by its extension.

    Raises:
        ValueError, OSError: it cannot be read.
    """
    modality_of(path)  # refuses files that are not music
    if gives_notes(path):
        return Midi(read_midi(Path(path)))
    with open(path, "rb") as handle:
        head = handle.read(12)
    if needs_ffmpeg(head):  # soundfile cannot seek in it; as FLAC it can
        sound = np.concatenate(list(audio_blocks(str(path), None, SAMPLING_RATE)))
        return Recording(flac(np.stack([sound, sound], axis=1)))
    return Recording(path)


def flac(sound: np.ndarray) -> bytes:
    """`(samples, 2)` float32 at `SAMPLING_RATE` as a FLAC file: browsers play it, and it takes hardly any time."""
    content = io.BytesIO()
    soundfile.write(content, sound, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return content.getvalue()


__all__ = ["EXCERPT_SECONDS", "Excerpt", "Midi", "Recording", "excerpt_around", "flac", "open_music"]
