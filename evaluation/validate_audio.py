"""Audio protocols: `python -m evaluation.validate_audio CHECKPOINT CORPUS --soundfont FILE [--recordings FOLDER]`.

The corpus's `valid` pieces are rendered by an instrument, and put in a room, that training has not heard.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from modeling_pianobind import PianoBindModel, PianoBindProcessor, embed_audio
from modeling_pianobind.notes_pianobind import PianoNotes
from training.corpus import PackedCorpus
from training.rendering import SoundfontInstrument

from .embedding import embed_captions, embed_notes
from .protocols import cross_modal, zero_shot_tagging
from .validate_midi import LABEL_SEED

RENDER_RATE = 44_100
ROOM_SECONDS = 0.9  # until its reverberation is 60 dB down
ROOM_SHARE_DB = -9.0
NOISE_DB = -45.0


def excerpt(notes: PianoNotes, seconds: float) -> PianoNotes:
    """`seconds` of a piece around its middle note."""
    start = max(0.0, float(notes.onset[len(notes) // 2]) - seconds / 2)
    return notes.crop(start, start + seconds)


def in_a_room(audio: np.ndarray, sampling_rate: int, seed: int) -> np.ndarray:
    """Adds a room's reverberation and a microphone's noise."""
    random = np.random.default_rng(seed)
    time = np.arange(int(ROOM_SECONDS * sampling_rate)) / sampling_rate
    tail = random.normal(size=len(time)) * np.exp(-6.9 * time / ROOM_SECONDS)
    tail *= 10 ** (ROOM_SHARE_DB / 20) / np.linalg.norm(tail)
    size = len(audio) + len(tail)
    wet = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(tail, size), size)[: len(audio)]
    mixed = audio + wet
    level = np.sqrt(np.mean(mixed**2))
    mixed += random.normal(size=len(mixed)) * level * 10 ** (NOISE_DB / 20)
    return (mixed / np.abs(mixed).max() * 0.9).astype(np.float32)


def validate(model, processor, corpus: PackedCorpus, instrument, pieces: int, seconds: float) -> dict:
    """Tagging from rendered audio, and audio against its own MIDI."""
    rate = processor.feature_extractor.sampling_rate
    valid = corpus.select(lambda row: row["split"] == "valid")
    labelled = [
        place for place in valid if {"ragtime", "jazz", "classical"} & set(corpus.rows[place].get("genre", ()))
    ]
    others = np.random.default_rng(LABEL_SEED).permutation(sorted(set(valid) - set(labelled)))
    chosen = sorted([*labelled, *others[: max(0, pieces - len(labelled))].tolist()])
    notes = [excerpt(corpus.notes(place), seconds) for place in chosen]
    audio = np.concatenate(
        [
            embed_audio(model, processor, [in_a_room(instrument.render(one, rate), rate, seed)], sampling_rate=rate)
            for seed, one in enumerate(tqdm(notes, desc="rendered"))
        ]
    )
    midi = embed_notes(model, processor, notes)
    rows = [corpus.rows[place] for place in chosen]
    return {
        "pieces": len(chosen),
        "seconds": seconds,
        "tagging_audio": zero_shot_tagging(audio, rows, lambda texts: embed_captions(model, processor, texts)),
        **{f"audio_to_midi_{size}": cross_modal(audio, midi, size) for size in (200, 500) if size <= len(chosen)},
        "paired_cosine": float((audio * midi).sum(1).mean()),
    }


def validate_recordings(model, processor, corpus: PackedCorpus, folder: Path) -> dict:
    """Real recordings against their transcriptions among all valid pieces."""
    recorded = corpus.select(lambda row: bool(row.get("audio")) and row["split"] == "valid")
    valid = corpus.select(lambda row: row["split"] == "valid")
    midi = embed_notes(model, processor, [corpus.notes(place) for place in valid], most_windows=12)
    audio = embed_audio(model, processor, [folder / corpus.rows[place]["audio"] for place in recorded])
    scores = audio @ midi.T
    ranks = [int((row > row[valid.index(place)]).sum()) + 1 for row, place in zip(scores, recorded, strict=True)]
    return {
        "recordings": len(recorded),
        "candidates": len(valid),
        "ranks": ranks,
        "recall@1": float(np.mean([rank == 1 for rank in ranks])),
        "recall@10": float(np.mean([rank <= 10 for rank in ranks])),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--soundfont", required=True, help="an instrument that training has not heard")
    parser.add_argument("--program", type=int, default=0)
    parser.add_argument("--pieces", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each piece, from its middle")
    parser.add_argument("--recordings", type=Path, help="folder below which the corpus's recordings lie")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    model = PianoBindModel.from_pretrained(arguments.checkpoint, dtype=torch.float32).eval()
    processor = PianoBindProcessor.from_pretrained(arguments.checkpoint)
    corpus = PackedCorpus.load(arguments.corpus)
    instrument = SoundfontInstrument(arguments.soundfont, arguments.program, RENDER_RATE)
    results = validate(model, processor, corpus, instrument, arguments.pieces, arguments.seconds)
    if arguments.recordings:
        results["recordings"] = validate_recordings(model, processor, corpus, arguments.recordings)
    for found in (results[name] for name in results if name.startswith("audio_to_midi")):
        print(f"audio to MIDI among {found['items']}: R@1 {found['recall@1']:.3f} R@10 {found['recall@10']:.3f}")
    print({tag: round(area, 3) for tag, area in results["tagging_audio"]["per_tag_roc_auc"].items()})
    print(f"macro ROC-AUC {results['tagging_audio']['macro_roc_auc']:.3f}, cosine {results['paired_cosine']:.3f}")
    print(results.get("recordings", ""))
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
