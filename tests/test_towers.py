"""The towers' options: several notes a token, patches of frames, rhythm, and attention that trains in bfloat16."""

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from modeling_pianobind import PianoBindAudioConfig, PianoBindMidiConfig
from modeling_pianobind.note_statistics_pianobind import NoteStatistics, at_lags, onset_envelopes, periodicity, rhythm
from modeling_pianobind.towers_pianobind import PianoBindAudioModel, PianoBindMidiModel, attend

SMALL = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}


def midi_tower(**settings):
    torch.manual_seed(0)
    return PianoBindMidiModel(PianoBindMidiConfig(**SMALL, field_embedding_size=8, **settings)).eval()


def random_rows(config, *lengths):
    generator = torch.Generator().manual_seed(1)
    sizes = config.field_sizes
    ids = torch.stack(
        [torch.randint(0, size - 2, (len(lengths), max(lengths)), generator=generator) for size in sizes], dim=-1
    )
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    return ids, mask


@pytest.mark.parametrize("settings", [{}, {"note_statistics": True, "rhythm_statistics": True}])
def test_a_window_of_grouped_notes_is_the_same_alone_and_beside_longer_ones(settings):
    tower = midi_tower(notes_per_token=4, **settings)
    ids, mask = random_rows(tower.config, 13, 40, 1)
    together = tower.pool(tower(ids, mask), mask)
    for row, length in enumerate((13, 40, 1)):
        alone_ids, alone_mask = ids[row : row + 1, :length], mask[row : row + 1, :length]
        alone = tower.pool(tower(alone_ids, alone_mask), alone_mask)
        assert torch.allclose(alone, together[row : row + 1], atol=1e-5)


def test_a_token_is_several_notes_and_the_mean_is_over_notes():
    tower = midi_tower(notes_per_token=4)
    ids, mask = random_rows(tower.config, 10)
    hidden = tower(ids, mask)
    assert hidden.shape == (1, 3, 24)
    expected = (4 * hidden[:, 0] + 4 * hidden[:, 1] + 2 * hidden[:, 2]) / 10
    assert torch.allclose(tower.pool(hidden, mask), expected, atol=1e-6)


def test_the_order_of_notes_within_a_token_matters():
    tower = midi_tower(notes_per_token=4)
    ids, mask = random_rows(tower.config, 8)
    swapped = ids.clone()
    swapped[:, [1, 2]] = ids[:, [2, 1]]
    assert not torch.allclose(tower(ids, mask), tower(swapped, mask), atol=1e-3)


def test_attention_that_trains_in_bfloat16_is_that_of_float32():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 6, 8) for _ in range(3))
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])[:, None, None]
    exact = attend(q, k, v, mask)
    fast = attend(q.bfloat16().requires_grad_(), k.bfloat16(), v.bfloat16(), mask)
    assert fast.grad_fn is not None and torch.allclose(fast.float(), exact, atol=0.03)
    blind = v.clone()
    blind[1, :, 4:] = 99.0  # padding
    assert torch.allclose(
        attend(q.bfloat16().requires_grad_(), k.bfloat16(), blind.bfloat16(), mask).float(), exact, atol=0.03
    )


def test_patches_of_frames_hear_a_window_alike_however_it_is_padded():
    torch.manual_seed(0)
    config = PianoBindAudioConfig(**SMALL, num_mel_bins=20, window_frames=41, patch_frames=8)
    tower = PianoBindAudioModel(config).eval()
    features, mask = torch.rand(1, 41, 20), torch.ones(1, 41)
    mask[:, 30:] = 0
    hidden = tower(features, mask)
    assert hidden.shape == (1, 6, 24) and tower.stride == 8
    noisy = features.clone()
    noisy[:, 30:] = 5.0
    assert torch.allclose(tower.pool(hidden, mask), tower.pool(tower(noisy, mask), mask), atol=1e-6)
    assert torch.allclose(
        tower.pool(hidden, mask), tower.pool(tower(features[:, :32], mask[:, :32]), mask[:, :32]), atol=1e-5
    )


def beats(period: float, accents: tuple[int, ...], count: int = 60):
    """Onsets of a bass note on accented beats and a chord note on all: keys, 1 for each note, seconds."""
    keys, seconds = [], []
    for beat in range(count):
        keys.append(40)
        seconds.append(beat * period)
        if beat % len(accents) in accents and accents[beat % len(accents)] == beat % len(accents):
            keys.append(10)
            seconds.append(beat * period)
    order = np.argsort(seconds, kind="stable")
    keys, seconds = torch.tensor(keys)[order], torch.tensor(seconds, dtype=torch.float32)[order]
    inside = seconds < 20
    return keys[inside][None], torch.ones(1, int(inside.sum())), seconds[inside][None]


@pytest.mark.parametrize("period", [0.35, 0.5, 0.7])
def test_the_bass_repeats_after_three_beats_in_a_waltz_and_after_two_in_a_march(period):
    waltz = periodicity(onset_envelopes(*beats(period, (0, -1, -1))))
    march = periodicity(onset_envelopes(*beats(period, (0, -1))))
    lags = torch.tensor([[2 * period, 3 * period]])
    (two, three), (even, odd) = at_lags(waltz, lags)[0, 1], at_lags(march, lags)[0, 1]
    assert three > 0.5 > two and even > 0.5 > odd


def test_rhythm_in_beats_is_the_same_at_another_tempo_and_swing_shows():
    slow, fast = (rhythm(*beats(period, (0, -1, -1))) for period in (0.6, 0.45))
    in_beats = slice(2 * 40, 2 * 40 + 24)
    assert torch.allclose(slow[:, in_beats], fast[:, in_beats], atol=0.25)
    straight = torch.arange(0, 16, 0.25)[None]
    swung = straight + 0.083 * (torch.arange(64) % 2)[None]
    keys, mask = torch.full((1, 64), 40), torch.ones(1, 64)
    gaps = slice(-25, -1)
    assert not torch.allclose(rhythm(keys, mask, straight)[:, gaps], rhythm(keys, mask, swung)[:, gaps], atol=0.1)


def test_rhythm_statistics_add_to_the_others_and_are_finite_for_a_single_note():
    config = PianoBindMidiConfig(note_statistics=True, rhythm_statistics=True)
    plain = NoteStatistics(PianoBindMidiConfig(note_statistics=True))
    statistics = NoteStatistics(config)
    ids, mask = random_rows(config, 30, 1)
    seconds = torch.rand(2, 30).cumsum(1)
    measured = statistics.measure(ids, mask, seconds)
    assert torch.isfinite(measured).all() and measured.shape[1] == statistics.norm.normalized_shape[0]
    before = plain.measure(ids, mask, seconds)
    assert torch.equal(measured[:, : before.shape[1]], before)


def test_rhythm_without_notes_statistics_is_refused():
    with pytest.raises(StrictDataclassClassValidationError, match="rhythm_statistics"):
        PianoBindMidiConfig(rhythm_statistics=True)
