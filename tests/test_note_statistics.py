"""What a window is like as a whole: histograms and keys that can be worked out by hand."""

import pytest
import torch

from modeling_pianobind import PianoBindMidiConfig
from modeling_pianobind.note_statistics_pianobind import NoteStatistics, histogram, key_correlations, tonics


def test_a_histogram_leaves_out_what_has_no_weight():
    shares = histogram(torch.tensor([[0, 2, 2, 1]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]]), 4)
    assert torch.allclose(shares, torch.tensor([[1 / 3, 0, 2 / 3, 0]]))


@pytest.mark.parametrize(("tonic", "mode"), [(0, 0), (7, 0), (9, 1), (3, 1)])
def test_a_tonic_triad_is_found_in_its_key(tonic, mode):
    weights = torch.zeros(1, 12)
    for step, weight in ((0, 3.0), (3 if mode else 4, 2.0), (7, 2.0), (2, 1.0), (5, 1.0)):
        weights[0, (tonic + step) % 12] = weight
    assert key_correlations(weights)[0].flatten().argmax().item() == 12 * mode + tonic


@pytest.fixture
def statistics():
    return NoteStatistics(PianoBindMidiConfig(note_statistics=True))


def window(keys, gap=60):
    """Rows of notes one after the other, and their onsets."""
    ids = torch.tensor([[[key, gap if place else 0, 20, 16, 0] for place, key in enumerate(keys)]])
    return ids, torch.ones(1, len(keys), dtype=torch.long), torch.arange(len(keys))[None] * 0.5


def test_padding_changes_no_statistic(statistics):
    ids, mask, seconds = window([39, 43, 46, 51])
    padded = torch.nn.functional.pad(ids, (0, 0, 0, 3), value=7)
    longer = torch.nn.functional.pad(seconds, (0, 3), value=99.0)
    measured = statistics.measure(padded, torch.nn.functional.pad(mask, (0, 3)), longer)
    assert torch.allclose(measured, statistics.measure(ids, mask, seconds), atol=1e-6)


def test_transposition_moves_the_keys_and_nothing_else(statistics):
    keys = 90
    first = statistics.measure(*window([39, 43, 46, 51]))[0]
    higher = statistics.measure(*window([44, 48, 51, 56]))[0]
    assert not torch.allclose(first[:keys], higher[:keys])
    assert torch.allclose(first[keys:], higher[keys:], atol=1e-5)


def test_chords_are_told_from_melodies(statistics):
    ids, mask, seconds = window([39, 43, 46, 51])
    chord = ids.clone()
    chord[..., 1] = 0
    assert not torch.allclose(statistics.measure(ids, mask, seconds), statistics.measure(chord, mask, seconds))


def test_statistics_need_rows_in_real_time():
    with pytest.raises(Exception, match="rotary"):
        PianoBindMidiConfig(note_statistics=True, position_embedding_type="relative_key_query")


def test_rounding_does_not_choose_between_keys_that_fit_equally_well():
    diminished = torch.zeros(1, 12)
    diminished[0, [1, 4, 7, 10]] = 0.25  # fits four keys of each mode alike
    strengths = key_correlations(diminished)
    best = strengths.amax(1).topk(4).values
    assert (best[:, 0] - best[:, 3]).item() < 1e-6
    noise = torch.rand(64, 2, 12, generator=torch.Generator().manual_seed(0)) * 1e-6
    assert len(set(tonics(strengths + noise).flatten().tolist())) == 1
