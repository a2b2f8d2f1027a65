"""Changes of notes and audio for the robustness protocols: touch, key, tempo, room, noise, compression."""

import io
from dataclasses import replace

import numpy as np
import soundfile

from modeling_pianobind.notes_pianobind import HIGHEST_KEY, LOWEST_KEY, PianoNotes

JITTER_SECONDS = 0.015
ROOM_SECONDS = 0.9  # until its reverberation is 60 dB down
ROOM_SHARE_DB = -9.0
MICROPHONE_DB = -45.0
NOISE_DB = -20.0
MP3_COMPRESSION = 0.9  # of libsndfile's scale from 0 to 1: a small file that sounds like one


def without_cues(notes: PianoNotes, seed: int) -> PianoNotes:
    """Removes traces of a file's encoding: flat velocity, no pedal, onsets jittered by 15 ms."""
    onset = np.maximum(notes.onset + np.random.default_rng(seed).normal(0, JITTER_SECONDS, len(notes)), 0)
    order = np.lexsort((notes.pitch, onset))
    flat = replace(notes, onset=onset, velocity=np.full_like(notes.velocity, 64), pedal=notes.pedal * 0)
    return flat.take(order)


def transposed(notes: PianoNotes, semitones: int) -> PianoNotes:
    """Notes that leave the keyboard go an octave back."""
    pitch = notes.pitch + semitones
    pitch = np.where(pitch > HIGHEST_KEY, pitch - 12, np.where(pitch < LOWEST_KEY, pitch + 12, pitch))
    return replace(notes, pitch=pitch)


def faster(notes: PianoNotes, ratio: float) -> PianoNotes:
    """All times divided by `ratio`."""
    times = {name: getattr(notes, name) / np.float32(ratio) for name in ("duration", "pedal")}
    return replace(notes, onset=notes.onset / ratio, **times)


def in_a_room(audio: np.ndarray, sampling_rate: int, seed: int) -> np.ndarray:
    """Adds a room's reverberation and a microphone's noise; the peak is 0.9."""
    random = np.random.default_rng(seed)
    time = np.arange(int(ROOM_SECONDS * sampling_rate)) / sampling_rate
    tail = random.normal(size=len(time)) * np.exp(-6.9 * time / ROOM_SECONDS)
    tail *= 10 ** (ROOM_SHARE_DB / 20) / np.linalg.norm(tail)
    size = len(audio) + len(tail)
    wet = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(tail, size), size)[: len(audio)]
    return with_noise(audio + wet, random, MICROPHONE_DB)


def with_noise(audio: np.ndarray, random: np.random.Generator, noise_db: float = NOISE_DB) -> np.ndarray:
    """Adds white noise `noise_db` below the music's own level; the peak is 0.9."""
    level = np.sqrt(np.mean(audio**2))
    mixed = audio + random.normal(size=len(audio)) * level * 10 ** (noise_db / 20)
    return (mixed / max(np.abs(mixed).max(), 1e-9) * 0.9).astype(np.float32)


def through_mp3(audio: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Compressed to MP3 and decoded again."""
    content = io.BytesIO()
    scaled = audio / max(np.abs(audio).max(), 1e-9) * 0.9
    soundfile.write(content, scaled, sampling_rate, format="MP3", compression_level=MP3_COMPRESSION)
    content.seek(0)
    return soundfile.read(content, dtype="float32")[0]
