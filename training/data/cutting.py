"""Stretches of a recording and of a MIDI file, cut at the same seconds; and the encodings that a dataset stores."""

import io
from pathlib import Path

import numpy as np
import soundfile
import symusic

from modeling_pianobind.notes_pianobind import PianoNotes
from modeling_pianobind.standard_midi_pianobind import tick_clock

SUSTAIN = 64  # controller number of the sustain pedal; 64 and above is down
MIN_TICKS_PER_QUARTER = (
    480  # a quarter note; coarser files are refined first, so that a cut is exact to about a millisecond
)


def cut_midi(score: symusic.Score, start_seconds: float, end_seconds: float) -> bytes:
    """A section of a MIDI file as a MIDI file, with its tempo map and time signatures.

    Notes that begin in `[start_seconds, end_seconds)` are kept, none rings beyond the end; a pedal that is down at the
    start is pressed there. Times stay exact to half a tick (at 480 ticks and 120 beats a minute, half a millisecond).

    Args:
        score (`symusic.Score`): in ticks, times counted from the start of the piece.
    Returns:
        `bytes`: a Standard MIDI File; its second 0 is `start_seconds`.
    """
    finer = -(-MIN_TICKS_PER_QUARTER // score.ticks_per_quarter)
    if finer > 1:
        score = score.resample(score.ticks_per_quarter * finer, min_dur=1)
    first, last = (_tick_at(score, seconds) for seconds in (start_seconds, end_seconds))
    part = symusic.Score(score.ticks_per_quarter)
    for events, new in ((score.tempos, part.tempos), (score.time_signatures, part.time_signatures)):
        events = sorted(events, key=lambda event: event.time)
        before = [event for event in events if event.time <= first]
        for event in before[-1:] + [event for event in events if first < event.time < last]:
            moved = event.copy()
            moved.time = max(event.time - first, 0)
            new.append(moved)
    for track in score.tracks:
        kept = symusic.Track(name=track.name, program=track.program, is_drum=track.is_drum)
        for note in track.notes:
            if first <= note.time < last:
                length = min(note.duration, last - note.time)
                kept.notes.append(symusic.Note(note.time - first, length, note.pitch, note.velocity))
        # symusic reads pedals of controller events, but writes the controller events only
        for pedal in track.pedals:
            down, up = max(pedal.time, first), min(pedal.time + pedal.duration, last)
            if down < up:
                kept.controls.append(symusic.ControlChange(down - first, SUSTAIN, 127))
                kept.controls.append(symusic.ControlChange(up - first, SUSTAIN, 0))
        if len(kept.notes) or len(kept.controls):
            part.tracks.append(kept)
    return part.dumps_midi()


def _tick_at(score: symusic.Score, seconds: float) -> int:
    """The tick that is nearest to a time."""
    clock = tick_clock(score)
    low, high = 0, 1
    while clock(high) < seconds:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if clock(middle) < seconds else (low, middle)
    return low - 1 if low and seconds - clock(low - 1) < clock(low) - seconds else low


def read_span(path: Path, start_seconds: float, end_seconds: float) -> tuple[np.ndarray, int]:
    """A stretch of a recording: float32 of shape `(samples, channels)`, and its rate in Hz."""
    with soundfile.SoundFile(path) as sound:
        first, last = round(start_seconds * sound.samplerate), round(end_seconds * sound.samplerate)
        sound.seek(min(first, sound.frames))
        return sound.read(last - first, dtype="float32", always_2d=True), sound.samplerate


def encode_flac(samples: np.ndarray, sampling_rate: int) -> bytes:
    """FLAC of 16 bits; samples beyond full scale are clipped, the bytes are the same in every run."""
    stream = io.BytesIO()
    soundfile.write(stream, np.clip(samples, -1.0, 1.0), sampling_rate, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def excerpt(notes: PianoNotes, seconds: float) -> PianoNotes:
    """`seconds` of a piece around its middle note."""
    start = max(0.0, float(notes.onset[len(notes) // 2]) - seconds / 2)
    return notes.crop(start, start + seconds)


__all__ = ["cut_midi", "encode_flac", "excerpt", "read_span"]
