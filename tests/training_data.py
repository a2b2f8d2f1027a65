"""Small data sets in the schema of `training.build_dataset`, and runs on them, for the tests of training."""

import numpy as np
import symusic

from training.data.arguments import StageArguments, TrainingArguments
from training.data.augmentation import NoteAugmentation
from training.data.cutting import encode_flac
from training.data.dataset_files import Report, write_shards
from training.data.dataset_schema import features_of

RATE = 16_000
TICKS_PER_SECOND = 960  # at 480 ticks a quarter note and 120 beats a minute
NO_AUGMENTATION = NoteAugmentation(
    transpose_semitones=0,
    tempo_ratio=1.0,
    **{name: 0.0 for name in vars(NoteAugmentation()) if name.endswith("_probability")},
)


def midi_bytes(onsets, pitches) -> bytes:
    score = symusic.Score(480)
    score.tempos.append(symusic.Tempo(0, qpm=120))
    track = symusic.Track()
    for place, (onset, pitch) in enumerate(zip(onsets, pitches, strict=True)):
        track.notes.append(symusic.Note(round(onset * TICKS_PER_SECOND), 200, int(pitch), 50 + place % 40))
    score.tracks.append(track)
    return score.dumps_midi()


def random_notes(seed, seconds=8.0, gap=0.25):
    """Onsets and pitches that `seed` decides."""
    onsets = np.arange(0.1, seconds - 0.1, gap)
    return onsets, 40 + 3 * seed + np.random.default_rng(seed).integers(0, 12, len(onsets))


def click_recording(onsets, seconds) -> dict:
    """A recording that clicks at each onset, as a data set holds it."""
    samples = np.zeros((round(seconds * RATE), 1), np.float32)
    samples[np.round(np.asarray(onsets) * RATE).astype(int)] = 0.9
    return {"bytes": encode_flac(samples, RATE), "path": "clicks.flac"}


def dataset_row(number, split="train", seconds=8.0, audio=False, midi=True, **columns) -> dict:
    """A row with MIDI, audio or both; every row has another song."""
    onsets, pitches = random_notes(number, seconds)
    row = {
        "piece_id": f"piece {number}", "song": f"{number:012x}", "split": split, "source": "mine", "licence": "CC0",
        "tier": "human", "seconds": seconds, "start_seconds": 0.0, "end_seconds": seconds, "captions": [],
        "caption_origins": [], "tags": [], "notes": len(onsets), "velocities": 40, "pedal": False, "audio": None,
        "midi": None, "audio_origin": None, "midi_origin": None,
    }  # fmt: skip
    if midi:
        row |= {"midi": midi_bytes(onsets, pitches), "midi_origin": "real"}
    if audio:
        row |= {"audio": click_recording(onsets, seconds), "audio_origin": "real"}
    row |= columns
    row["caption_origins"] = row["caption_origins"] or ["given"] * len(row["captions"])
    return row


def write_dataset(folder, rows):
    """Writes rows as `training.build_dataset` does; returns the folder as a string."""
    folder.mkdir(parents=True)
    write_shards(iter(rows), folder, features_of(set()), 100.0, Report())
    return str(folder)


def make_arguments(tmp_path, checkpoint, corpus, stage=None, **options) -> TrainingArguments:
    """A run of two small steps, with nothing random but the examples."""
    stage = {"steps": 2, "batch_size": 4, "warmup_steps": 1, "learning_rate": 0.01} | (stage or {})
    options = {"workers": 0, "dropout": 0.0, "audio_augmentation": 0.0, "log_steps": 1, "tracker": ""} | options
    return TrainingArguments(
        checkpoint=str(checkpoint),
        corpus=corpus,
        output=str(tmp_path / "run"),
        stages=[StageArguments(**stage)],
        **{"augmentation": NO_AUGMENTATION} | options,
    )


class Clicks:
    """An instrument that plays a pulse at each onset."""

    def render(self, notes, sampling_rate):
        audio = np.zeros(int((notes.onset[-1] + 30) * sampling_rate), np.float32)
        audio[(notes.onset * sampling_rate).astype(int)] = 1.0
        return audio
