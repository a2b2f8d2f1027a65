"""Corpora made on the spot, and the command that builds a data set of them, for the tests of both."""

import csv

import numpy as np
import pyarrow.parquet as pq
import soundfile
import symusic
import yaml

from modeling_pianobind.notes_pianobind import PianoNotes
from training import build_dataset

RATE = 16_000


def write_samples(folder) -> None:
    """A folder of samples that plays as a tiny piano: three pitches, one velocity layer."""
    folder.mkdir()
    for pitch in (36, 60, 84):
        tone = np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * np.arange(RATE // 2) / RATE)
        soundfile.write(folder / f"{pitch}-v0.ogg", (0.5 * tone * np.linspace(1, 0, len(tone))).astype("f4"), RATE)


def make_notes(seed, seconds=40.0, semitones=0, tempo=1.0, ornaments=False) -> PianoNotes:
    """A melody that `seed` alone decides, two notes a second, over chords that differ from version to version."""
    random = np.random.default_rng(seed)
    count = int(seconds * 2)
    melody = 72 + semitones + np.clip(np.cumsum(random.choice([-4, -3, -2, -1, 1, 2, 3, 5], count)) % 12, 0, 12)
    times = np.arange(count) / 2
    rows = [(time, 0.45, pitch, 90) for time, pitch in zip(times, melody, strict=True)]
    if ornaments:
        rows += [(time - 0.06, 0.05, pitch + 1, 60) for time, pitch in zip(times[3::7], melody[3::7], strict=True)]
    chords = np.random.default_rng((seed, 50 + semitones, ornaments))
    rows += [(time, 1.9, 45 + semitones + chords.integers(0, 9), 60) for time in times[::4] for _ in range(2)]
    onset, duration, pitch, velocity = (np.array(column, float) for column in zip(*sorted(rows), strict=True))
    pitch, velocity = pitch.astype(int), velocity.astype(int)
    return PianoNotes(onset / tempo, (duration / tempo).astype(np.float32), pitch, velocity, np.zeros(len(onset)))


def write_notes(path, notes, program=0, tempo=120.0, ticks=480):
    """Writes notes as a MIDI file with a constant tempo and a pedal over seconds 5 to 8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = ticks * tempo / 60
    score = symusic.Score(ticks)
    score.tempos.append(symusic.Tempo(0, qpm=tempo))
    track = symusic.Track(program=program)
    for onset, duration, pitch, velocity in zip(notes.onset, notes.duration, notes.pitch, notes.velocity, strict=True):
        length = max(round(duration * scale), 1)
        track.notes.append(symusic.Note(round(onset * scale), length, int(pitch), int(velocity)))
    track.controls.append(symusic.ControlChange(round(5 * scale), 64, 127))
    track.controls.append(symusic.ControlChange(round(8 * scale), 64, 0))
    score.tracks.append(track)
    path.write_bytes(score.dumps_midi())
    return path


def write_clicks(path, times, seconds, rate=RATE):
    """A recording that is silent but for a click at each of the given seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.zeros(round(seconds * rate), np.float32)
    samples[np.round(np.asarray(times) * rate).astype(int)] = 0.9
    soundfile.write(path, samples, rate)
    return path


def noise(seconds):
    """A recording that no test listens to."""
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


def write_table(path, rows):
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


def run(tmp_path, sources, **options):
    """Runs the command on sources; returns its exit status, its rows and its report."""
    output = tmp_path / "dataset"
    config = tmp_path / "config.yaml"
    tmp_path.mkdir(exist_ok=True)
    config.write_text(yaml.safe_dump({"sources": sources, "output": str(output), **options}))
    status = build_dataset.main([str(config)])
    rows = [row for path in sorted((output / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    refused = list(csv.DictReader((output / "refused.csv").open())) if (output / "refused.csv").exists() else []
    return status, rows, {row["piece_id"]: row for row in refused}
