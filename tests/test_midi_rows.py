"""Note rows of the default vocabulary: golden values, invariances, the round trip, windows."""

import numpy as np
import pytest
import symusic

from modeling_pianobind import PianoBindMidiProcessor
from modeling_pianobind.midi_pianobind import bin_seconds, time_bins
from modeling_pianobind.notes_pianobind import PianoNotes, read_midi, window_starts

PITCH, GAP, DURATION, VELOCITY, PEDAL = range(5)


@pytest.fixture
def rows_of():
    return PianoBindMidiProcessor().rows


def make_notes(onset, pitch, duration=0.5, velocity=64, pedal=0.0) -> PianoNotes:
    count = len(onset)
    return PianoNotes(
        np.array(onset, np.float64),
        np.full(count, duration, np.float32),
        np.array(pitch, np.int64),
        np.full(count, velocity, np.int64),
        np.full(count, pedal, np.float32),
    )


def two_bars(tempo=120.0, transpose=0, start=0) -> bytes:
    """C4 and E4 together, G4 a beat later, C5 on the next bar, with the pedal down over the first bar."""
    score = symusic.Score(480)
    score.tempos.append(symusic.Tempo(0, qpm=tempo))
    track = symusic.Track(program=0)
    for onset, length, pitch, velocity in (
        (0, 480, 60, 40),
        (0, 480, 64, 80),
        (480, 240, 67, 100),
        (1920, 960, 72, 127),
    ):
        track.notes.append(symusic.Note(start + onset, length, pitch + transpose, velocity))
    for tick, value in ((start, 127), (start + 1920, 0)):
        track.controls.append(symusic.ControlChange(tick, 64, value))
    score.tracks.append(track)
    return score.dumps_midi()


def test_a_hand_written_piece_gives_the_rows_worked_out_by_hand(rows_of):
    rows = rows_of(read_midi(two_bars()))
    # 0.01 to 10 s in 127 bins of equal ratio: gaps of 0.5 and 1.5 s are 1 + 126 * log(50) / log(1000) = 72.4, 92.4
    assert rows[:, PITCH].tolist() == [39, 43, 46, 51]
    assert rows[:, GAP].tolist() == [0, 0, 72, 92]
    # 0.02 to 10 s in 63 bins: 0.5 s is 1 + 62 * log(25) / log(500) = 33.1; 0.25 s and 1 s likewise
    assert rows[:, DURATION].tolist() == [33, 33, 26, 40]
    assert rows[:, VELOCITY].tolist() == [10, 20, 25, 31]
    # the pedal is up at 2 s: the first two notes ring on for 1.5 s after their release, the third for 1.25 s
    assert rows[:, PEDAL].tolist() == [20, 20, 19, 0]


def test_two_semitones_up_move_only_the_pitch(rows_of):
    rows, higher = rows_of(read_midi(two_bars())), rows_of(read_midi(two_bars(transpose=2)))
    assert (higher[:, PITCH] - rows[:, PITCH]).tolist() == [2, 2, 2, 2]
    assert np.array_equal(higher[:, 1:], rows[:, 1:])


def test_starting_later_changes_no_row(rows_of):
    assert np.array_equal(rows_of(read_midi(two_bars(start=960))), rows_of(read_midi(two_bars())))


def test_half_the_tempo_doubles_the_times(rows_of):
    fast, slow = read_midi(two_bars(120)), read_midi(two_bars(60))
    assert np.allclose(slow.onset, 2 * fast.onset)
    assert np.allclose(slow.duration, 2 * fast.duration)
    assert np.allclose(slow.pedal, 2 * fast.pedal)


def test_the_lowest_and_the_highest_key_survive():
    processor = PianoBindMidiProcessor()
    rows = processor.rows(make_notes([0.0, 1.0], [21, 108]))
    assert rows[:, PITCH].tolist() == [0, 87]
    assert processor.notes(rows).pitch.tolist() == [21, 108]


def test_rows_read_back_as_notes_within_one_bin_and_write_the_same_rows():
    processor, random = PianoBindMidiProcessor(), np.random.default_rng(0)
    notes = make_notes(np.cumsum(random.uniform(0.02, 2, 200)), random.integers(21, 109, 200), 0.7, 99, 1.3)
    rows = processor.rows(notes)
    back = processor.notes(rows)
    assert np.array_equal(processor.rows(back), rows)
    gaps, gaps_back = np.diff(notes.onset), np.diff(back.onset)
    assert np.abs(np.log(gaps_back / gaps)).max() <= np.log(1000) / 126 / 2 + 1e-9


def test_every_bin_of_time_comes_back_as_itself():
    assert time_bins(bin_seconds(range(64), 64, (0.02, 10.0)), 64, (0.02, 10.0)).tolist() == list(range(64))


def test_a_tempo_change_is_followed_to_the_millisecond_after_hours():
    score = symusic.Score(480)
    for tick, tempo in ((0, 120.0), (960, 60.0), (1920, 240.0)):
        score.tempos.append(symusic.Tempo(tick, qpm=tempo))
    track = symusic.Track(program=0)
    for tick in (0, 960, 1920, 1920 + 480 * 4 * 7200):
        track.notes.append(symusic.Note(tick, 480, 60, 64))
    score.tracks.append(track)
    onset = read_midi(score.dumps_midi()).onset
    assert onset == pytest.approx([0, 1, 3, 3 + 7200], abs=1e-3)


@pytest.mark.parametrize(
    ("seconds", "starts"), [(3, [0]), (20, [0]), (20.1, [0, 10]), (30, [0, 10]), (41, [0, 10, 20, 30])]
)
def test_a_window_begins_each_hop_until_one_reaches_the_end(seconds, starts):
    assert window_starts(seconds, 20, 10).tolist() == starts


def test_windows_hold_the_notes_that_begin_in_them_and_silence_gives_none():
    processor = PianoBindMidiProcessor()
    notes = make_notes([0.0, 5.0, 15.0, 55.0], [60, 62, 64, 65])
    windows, spans = processor.windows(notes)
    assert [window[:, PITCH].tolist() for window in windows] == [[39, 41, 43], [43], [44]]
    assert spans.tolist() == [[0, 20], [10, 30], [40, pytest.approx(55.5)]]
    assert all(window[0, GAP] == 0 for window in windows)


def test_a_window_of_too_many_notes_is_split_into_equal_parts_that_lose_none():
    processor = PianoBindMidiProcessor(max_notes=100)
    notes = make_notes(np.linspace(0, 19, 250), np.full(250, 60))
    windows, spans = processor.windows(notes)
    assert [len(window) for window in windows] == [83, 83, 84]
    assert spans[0][0] == 0
    assert np.all(spans[1:, 0] == spans[:-1, 1])


def test_a_batch_is_padded_with_pad_rows_and_numbers_windows_in_its_mask():
    processor = PianoBindMidiProcessor()
    batch = processor([make_notes([0.0], [60]), make_notes([0.0, 25.0], [60, 62])], return_tensors="pt")
    assert batch["midi_attention_mask"].tolist() == [[1, 0], [1, 2]]
    assert batch["midi_ids"][0, 1].tolist() == [88, 128, 64, 32, 32]


def test_settings_that_would_skip_notes_are_refused():
    with pytest.raises(ValueError, match="hop_seconds"):
        PianoBindMidiProcessor(window_seconds=10, hop_seconds=11)
