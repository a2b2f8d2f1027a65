"""Scores are embedded as they are played, and searched by their printed notes."""

import numpy as np
import pytest

from modeling_pianobind import embed_midi, embed_score
from modeling_pianobind.notes_pianobind import PianoNotes, PrintedNotes, read_midi
from modeling_pianobind.score_playing_pianobind import as_played


def chords(count: int = 200) -> PrintedNotes:
    """Chords of three keys, half a second apart and long, all alike."""
    onset = np.repeat(np.arange(count) * 0.5, 3)
    same = np.full(len(onset), 0.5, np.float32)
    return PrintedNotes(onset, same, np.tile([60, 64, 67], count), np.full(len(onset), 70), np.zeros_like(same))


def test_playing_changes_no_key_and_no_tempo():
    printed = chords()
    played = as_played(printed)
    assert type(played) is PianoNotes and len(played) == len(printed)
    assert np.bincount(played.pitch).tolist() == np.bincount(printed.pitch).tolist()
    assert (np.diff(played.onset) >= 0).all() and played.onset[0] >= 0
    assert np.abs(np.sort(played.onset) - printed.onset).max() < 0.1
    assert 0.01 < np.std(played.onset.reshape(-1, 3) - printed.onset.reshape(-1, 3)) < 0.03
    assert played.duration.min() >= 0.03 and np.median(played.duration) == pytest.approx(0.43, abs=0.03)
    assert played.pedal.min() > 0 and played.pedal.max() <= 1.5


def test_the_top_voice_is_loudest_and_pedal_marks_stay():
    printed = chords()
    printed.pedal[:] = 3.0
    played = as_played(printed)
    assert played.velocity[played.pitch == 67].mean() - played.velocity[played.pitch != 67].mean() > 12
    assert (played.pedal == 3).all()
    loud = chords()
    loud.velocity[:] = 127
    assert as_played(loud).velocity.max() == 127


def test_a_score_is_embedded_as_played_wherever_it_comes_from(tiny_model, tiny_processor, tmp_path):
    pytest.importorskip("verovio")
    from .test_score_pairs import printed, white_keys

    path = tmp_path / "one.musicxml"
    path.write_text(printed(white_keys(7)))
    notes = read_midi(path)
    assert type(notes) is PrintedNotes and type(notes.crop(1.0, 9.0)) is PrintedNotes
    assert set(np.round(np.diff(notes.onset) % 0.3, 3).tolist()) <= {0.0, 0.3}, "printed notes stay on their grid"
    expected = embed_midi(tiny_model, tiny_processor, [as_played(notes)])
    for source in (path, path.read_bytes(), [notes]):
        np.testing.assert_allclose(embed_score(tiny_model, tiny_processor, source), expected, atol=1e-6)
    plain = embed_midi(tiny_model, tiny_processor, [PianoNotes(**vars(notes))])
    assert np.abs(plain - expected).max() > 1e-3
    rows, _ = tiny_processor.midi_processor.windows(chords())
    assert len(np.unique(np.concatenate(rows)[1:, 1])) > 4
