"""Notes -> sound: a small additive piano of our own, or a soundfont."""

import os
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import symusic

from ..notes_pianobind import HIGHEST_KEY, LOWEST_KEY, PianoNotes

SAMPLING_RATE = 24_000  # Hz; the highest key's third partial still fits
MAX_NOTES_PLAYED = 8_000  # of an excerpt; more are inaudible and take seconds
PARTIALS, MAX_PARTIAL_HERTZ = 20, 10_500.0
HIGHEST_DAMPED_KEY = 88  # E6; strings above it have no dampers
DAMPER_SECONDS, ATTACK_SECONDS = 0.09, 0.002
TAIL_SECONDS = 2.0  # after the last release
ROOM_SECONDS, ROOM_SHARE = 0.9, 0.16
PEAK = 0.85


class Instrument(Protocol):
    """What plays notes: `AdditivePiano` or `Soundfont`."""

    def render(self, notes: PianoNotes) -> np.ndarray:
        """See `AdditivePiano.render`."""


class AdditivePiano:
    """A piano of decaying partials: no samples, no download, in tune."""

    def render(self, notes: PianoNotes) -> np.ndarray:
        """Plays notes.

        Args:
            notes (`PianoNotes`): onsets in seconds from the start of the sound.
        Returns:
            `np.ndarray` of shape `(samples, 2)`: float32 at `SAMPLING_RATE`, within -1 to 1.
        """
        sound = np.zeros((round((notes.seconds + TAIL_SECONDS) * SAMPLING_RATE), 2), np.float32)
        held_seconds = notes.duration + notes.pedal
        for note in np.argsort(-notes.velocity, kind="stable")[:MAX_NOTES_PLAYED]:
            key, loudness = int(notes.pitch[note]), notes.velocity[note] / 127
            soft, loud = _tones(key)
            start = round(notes.onset[note] * SAMPLING_RATE)
            length = min(len(soft), len(sound) - start)
            if key <= HIGHEST_DAMPED_KEY:
                length = min(length, round((held_seconds[note] + 5 * DAMPER_SECONDS) * SAMPLING_RATE))
            tone = (1 - loudness) * soft[:length] + loudness * loud[:length]
            released = round(held_seconds[note] * SAMPLING_RATE)
            if released < length:
                fade = np.arange(length - released, dtype=np.float32) / (DAMPER_SECONDS * SAMPLING_RATE)
                tone[released:] *= np.exp(-fade)
            tone *= loudness**1.5
            side = (key - LOWEST_KEY) / (HIGHEST_KEY - LOWEST_KEY)  # bass to the left, as the pianist hears it
            sound[start : start + length, 0] += tone * (1 - 0.5 * side)
            sound[start : start + length, 1] += tone * (0.5 + 0.5 * side)
        return levelled(_in_a_room(sound))


class Soundfont:
    """An SF3 soundfont, played by symusic.

    Args:
        path: the file. symusic plays SF2 fonts at wrong pitches, so they are refused.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an SF3 font.
    """

    def __init__(self, path: str | os.PathLike):
        if not Path(path).is_file():
            raise FileNotFoundError(path)
        if Path(path).suffix.lower() != ".sf3":
            raise ValueError(f"{path}: is not an .sf3 soundfont; give one, or none for the built-in piano.")
        try:
            self._synthesizer = symusic.Synthesizer(sf_path=str(path), sample_rate=SAMPLING_RATE)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read as a soundfont ({error}); download it again.") from error

    def render(self, notes: PianoNotes) -> np.ndarray:
        """Plays notes; see `AdditivePiano.render`."""
        score = symusic.Score(480)
        score.tempos.append(symusic.Tempo(0, qpm=120))  # 960 ticks a second
        track = symusic.Track(program=0)
        ends = notes.onset + notes.duration + notes.pedal
        for note in np.argsort(-notes.velocity, kind="stable")[:MAX_NOTES_PLAYED]:
            start, end = round(notes.onset[note] * 960), round(ends[note] * 960)
            track.notes.append(
                symusic.Note(start, max(1, end - start), int(notes.pitch[note]), int(notes.velocity[note]))
            )
        score.tracks.append(track)
        sound = np.asarray(self._synthesizer.render(score, stereo=True), np.float32).T
        return levelled(sound[: round((notes.seconds + TAIL_SECONDS) * SAMPLING_RATE)])


def levelled(sound: np.ndarray) -> np.ndarray:
    """Sound with its loudest sample at `PEAK`; silence stays silent."""
    peak = float(np.abs(sound).max(initial=0.0))
    return sound * np.float32(PEAK / peak) if peak > 0 else sound


@cache
def _tones(key: int) -> np.ndarray:
    """`(2, samples)` float32: the key struck softly and hard, ringing until it has decayed."""
    place = (key - LOWEST_KEY) / (HIGHEST_KEY - LOWEST_KEY)
    time = np.arange(round((6.5 - 5 * place) * SAMPLING_RATE), dtype=np.float32) / SAMPLING_RATE
    fundamental = 440.0 * 2 ** ((key - 69) / 12)
    number = np.arange(1, PARTIALS + 1)
    # Stiff strings: partials lie above the multiples, more so in the treble. Source: Fletcher and Rossing, The
    # Physics of Musical Instruments, section 12.3.
    hertz = fundamental * number * np.sqrt(1 + 1e-4 * 2 ** (3 * place) * number**2)
    number, hertz = number[hertz < MAX_PARTIAL_HERTZ], hertz[hertz < MAX_PARTIAL_HERTZ]
    hammer = 0.25 + np.abs(np.sin(np.pi * number / 7.5))  # the hammer meets the string near an eighth of its length
    weights = np.stack([hammer / number**2.1, hammer / number**1.25])
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    tones = np.zeros((2, len(time)), np.float32)
    for partial, weight in enumerate(weights.T):
        decay = (0.9 + 5.5 * place) * (1 + 0.22 * partial)
        envelope = 0.75 * np.exp(-2.2 * decay * time) + 0.25 * np.exp(-0.45 * decay * time)  # strike, then aftersound
        wave = np.sin(np.float32(2 * np.pi * hertz[partial]) * time + partial) * envelope
        tones += weight.astype(np.float32)[:, None] * wave
    attack = np.minimum(time / ATTACK_SECONDS, 1)
    fade_out = np.minimum((time[-1] - time) / 0.3, 1)
    return tones * (attack * fade_out).astype(np.float32)


@cache
def _room() -> np.ndarray:
    """`(samples, 2)`: the echoes of a small room, as noise that decays."""
    samples = round(ROOM_SECONDS * SAMPLING_RATE)
    noise = np.random.default_rng(0).standard_normal((samples, 2)) * np.exp(-np.linspace(0, 6, samples))[:, None]
    noise[: round(0.012 * SAMPLING_RATE)] = 0  # the first wall is two metres away
    return (ROOM_SHARE * noise / np.sqrt((noise**2).sum(axis=0))).astype(np.float32)


def _in_a_room(sound: np.ndarray) -> np.ndarray:
    """Sound with the room's echoes, convolved block by block so that memory does not grow with its length."""
    room, block = _room(), 1 << 16
    size = block + len(room)
    spectrum = np.fft.rfft(room, size, axis=0)
    wet = sound.copy()
    for start in range(0, len(sound), block):
        part = sound[start : start + block]
        echoes = np.fft.irfft(np.fft.rfft(part, size, axis=0) * spectrum, size, axis=0)
        end = min(start + len(part) + len(room), len(sound))
        wet[start:end] += echoes[: end - start].astype(np.float32)
    return wet


__all__ = ["SAMPLING_RATE", "AdditivePiano", "Instrument", "Soundfont", "levelled"]
