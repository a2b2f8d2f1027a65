"""The best window of each hit as a file of its own: MIDI of MIDI and scores, FLAC of a recording."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import symusic

from ..feature_extraction_pianobind import audio_blocks
from ..index.embedding_index import Hit
from ..inputs_pianobind import explain, gives_notes
from ..notes_pianobind import PianoNotes, read_midi

SAMPLING_RATE = 44_100  # Hz
TICKS_A_SECOND = 960  # 480 a quarter note at 120 beats a minute


def write_excerpts(hits: Sequence[Hit], folder: str | os.PathLike) -> tuple[list[Path], list[str]]:
    """Writes an excerpt of each hit, named by its rank and file.

    Returns:
        The files, and a line for each hit that could not be read.
    Raises:
        OSError: the folder cannot be written to.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written, failures = [], []
    for rank, hit in enumerate(hits, 1):
        stem = re.sub(r"[^\w .-]", "_", os.path.splitext(os.path.basename(hit.path))[0])[:100]
        bounds = (0.0, np.inf) if hit.start_seconds is None else (hit.start_seconds, hit.end_seconds)
        try:
            if gives_notes(hit.path):
                content, extension = midi_of(read_midi(hit.path).crop(*bounds)), ".mid"
            else:
                content, extension = _sound(hit.path, *bounds), ".flac"
        except (OSError, ValueError) as error:
            failures.append(explain(hit.path, error))
            continue
        file = folder / f"{rank:02} {stem}{extension}"
        if extension == ".mid":
            file.write_bytes(content)
        else:
            soundfile.write(file, content, SAMPLING_RATE, subtype="PCM_16")
        written.append(file)
    return written, failures


def midi_of(notes: PianoNotes) -> bytes:
    """Notes as a MIDI file, with sustain pedal where notes ring on."""
    score = symusic.Score(480)
    score.tempos.append(symusic.Tempo(0, qpm=120))
    track = symusic.Track(program=0)
    release = notes.onset + notes.duration
    for onset, end, pitch, velocity in zip(notes.onset, release, notes.pitch, notes.velocity, strict=True):
        start = round(float(onset) * TICKS_A_SECOND)
        length = max(1, round(float(end) * TICKS_A_SECOND) - start)
        track.notes.append(symusic.Note(start, length, int(pitch), int(velocity)))
    for down, up in _joined(release[notes.pedal > 0], (release + notes.pedal)[notes.pedal > 0]):
        for tick, value in ((down, 127), (up, 0)):
            track.controls.append(symusic.ControlChange(round(float(tick) * TICKS_A_SECOND), 64, value))
    score.tracks.append(track)
    return bytes(score.dumps_midi())


def _joined(starts: np.ndarray, ends: np.ndarray) -> list[tuple[float, float]]:
    """Merges overlapping stretches of time."""
    joined = []
    for start, end in sorted(zip(starts.tolist(), ends.tolist(), strict=True)):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _sound(path: str, start_seconds: float, end_seconds: float) -> np.ndarray:
    """`(samples,)` float32 of a stretch of a recording, in mono as the model reads it."""
    first, kept, at = round(start_seconds * SAMPLING_RATE), [], 0
    last = np.inf if np.isinf(end_seconds) else round(end_seconds * SAMPLING_RATE)
    for block in audio_blocks(path, None, SAMPLING_RATE):
        kept.append(block[max(0, first - at) : int(max(0, min(len(block), last - at)))])
        at += len(block)
        if at >= last:
            break
    return np.clip(np.concatenate(kept), -1, 1)


__all__ = ["midi_of", "write_excerpts"]
