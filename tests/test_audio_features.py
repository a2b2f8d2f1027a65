"""Log-mel windows: tones in their bands, silence, level, windows, equality with torchaudio."""

import numpy as np
import pytest
import torch

from modeling_pianobind import PianoBindFeatureExtractor

RATE = 16_000


@pytest.fixture(scope="module")
def extractor():
    return PianoBindFeatureExtractor()


def tone(hertz, seconds=20.0, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def band_centres(extractor):
    def mel(hertz):
        return 2595 * np.log10(1 + hertz / 700)

    mels = np.linspace(mel(extractor.min_frequency), mel(extractor.max_frequency), extractor.feature_size + 2)[1:-1]
    return 700 * (10 ** (mels / 2595) - 1)


@pytest.mark.parametrize("hertz", [110.0, 1000.0, 4186.0])
def test_a_tone_is_loudest_in_its_own_band(extractor, hertz):
    features = extractor(tone(hertz), sampling_rate=RATE, return_tensors="pt")["input_features"][0, 0]
    loudest = features[100:-100].mean(0).argmax()
    assert abs(int(loudest) - np.abs(band_centres(extractor) - hertz).argmin()) <= 1


def test_every_band_can_be_heard(extractor):
    noise = torch.randn(1, 20 * RATE, generator=torch.Generator().manual_seed(0))
    assert (extractor.log_mel(noise).amax((0, 1)) > 0.5).all()


def test_digital_silence_inside_a_recording_gives_finite_features_at_the_floor(extractor):
    samples = np.concatenate([tone(440, 5), np.zeros(15 * RATE, np.float32)])
    features = extractor(samples, sampling_rate=RATE, return_tensors="pt")["input_features"][0, 0]
    assert torch.isfinite(features).all()
    assert features[400:].max() == 0
    assert features.max() == 1


def test_the_recording_level_changes_nothing(extractor):
    loud, soft = (
        extractor(tone(440) * level, sampling_rate=RATE, return_tensors="pt")["input_features"] for level in (1, 0.02)
    )
    assert torch.allclose(loud, soft, atol=1e-4)


def test_the_floor_is_counted_from_each_window_so_that_the_batch_does_not_matter(extractor):
    quiet, loud = tone(300, amplitude=0.01), tone(3000, amplitude=0.9)
    alone = extractor([quiet], sampling_rate=RATE, return_tensors="pt")["input_features"][0]
    beside = extractor([quiet, loud], sampling_rate=RATE, return_tensors="pt")["input_features"][0]
    assert torch.equal(alone, beside)


def test_the_last_window_reaches_the_end_and_its_mask_says_where_sound_ends(extractor):
    batch = extractor(tone(440, 25), sampling_rate=RATE, return_tensors="pt")
    assert batch["input_features"].shape == (1, 2, 801, 229)
    assert batch["audio_attention_mask"].sum(-1).tolist() == [[800, 600]]


def test_a_shorter_recording_gets_windows_that_do_not_exist(extractor):
    batch = extractor([tone(440, 5), tone(440, 35)], sampling_rate=RATE, return_tensors="pt")
    assert (batch["audio_attention_mask"].sum(-1) > 0).tolist() == [[True, False, False], [True, True, True]]


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_the_sampling_rate_of_the_source_hardly_matters(extractor, rate):
    time = np.arange(20 * rate) / rate
    features = extractor(
        (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), sampling_rate=rate, return_tensors="pt"
    )
    direct = extractor(tone(440), sampling_rate=RATE, return_tensors="pt")
    middle = slice(50, 750)
    difference = features["input_features"][0, 0, middle] - direct["input_features"][0, 0, middle]
    assert difference[direct["input_features"][0, 0, middle] > 0.5].abs().max() < 0.02


def test_stereo_is_averaged(extractor):
    both = np.stack([tone(440), tone(880)])
    mono = extractor(both.mean(0), sampling_rate=RATE, return_tensors="pt")["input_features"]
    assert torch.equal(extractor(both, sampling_rate=RATE, return_tensors="pt")["input_features"], mono)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (16_000, 2), (1, 2, 16_000)])
def test_a_waveform_of_another_shape_is_refused(extractor, shape):
    with pytest.raises(ValueError, match=r"has shape \(.*it must be \(samples,\) or \(channels, samples\)"):
        extractor(np.ones(shape, np.float32), sampling_rate=16_000)


def test_a_waveform_without_its_sampling_rate_is_refused(extractor):
    with pytest.raises(ValueError, match="sampling_rate"):
        extractor(tone(440))


def test_features_equal_those_of_torchaudio(extractor):
    transforms = pytest.importorskip("torchaudio.transforms", exc_type=(ImportError, OSError))
    waveform = torch.randn(1, 20 * RATE, generator=torch.Generator().manual_seed(1))
    mel = transforms.MelSpectrogram(
        RATE, extractor.fft_size, hop_length=extractor.hop_length, f_min=30.0, f_max=8000.0, n_mels=229
    )
    decibels = 10 * torch.log10(mel(waveform).clamp(min=1e-10)).transpose(1, 2)
    expected = ((decibels - decibels.max()) / 80 + 1).clamp(min=0)
    assert torch.allclose(extractor.log_mel(waveform), expected, atol=1e-4)
