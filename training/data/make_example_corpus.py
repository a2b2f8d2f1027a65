"""Sixty short piano pieces with recordings, MIDI and a spreadsheet.

    python -m training.data.make_example_corpus FOLDER

An example corpus for the steps from a folder to a published adapter. The pieces (six kinds of ten) are generated and
played with decaying sine tones, so that no rights apply. The descriptions do not use the package's vocabulary.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import symusic

PIECES_OF_A_KIND = 10
BARS = 8
SAMPLING_RATE = 16_000
TONE_SECONDS = 2.5
TICKS = 480  # a quarter note
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
PROGRESSIONS = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (0, 1, 4, 0))  # degrees of the scale, from 0


@dataclass
class Kind:
    """A way of playing: patterns of one bar of eight eighths, and the words for it.

    `left` and `right` are lists of (eighth, length in eighths, places in the chord); 0 to 2 are root, third and fifth,
    7 and more the same an octave higher.
    """

    names: tuple[str, ...]
    left: list[tuple[float, float, tuple[int, ...]]]
    right: list[tuple[float, float, tuple[int, ...]]]
    left_octave: int
    right_octave: int


KINDS = [
    Kind(
        ("a hymn for the village church", "a chorale, all voices together", "slow church chords"),
        [(0, 4, (0, 2)), (4, 4, (0, 2))], [(0, 4, (1, 7)), (4, 4, (2, 8))], 3, 4,
    ),
    Kind(
        ("a music box on the window sill", "a tinkling toy clock", "a nursery tune, high and small"),
        [(0, 8, (0,))], [(0, 1, (0,)), (1, 1, (1,)), (2, 1, (2,)), (4, 2, (7,)), (6, 1, (2,))], 5, 6,
    ),
    Kind(
        ("a saloon with the left hand jumping", "an oom-pah for a silent film", "stride for a crowded bar"),
        [(0, 1, (0,)), (2, 1, (7, 8, 9)), (4, 1, (2,)), (6, 1, (7, 8, 9))],
        [(0.5, 1, (7,)), (1.5, 0.5, (8,)), (3, 1, (9,)), (4.5, 1, (7,)), (6.5, 1, (8,))], 2, 4,
    ),
    Kind(
        ("a little sonata from the salon", "a polite drawing-room piece", "powdered wigs and broken chords"),
        [(eighth, 1, ((0, 2, 1, 2)[eighth % 4],)) for eighth in range(8)],
        [(0, 3, (7,)), (3, 1, (8,)), (4, 2, (9,)), (6, 2, (8,))], 4, 5,
    ),
    Kind(
        ("waves against the harbour wall", "water running over stones", "a harp-like wash of sound"),
        [(0, 8, (0, 2))], [(half / 2, 0.5, ((0, 1, 2, 7, 8, 9, 8, 7)[half % 8],)) for half in range(16)], 3, 4,
    ),
    Kind(
        ("an iron machine at work", "a hammering factory", "pounding octaves from the engine room"),
        [(eighth, 0.5, (0, 7)) for eighth in range(8)], [(0, 0.5, (7, 9)), (3, 0.5, (7, 9)), (6, 0.5, (8, 14))], 1, 3,
    ),
]  # fmt: skip
MODES = {MAJOR: ("sunny", "in good spirits", "cheerful"), MINOR: ("clouded", "with a heavy heart", "gloomy")}
PACES = {66: ("taking its time", "unhurried"), 100: ("at walking pace", "moderate"), 150: ("in a hurry", "breathless")}


def compose(kind: Kind, random: np.random.Generator) -> tuple[list[tuple[float, float, int, int]], str]:
    """A piece: notes as (onset, duration, pitch, velocity) with times in seconds, and its description."""
    scale, pace = list(MODES)[random.integers(2)], list(PACES)[random.integers(3)]
    eighth_seconds = 30 / (pace * random.uniform(0.93, 1.07))
    key, progression = int(random.integers(12)), PROGRESSIONS[random.integers(len(PROGRESSIONS))]
    notes = []
    for bar in range(BARS):
        root = progression[bar % 4]
        for pattern, octave, level in ((kind.left, kind.left_octave, 62), (kind.right, kind.right_octave, 78)):
            for start, length, places in pattern:
                for place in places:
                    degree = root + 2 * (place % 7)
                    pitch = key + scale[degree % 7] + 12 * (octave + 1 + degree // 7 + place // 7)
                    onset = (8 * bar + start) * eighth_seconds + max(random.normal(0, 0.008), -0.02) + 0.05
                    velocity = int(np.clip(level + random.normal(0, 6), 20, 120))
                    notes.append((onset, 0.9 * length * eighth_seconds, min(pitch, 108), velocity))
    words = [random.choice(choices) for choices in (kind.names, MODES[scale], PACES[pace])]
    return sorted(notes), f"{words[0]}, {words[1]}, {words[2]}"


def play(notes: list[tuple[float, float, int, int]]) -> np.ndarray:
    """Notes as audio `(samples,)`: decaying harmonics, the higher the shorter."""
    end = max(onset + duration for onset, duration, _, _ in notes) + TONE_SECONDS
    audio = np.zeros(int(end * SAMPLING_RATE), np.float32)
    time = np.arange(int(TONE_SECONDS * SAMPLING_RATE)) / SAMPLING_RATE
    tones = {}
    for onset, duration, pitch, velocity in notes:
        if pitch not in tones:
            hertz = 440 * 2 ** ((pitch - 69) / 12)
            harmonics = [number for number in range(1, 9) if number * hertz < SAMPLING_RATE / 2]
            tones[pitch] = sum(
                np.sin(2 * np.pi * number * hertz * time) * np.exp(-(1 + number / 2) * time * (hertz / 260) ** 0.5)
                / number**1.3 for number in harmonics
            ).astype(np.float32)  # fmt: skip
        first, held = int(onset * SAMPLING_RATE), int(duration * SAMPLING_RATE)
        released = np.exp(-np.maximum(np.arange(len(time)) - held, 0) / (0.08 * SAMPLING_RATE)).astype(np.float32)
        audio[first : first + len(time)] += (velocity / 127) ** 1.5 * tones[pitch] * released
    return 0.9 * audio / np.abs(audio).max()


def midi_of(notes: list[tuple[float, float, int, int]]) -> bytes:
    """Notes as a MIDI file at 120 beats a minute."""
    score, track = symusic.Score(TICKS), symusic.Track()
    score.tempos.append(symusic.Tempo(0, qpm=120))
    for onset, duration, pitch, velocity in notes:
        track.notes.append(symusic.Note(round(2 * TICKS * onset), round(2 * TICKS * duration), pitch, velocity))
    score.tracks.append(track)
    return score.dumps_midi()


def write_corpus(folder: Path, pieces_of_a_kind: int = PIECES_OF_A_KIND, seed: int = 0) -> None:
    """Writes `NAME.mid` and `NAME.flac` of every piece, and `metadata.csv`."""
    folder.mkdir(parents=True)
    rows = []
    for number, kind in enumerate(KINDS):
        for piece in range(pieces_of_a_kind):
            notes, caption = compose(kind, np.random.default_rng((seed, number, piece)))
            name = f"piece-{number}{piece}"
            (folder / f"{name}.mid").write_bytes(midi_of(notes))
            soundfile.write(folder / f"{name}.flac", play(notes), SAMPLING_RATE)
            rows.append({"id": name, "caption": caption, "song": name, "licence": "CC0-1.0"})
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.data.make_example_corpus", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="folder to write; must not exist")
    arguments = parser.parse_args()
    write_corpus(arguments.folder)
    print(f"{len(KINDS) * PIECES_OF_A_KIND} pieces -> {arguments.folder}")


if __name__ == "__main__":
    main()
