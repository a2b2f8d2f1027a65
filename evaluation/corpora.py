"""Corpora to evaluate on: a packed one (training.data.corpus), or a dataset folder of training.build_dataset."""

import hashlib
import json
from pathlib import Path

from modeling_pianobind.notes_pianobind import read_midi
from training.data.corpus import NOTE_ARRAYS, PackedCorpus
from training.data.dataset_corpus import DatasetCorpus, is_dataset_folder


def load_corpus(folder: str | Path) -> PackedCorpus:
    """Reads either kind of folder.

    Rows of a dataset keep `captions`, and `audio` as the bytes of a file if it is a real recording.

    Raises:
        FileNotFoundError: the folder is neither.
        ValueError: a column is missing, or no row has MIDI.
    """
    if PackedCorpus.is_folder(folder):
        return PackedCorpus.load(folder)
    if not is_dataset_folder(folder):
        raise FileNotFoundError(
            f"{folder}: neither a packed corpus (rows.jsonl.gz) nor a dataset (data/*.parquet); make one with "
            "`python -m training.data.corpus` or `python -m training.build_dataset`."
        )
    dataset, rows, notes = DatasetCorpus.open(str(folder)), [], []
    for piece, row in enumerate(dataset.rows):
        if content := dataset.midi_file(piece):
            recording = dataset.recording(piece) if row.get("audio_origin") == "real" else None
            notes.append(read_midi(content))
            rows.append({"velocities": 0} | row | ({"audio": recording} if recording else {}))
    if not rows:
        raise ValueError(f"{folder}: no row has MIDI; every protocol here needs it. Build the dataset from MIDI.")
    return PackedCorpus.pack(rows, notes)


def corpus_sha256(corpus: PackedCorpus) -> str:
    """Checksum of a corpus's rows and notes."""
    digest = hashlib.sha256()
    for row in corpus.rows:
        row = {key: value for key, value in row.items() if not isinstance(value, bytes)}
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
    for array in NOTE_ARRAYS:
        digest.update(getattr(corpus, array).tobytes())
    return digest.hexdigest()
