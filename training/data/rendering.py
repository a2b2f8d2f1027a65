"""Notes -> audio: by soundfonts (SF3 through symusic, SF2 through FluidSynth), or by samples of a real grand piano."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import soundfile
import soxr
import symusic

from modeling_pianobind.notes_pianobind import PianoNotes

from .arguments import InstrumentArguments
from .tuning import check_instruments

if TYPE_CHECKING:
    import fluidsynth

TICKS_PER_SECOND = 960


class Instrument(Protocol):
    """What plays notes."""

    def render(self, notes: PianoNotes, sampling_rate: int) -> np.ndarray:
        """Mono float32 of shape `(samples,)`."""


class SoundfontInstrument:
    """One program of an SF3 file, played by symusic."""

    def __init__(self, path: str | Path, program: int = 0, render_rate: int = 32_000):
        self.path, self.program, self.render_rate = str(path), program, render_rate

    @cached_property
    def synthesizer(self) -> symusic.Synthesizer:
        return symusic.Synthesizer(sf_path=self.path, sample_rate=self.render_rate, quality=0)

    def render(self, notes: PianoNotes, sampling_rate: int) -> np.ndarray:
        """Mono float32 of shape `(samples,)`; the sustain pedal is played as longer notes."""
        score = symusic.Score(TICKS_PER_SECOND // 2)  # at the standard's 120 beats a minute
        track = symusic.Track(program=self.program)
        ticks = np.round(notes.onset * TICKS_PER_SECOND).astype(np.int32)
        lengths = np.maximum(np.round((notes.duration + notes.pedal) * TICKS_PER_SECOND), 1).astype(np.int32)
        track.notes = symusic.Note.from_numpy(
            ticks, lengths, notes.pitch.astype(np.int8), notes.velocity.astype(np.int8)
        )
        score.tracks.append(track)
        audio = np.asarray(self.synthesizer.render(score, stereo=False))[0]
        return soxr.resample(audio, self.render_rate, sampling_rate).astype(np.float32)


class FluidInstrument:
    """One program of an SF2 file, played by FluidSynth: symusic 0.5.8 plays such files out of tune."""

    gain = 0.8  # the loudest chords of the open piano corpus stay below full scale
    voices = 512
    tail_seconds = 1

    def __init__(self, path: str | Path, program: int = 0):
        self.path, self.program = str(path), program
        self.synthesizers = {}

    def synthesizer(self, sampling_rate: int) -> "fluidsynth.Synth":
        if sampling_rate not in self.synthesizers:
            try:
                import fluidsynth
            except ImportError as error:
                raise ValueError(
                    f"{self.path}: SF2 files are played by FluidSynth, which is not here ({error}); install it "
                    "(`apt install libfluidsynth3`, `pip install pyfluidsynth`), or use an SF3 file."
                ) from error
            made = fluidsynth.Synth(gain=self.gain, samplerate=sampling_rate)
            for name, value in (("reverb.active", 0), ("chorus.active", 0), ("polyphony", self.voices)):
                made.setting(f"synth.{name}", value)
            made.program_select(0, made.sfload(self.path), 0, self.program)
            self.synthesizers[sampling_rate] = made
        return self.synthesizers[sampling_rate]

    def render(self, notes: PianoNotes, sampling_rate: int) -> np.ndarray:
        """Mono float32 of shape `(samples,)`; the sustain pedal is played as longer notes."""
        synthesizer = self.synthesizer(sampling_rate)
        synthesizer.all_sounds_off(0)
        count = len(notes)
        seconds = np.concatenate([notes.onset, notes.onset + notes.duration + notes.pedal])
        begins = np.arange(2 * count) < count
        now, parts = 0, []
        for event in np.lexsort((begins, seconds)):  # at one instant a key is released before it is struck again
            until = round(seconds[event] * sampling_rate)
            if until > now:
                parts.append(synthesizer.get_samples(until - now))
                now = until
            key = int(notes.pitch[event % count])
            if begins[event]:
                synthesizer.noteon(0, key, int(notes.velocity[event]))
            else:
                synthesizer.noteoff(0, key)
        parts.append(synthesizer.get_samples(self.tail_seconds * sampling_rate))
        return np.concatenate(parts).reshape(-1, 2).mean(1).astype(np.float32) / 32_768


class SampledInstrument:
    """A folder of `PITCH-vLAYER.ogg` samples, such as the Salamander grand's."""

    release_seconds = 0.25

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.bank = {}

    @cached_property
    def layout(self) -> tuple[list[int], int]:
        """The sampled pitches and the number of velocity layers."""
        names = [path.stem.split("-v") for path in self.folder.glob("*-v*.ogg")]
        return sorted({int(pitch) for pitch, _ in names}), 1 + max(int(layer) for _, layer in names)

    def sample(self, pitch: int, layer: int, sampling_rate: int) -> np.ndarray:
        """The sound of one key; a key without its own sample is the nearest one played faster or slower."""
        key = (pitch, layer, sampling_rate)
        if key not in self.bank:
            pitches, _ = self.layout
            nearest = min(pitches, key=lambda sampled: abs(sampled - pitch))
            audio, rate = soundfile.read(self.folder / f"{nearest}-v{layer}.ogg", dtype="float32", always_2d=True)
            shifted = rate * 2 ** ((pitch - nearest) / 12)
            self.bank[key] = soxr.resample(audio.mean(1), shifted, sampling_rate).astype(np.float32)
        return self.bank[key]

    def render(self, notes: PianoNotes, sampling_rate: int) -> np.ndarray:
        """Mono float32 of shape `(samples,)`."""
        _, layers = self.layout
        longest = 1 + int((notes.onset + notes.duration + notes.pedal).max() + self.release_seconds + 1)
        audio = np.zeros(longest * sampling_rate, np.float32)
        fade = np.exp(-6 * np.linspace(0, 1, int(self.release_seconds * sampling_rate), dtype=np.float32))
        starts = np.round(notes.onset * sampling_rate).astype(int)
        held = np.round((notes.duration + notes.pedal) * sampling_rate).astype(int)
        layer = np.minimum(notes.velocity * layers // 128, layers - 1)
        # within a layer the level follows velocity; the layers themselves differ in level and colour
        centre = (layer + 0.5) * 128 / layers
        gain = 10 ** ((notes.velocity - centre) * 0.3 / 20)
        for note in range(len(notes)):
            sound = self.sample(int(notes.pitch[note]), int(layer[note]), sampling_rate)
            sound = sound[: held[note] + len(fade)] * np.float32(gain[note])
            tail = len(sound) - held[note]
            if tail > 0:
                sound[held[note] :] *= fade[:tail]
            end = min(starts[note] + len(sound), len(audio))
            audio[starts[note] : end] += sound[: end - starts[note]]
        return audio


def make_instruments(arguments: list[InstrumentArguments]) -> list[Instrument]:
    """What the `instruments` of a run's file name, in their order; one folder of samples is held once.

    Raises:
        ValueError: an instrument plays another pitch than that of the note.
    """
    made = {}
    for instrument in arguments:
        key = (instrument.path, instrument.program, instrument.render_rate)
        if key not in made:
            if Path(instrument.path).is_dir():
                made[key] = SampledInstrument(instrument.path)
            elif Path(instrument.path).suffix.lower() == ".sf2":
                made[key] = FluidInstrument(instrument.path, instrument.program)
            else:
                made[key] = SoundfontInstrument(instrument.path, instrument.program, instrument.render_rate)
    check_instruments(list(made.values()), [path for path, _, _ in made])
    return [made[instrument.path, instrument.program, instrument.render_rate] for instrument in arguments]


def fit_length(audio: np.ndarray, samples: int) -> np.ndarray:
    """Cuts or pads with silence on the right."""
    return np.pad(audio[:samples], (0, max(0, samples - len(audio))))


__all__ = ["FluidInstrument", "SampledInstrument", "SoundfontInstrument", "fit_length", "make_instruments"]
