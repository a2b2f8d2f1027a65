"""Augmentation of notes and waveforms that keeps the piece. Notes change first; audio is rendered from them."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import numpy as np
import torch

from modeling_pianobind.notes_pianobind import HIGHEST_KEY, LOWEST_KEY, PianoNotes

PERFORMED_VELOCITIES = 12  # a file with fewer distinct velocities was not played with dynamics


@dataclass
class NoteAugmentation:
    """Ranges and probabilities of changes to notes; the probabilities are independent."""

    transpose_semitones: int = field(default=6, metadata={"help": "largest transposition up or down"})
    tempo_ratio: float = field(default=1.2, metadata={"help": "largest factor by which tempo rises or falls"})
    velocity_probability: float = field(default=0.5, metadata={"help": "shift and stretch of all velocities"})
    flat_velocity_probability: float = field(default=0.2, metadata={"help": "one velocity for all notes"})
    dynamics_probability: float = field(default=0.6, metadata={"help": "invented dynamics where a file has none"})
    drop_pedal_probability: float = field(default=0.3, metadata={"help": "no pedal"})
    add_pedal_probability: float = field(default=0.4, metadata={"help": "invented pedal where a file has none"})
    jitter_probability: float = field(default=0.6, metadata={"help": "random shifts of onsets"})
    jitter_seconds: float = field(default=0.03, metadata={"help": "largest standard deviation of these shifts"})
    quantise_probability: float = field(default=0.15, metadata={"help": "onsets moved to an even grid"})
    duration_probability: float = field(default=0.5, metadata={"help": "shorter or longer notes throughout"})
    drop_note_probability: float = field(default=0.4, metadata={"help": "some notes missing, some wrong"})

    @classmethod
    def none(cls) -> "NoteAugmentation":
        """Leaves notes as they are."""
        return cls(**{setting.name: 0 for setting in fields(cls)} | {"tempo_ratio": 1.0})

    def __call__(self, notes: PianoNotes, random: np.random.Generator, played: bool) -> PianoNotes:
        """Changes a copy of `notes`; `played` says whether the file has dynamics of its own."""
        return self.change(notes, random, played).notes

    def change(self, notes: PianoNotes, random: np.random.Generator, played: bool) -> "ChangedNotes":
        """The same, and by how much key and tempo have changed."""
        count = len(notes)
        onset, pitch = notes.onset.copy(), notes.pitch.copy()
        duration, pedal = notes.duration.astype(np.float64), notes.pedal.astype(np.float64)
        velocity = notes.velocity.astype(np.float64)

        lowest, highest = LOWEST_KEY - pitch.min(), HIGHEST_KEY - pitch.max()
        limit = self.transpose_semitones
        semitones = int(random.integers(max(-limit, lowest), min(limit, highest) + 1))
        pitch = pitch + semitones

        if not pedal.any() and random.random() < self.add_pedal_probability:
            pedal = _invented_pedal(onset + duration, random)
        elif random.random() < self.drop_pedal_probability:
            if random.random() < 0.5:  # keep the sound: the key is held instead
                duration = duration + pedal
            pedal = np.zeros(count)

        if not played and random.random() < self.dynamics_probability:
            velocity = _invented_dynamics(onset, pitch, random)
        elif random.random() < self.velocity_probability:
            velocity = (velocity - velocity.mean()) * random.uniform(0.6, 1.4) + velocity.mean()
            velocity = velocity + random.uniform(-18, 18) + random.normal(0, random.uniform(0, 4), count)
        if random.random() < self.flat_velocity_probability:
            velocity = np.full(count, random.uniform(45, 110))

        if random.random() < self.duration_probability:
            duration = duration * np.exp(random.uniform(-0.4, 0.35) + random.normal(0, 0.08, count))
        if random.random() < self.quantise_probability:
            grid = random.uniform(0.05, 0.13)
            onset = np.round(onset / grid) * grid
        if random.random() < self.jitter_probability:
            onset = onset + random.normal(0, random.uniform(0, self.jitter_seconds), count)

        stretch = np.exp(random.uniform(-1, 1) * np.log(self.tempo_ratio))
        onset, duration, pedal = np.maximum(onset, 0) * stretch, duration * stretch, pedal * stretch

        if count > 20 and random.random() < self.drop_note_probability:
            kept = np.flatnonzero(random.random(count) >= random.uniform(0, 0.08))
            wrong = random.random(count) < 0.01
            pitch = np.where(wrong, np.clip(pitch + random.choice((-12, 12, 7)), LOWEST_KEY, HIGHEST_KEY), pitch)
        else:
            kept = np.arange(count)
        order = kept[np.lexsort((pitch[kept], onset[kept]))]
        changed = PianoNotes(
            onset[order],
            np.maximum(duration, 0.02)[order].astype(np.float32),
            pitch[order],
            np.clip(np.round(velocity), 1, 127).astype(np.int64)[order],
            np.clip(pedal, 0, 10)[order].astype(np.float32),
        )
        return ChangedNotes(changed, semitones, float(stretch))


@dataclass(frozen=True)
class ChangedNotes:
    """Notes that a `NoteAugmentation` has changed.

    Attributes:
        notes (`PianoNotes`).
        semitones (`int`): how much higher they are.
        stretch (`float`): how many times as long they take.
    """

    notes: PianoNotes
    semitones: int
    stretch: float


def _invented_pedal(release: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A pedal that is changed at even times, as beginners do it; a share of the notes is left dry."""
    period = random.uniform(0.8, 2.6)
    ring = np.ceil(release / period + 1e-6) * period - release
    return np.where(random.random(len(release)) < random.uniform(0.6, 1.0), ring, 0.0)


def _invented_dynamics(onset: np.ndarray, pitch: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Slow swells, a louder top voice and a loose touch around a random level."""
    phase, period = random.uniform(0, 2 * np.pi), random.uniform(4, 20)
    swell = random.uniform(2, 14) * np.sin(2 * np.pi * onset / period + phase)
    top_voice = random.uniform(0, 0.5) * (pitch - pitch.mean())
    return random.uniform(45, 92) + swell + top_voice + random.normal(0, random.uniform(2, 8), len(onset))


def augment_waveforms(waveforms: torch.Tensor, sampling_rate: int, strength: float = 1.0) -> torch.Tensor:
    """Room, microphone, noise, detuning and level, at random for each row; runs on the waveforms' device.

    Args:
        waveforms (`torch.Tensor` of shape `(batch, samples)`).
        sampling_rate (`int`): in Hz.
        strength (`float`): 0 changes nothing but the level.
    """
    batch, samples = waveforms.shape
    device = waveforms.device

    def uniform(low, high, *shape):
        return torch.rand(batch, *shape, device=device) * (high - low) + low

    spectrum = torch.fft.rfft(_with_detuning(waveforms, uniform(-0.006, 0.006) * strength))
    frequency = torch.fft.rfftfreq(samples, 1 / sampling_rate, device=device)[None].clamp(min=20.0)
    spectrum = spectrum * _equaliser(frequency, uniform, strength, sampling_rate)
    spectrum = spectrum * _room(samples, sampling_rate, uniform, strength)
    changed = torch.fft.irfft(spectrum, n=samples)
    level = changed.pow(2).mean(1, keepdim=True).sqrt().clamp(min=1e-6)
    changed = changed / level
    drive = 10 ** uniform(-1.5, 0.2, 1) * strength  # soft clipping, mostly far below the knee
    changed = torch.where(
        uniform(0, 1, 1) < 0.3 * strength, torch.tanh(changed * drive) / drive.clamp(min=1e-3), changed
    )
    noise_db = torch.where(uniform(0, 1, 1) < 0.7 * strength, uniform(-70, -22, 1), torch.full_like(level, -90.0))
    noise = torch.fft.rfft(torch.randn_like(changed)) * (frequency / 500) ** -uniform(0, 1, 1)
    noise = torch.fft.irfft(noise, n=samples)
    noise = noise / noise.pow(2).mean(1, keepdim=True).sqrt()
    return (changed + noise * 10 ** (noise_db / 20)) * 10 ** uniform(-2.5, -0.7, 1)


def _with_detuning(waveforms: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """Plays each row faster by `ratio` (a share of a semitone is about 0.06); linear interpolation."""
    samples = waveforms.shape[1]
    places = torch.arange(samples, device=waveforms.device, dtype=torch.float32)[None] * (1 + ratio[:, None])
    places = places.clamp(max=samples - 2)
    below = places.long()
    weight = places - below
    return waveforms.gather(1, below) * (1 - weight) + waveforms.gather(1, below + 1) * weight


def _equaliser(
    frequency: torch.Tensor, uniform: Callable[..., torch.Tensor], strength: float, sampling_rate: int
) -> torch.Tensor:
    """Random gentle slopes, two broad bells and a low-pass, as decibels over frequency."""
    octaves = torch.log2(frequency / 700)
    gain = uniform(-2.5, 1.5, 1) * octaves * strength
    for _ in range(2):
        centre, width = uniform(-3.5, 3.5, 1), uniform(0.4, 1.5, 1)
        gain = gain + uniform(-9, 9, 1) * strength * torch.exp(-(((octaves - centre) / width) ** 2))
    edge = torch.log2(
        torch.where(uniform(0, 1, 1) < 0.3, uniform(2500, 7500, 1), sampling_rate / 2 * uniform(1, 1, 1))
    )
    gain = gain - 24 * strength * (torch.log2(frequency) - edge).clamp(min=0)
    rumble = torch.log2(uniform(20, 120, 1))
    gain = gain - 12 * strength * (rumble - torch.log2(frequency)).clamp(min=0)
    return 10 ** (gain.clamp(-60, 20) / 20)


def _room(samples: int, sampling_rate: int, uniform: Callable[..., torch.Tensor], strength: float) -> torch.Tensor:
    """Spectrum of a random room: the direct sound and an exponentially decaying tail of noise."""
    decay, wet_db, share = uniform(0.15, 2.2, 1), uniform(-28, -3, 1), uniform(0, 1, 1)
    time = torch.arange(samples, device=decay.device)[None] / sampling_rate
    tail = torch.randn(len(decay), samples, device=decay.device) * torch.exp(-6.9 * time / decay)
    tail = tail * (time > uniform(0.002, 0.03, 1))
    tail = tail / tail.pow(2).sum(1, keepdim=True).sqrt()
    wet = torch.where(share < 0.75 * strength, 10 ** (wet_db / 20), torch.zeros_like(wet_db))
    return 1 + wet * torch.fft.rfft(tail)
