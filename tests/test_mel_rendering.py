"""Windows played as sums of single notes' spectrograms: where notes are, and how near true rendering they come."""

import numpy as np
import pytest
import torch

from modeling_pianobind import PianoBindFeatureExtractor
from modeling_pianobind.notes_pianobind import PianoNotes
from training.data.arguments import InstrumentArguments
from training.data.audio_bank import augment_log_mel, deep_extractor
from training.data.mel_rendering import DEEP_DB, MelInstrument, mel_instruments

from .training_data import Clicks


class Tones:
    """Decaying sines on the keys' frequencies."""

    def render(self, notes, sampling_rate):
        audio = np.zeros(int((notes.onset + notes.duration).max() * sampling_rate) + sampling_rate, np.float32)
        for onset, duration, pitch, velocity in zip(
            notes.onset, notes.duration, notes.pitch, notes.velocity, strict=True
        ):
            time = np.arange(int(duration * sampling_rate)) / sampling_rate
            tone = np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time) * np.exp(-3 * time)
            start = int(onset * sampling_rate)
            audio[start : start + len(tone)] += (velocity / 127) ** 2 * tone.astype(np.float32)
        return audio


def notes_at(*triples):
    onset, pitch, velocity = map(np.array, zip(*triples, strict=True))
    count = len(onset)
    full = np.full(count, 1.5, np.float32)
    return PianoNotes(onset.astype(float), full, pitch, velocity, np.zeros(count, np.float32))


@pytest.fixture(scope="module")
def extractor():
    return PianoBindFeatureExtractor(window_seconds=6.0, hop_seconds=3.0)


@pytest.fixture(scope="module")
def instrument(extractor):
    return MelInstrument(Tones(), extractor)


def frames_of(extractor):
    return 1 + extractor.window_samples // extractor.hop_length


def test_a_sum_of_notes_is_near_the_spectrogram_of_the_waveform(instrument, extractor):
    notes = notes_at((0.5, 60, 80), (1.0, 64, 100), (1.0, 72, 60), (3.0, 48, 122))
    mine = instrument.render(notes, 0.0, 6.0, frames_of(extractor), np.random.default_rng(0))
    audio = Tones().render(notes, extractor.sampling_rate)[: extractor.window_samples]
    audio = np.pad(audio, (0, extractor.window_samples - len(audio)))
    true = deep_extractor(extractor).log_mel(torch.from_numpy(audio)[None])[0].numpy() * DEEP_DB
    mine = mine * (DEEP_DB / 255)
    audible = true > 60
    assert np.abs(true - mine)[audible].mean() < 4
    assert np.corrcoef(true[audible], mine[audible])[0, 1] > 0.9


def test_a_stretch_begins_where_it_is_told_and_is_silent_after_its_end(instrument, extractor):
    notes = notes_at((1.0, 60, 80), (2.5, 67, 80))
    stretch = instrument.render(notes, 1.0, 2.0, frames_of(extractor), np.random.default_rng(0))
    assert stretch[:4].max() > 200, "the first note is struck at once"
    struck = round(1.5 * extractor.sampling_rate / extractor.hop_length)
    rise = stretch.astype(int)[struck + 2].sum() - stretch.astype(int)[struck - 5].sum()
    assert rise > 0
    assert not stretch[round(2.0 * extractor.sampling_rate / extractor.hop_length) + 2 :].any()


def test_single_notes_are_kept_from_run_to_run(extractor, tmp_path):
    cache = tmp_path / "kept" / "clicks.safetensors"
    first = MelInstrument(Clicks(), extractor, cache)
    made = first.notes
    assert cache.exists() and not list(cache.parent.glob("*.partial"))
    again = MelInstrument(None, extractor, cache).notes
    assert made.keys() == again.keys() and all(np.array_equal(made[key], again[key]) for key in made)


def test_a_room_rings_on_and_reaches_no_frame_before_the_sound(extractor):
    torch.manual_seed(3)
    decibels = torch.zeros(8, 60, extractor.feature_size, dtype=torch.uint8)
    decibels[:, 30] = 255
    features = augment_log_mel(decibels, extractor)
    later, earlier = features[:, 31:40].mean((1, 2)), features[:, 20:30].mean((1, 2))
    assert (later >= earlier - 1e-3).all() and (later > earlier + 0.01).any()


def test_instruments_of_a_run_are_made_once_and_kept_by_name(extractor, tmp_path):
    named, player = [InstrumentArguments("sounds/grand.sf3", 1)] * 2, Tones()
    first, second = mel_instruments(named, [player, player], extractor, tmp_path)
    assert first is second and first.cache == tmp_path / "grand-1.safetensors"
