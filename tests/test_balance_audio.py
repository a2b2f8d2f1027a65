"""The correction of the audio projection, on embeddings whose offset is known."""

import pytest
import torch
import torch.nn.functional as F

from training.balance_audio import correction, offsets


@pytest.fixture
def embeddings():
    """MIDI around a mean, audio that lies half as far from another mean, and texts."""
    generator = torch.Generator().manual_seed(0)
    center, other = F.normalize(torch.randn(2, 32, generator=generator), dim=-1)
    around = 0.15 * torch.randn(400, 32, generator=generator)
    midi = F.normalize(center + around, dim=-1)
    audio = F.normalize(center + 0.2 * other + 0.5 * around, dim=-1)
    return audio, midi, F.normalize(torch.randn(50, 32, generator=generator), dim=-1)


def test_audio_gets_the_mean_and_the_spread_of_the_midi(embeddings):
    audio, midi, texts = embeddings
    before = offsets(audio, midi, texts)
    assert before["audio_spread"] < 0.7 * before["midi_spread"]
    mapped = F.normalize(audio @ correction(audio, midi, texts).T, dim=-1)
    after = offsets(mapped, midi, texts)
    assert abs(after["offset"]) < 1e-3
    assert after["audio_spread"] == pytest.approx(after["midi_spread"], rel=0.02)
    assert torch.allclose(mapped.mean(0), midi.mean(0), atol=0.01)


def test_balanced_audio_is_left_as_it_is(embeddings):
    _, midi, texts = embeddings
    assert torch.allclose(correction(midi, midi, texts), torch.eye(32), atol=1e-4)
