"""Notes -> log-mel spectrograms without a waveform: those of single notes, recorded once, are added up.

Rendering a waveform and its spectrogram costs 20 ms for a window of 20 s; this costs about 5, so every example of a
run can be rendered again. Powers of different notes add on average, which leaves out the beats between close partials;
a run ends on truly rendered windows (`audio_bank`).
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from modeling_pianobind import PianoBindFeatureExtractor
from modeling_pianobind.atomic_file import atomic_file
from modeling_pianobind.notes_pianobind import HIGHEST_KEY, LOWEST_KEY, PianoNotes

from .rendering import Instrument

DEEP_DB = 100.0  # kept below the loudest bin: noise added later needs to reach under the model's own floor
VELOCITIES = (18, 40, 60, 80, 100, 122)
NOTE_SECONDS = 6.0
LEAD_FRAMES = 3  # of the transform's window, which reaches a note before its onset
QUIETEST_DB = 85.0  # frames so far below an instrument's loudest are left out
RELEASE_SECONDS = 0.25
FLUCTUATION_DB = 1.5


class MelInstrument:
    """An instrument by the mel spectrograms of its single notes.

    Args:
        instrument: anything with `render(notes, sampling_rate)` (`training.data.rendering`).
        extractor (`PianoBindFeatureExtractor`): whose bands and frames the spectrograms have.
        cache (`Path`, *optional*): file that keeps them from run to run.
    """

    def __init__(self, instrument: Instrument, extractor: PianoBindFeatureExtractor, cache: Path | None = None):
        self.instrument, self.extractor, self.cache = instrument, extractor, cache
        self.frame_seconds = extractor.hop_length / extractor.sampling_rate

    @cached_property
    def notes(self) -> dict[tuple[int, int], np.ndarray]:
        """Power spectrogram `(frames, bands)` of each key and velocity; half a minute for an instrument."""
        if self.cache and self.cache.exists():
            return {tuple(map(int, name.split("-"))): power for name, power in load_file(self.cache).items()}
        powers = {}
        power = PianoBindFeatureExtractor.from_dict({**self.extractor.to_dict(), "normalize": "none", "top_db": 120.0})
        for key in range(LOWEST_KEY, HIGHEST_KEY + 1):
            waves = [self._note(key, velocity) for velocity in VELOCITIES]
            decibels = power.log_mel(torch.from_numpy(np.stack(waves)))
            for velocity, spectrum in zip(VELOCITIES, (10 ** (decibels / 10)).numpy(), strict=True):
                powers[key, velocity] = spectrum
        loudest = max(spectrum.max() for spectrum in powers.values())
        kept = {}
        for place, spectrum in powers.items():
            audible = np.flatnonzero(spectrum.max(1) > loudest * 10 ** (-QUIETEST_DB / 10))
            kept[place] = (spectrum[: audible[-1] + 1 if len(audible) else 1] / loudest).astype(np.float32)
        if self.cache:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.cache) as temporary:
                save_file({f"{key}-{velocity}": power for (key, velocity), power in kept.items()}, temporary)
        return kept

    def _note(self, key: int, velocity: int) -> np.ndarray:
        note = PianoNotes(
            np.zeros(1),
            np.full(1, NOTE_SECONDS, np.float32),
            np.full(1, key, np.int64),
            np.full(1, velocity, np.int64),
            np.zeros(1, np.float32),
        )
        rate = self.extractor.sampling_rate
        audio = self.instrument.render(note, rate)[: int(NOTE_SECONDS * rate)]
        lead = LEAD_FRAMES * self.extractor.hop_length
        return np.pad(audio, (lead, int(NOTE_SECONDS * rate) - len(audio))).astype(np.float32)

    def render(
        self, notes: PianoNotes, start: float, seconds: float, frames: int, random: np.random.Generator
    ) -> np.ndarray:
        """A stretch of music as an `AudioBank` holds it.

        Args:
            notes (`PianoNotes`): may begin before `start`, in seconds; such notes ring on into the stretch.
            frames (`int`): of the result; those after `seconds` are silent.
            random (`np.random.Generator`): of small differences between notes.
        Returns:
            `np.ndarray` of shape `(frames, bands)`, uint8: 0 is `DEEP_DB` below the loudest bin, 255 the loudest.
        """
        count = min(frames, int(seconds / self.frame_seconds) + 1)
        bands = self.extractor.feature_size
        total = np.zeros((count, bands), np.float32)
        first = np.round((notes.onset - start) / self.frame_seconds).astype(int) - LEAD_FRAMES
        held = np.round((notes.duration + notes.pedal) / self.frame_seconds).astype(int) + LEAD_FRAMES
        layer = np.abs(notes.velocity[:, None] - np.array(VELOCITIES)[None]).argmin(1)
        gain = 10 ** ((0.5 * (notes.velocity - np.array(VELOCITIES)[layer]) + random.normal(0, 1, len(notes))) / 10)
        release = round(RELEASE_SECONDS / self.frame_seconds)
        fade = np.exp(-12 * np.arange(1, release + 1, dtype=np.float32) / release)[:, None]
        for begin, hold, key, place, level in zip(first, held, notes.pitch, layer, gain, strict=True):
            sound = self.notes[int(key), VELOCITIES[place]]
            skipped = max(0, -begin)
            end = min(hold, len(sound), count - begin)
            if end > skipped:
                total[begin + skipped : begin + end] += np.float32(level) * sound[skipped:end]
            tail_end = min(hold + release, len(sound), count - begin)
            tail_begin = max(hold, skipped)
            if tail_end > tail_begin:
                faded = sound[tail_begin:tail_end] * fade[tail_begin - hold : tail_end - hold]
                total[begin + tail_begin : begin + tail_end] += np.float32(level) * faded
        decibels = 10 * np.log10(np.maximum(total, 1e-14)) + _fluctuation(count, bands, random)
        scaled = (decibels - decibels.max()) * (255 / DEEP_DB) + 255
        result = np.zeros((frames, bands), np.uint8)
        result[:count] = np.clip(np.round(scaled), 0, 255)
        return result


def mel_instruments(of_run: list, instruments: list, extractor: PianoBindFeatureExtractor, folder: Path) -> list:
    """Instruments of a run by their spectrograms, each once, which a folder keeps.

    Args:
        of_run: the run's `instruments`, in the order of the instruments that `make_instruments` made of them.
    """
    made = {}
    for settings, instrument in zip(of_run, instruments, strict=True):
        cache = Path(folder) / f"{Path(settings.path).stem}-{settings.program}.safetensors"
        made[instrument] = made.get(instrument) or MelInstrument(instrument, extractor, cache)
    return [made[instrument] for instrument in instruments]


_PATTERN = np.random.default_rng(0).normal(0, FLUCTUATION_DB, (2048, 256)).astype(np.float32)


def _fluctuation(frames: int, bands: int, random: np.random.Generator) -> np.ndarray:
    """Fluctuation of single bins by beats between partials: a stretch of a fixed pattern."""
    row, column = random.integers(2048 - frames), random.integers(256 - bands)
    return _PATTERN[row : row + frames, column : column + bands]


__all__ = ["DEEP_DB", "MelInstrument", "mel_instruments"]
