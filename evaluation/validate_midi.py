"""MIDI protocols on a packed corpus: `python -m evaluation.validate_midi CHECKPOINT CORPUS [--output FILE]`."""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch

from modeling_pianobind import PianoBindModel, PianoBindProcessor
from modeling_pianobind.notes_pianobind import PianoNotes
from training.captions import write_caption
from training.corpus import PackedCorpus
from training.dataset import FactVocabulary
from training.facts import creator_name, label_facts

from .embedding import embed_captions, embed_notes
from .piano_retrieval.ranking import retrieval_metrics
from .protocols import linear_probe, zero_shot_emotion, zero_shot_tagging

JITTER_SECONDS = 0.015
LABEL_SEED = 0


def without_cues(notes: PianoNotes, seed: int) -> PianoNotes:
    """The honest twin: flat velocity, no pedal, onsets jittered by 15 ms."""
    onset = np.maximum(notes.onset + np.random.default_rng(seed).normal(0, JITTER_SECONDS, len(notes)), 0)
    order = np.lexsort((notes.pitch, onset))
    flat = PianoNotes(onset, notes.duration, notes.pitch, np.full_like(notes.velocity, 64), notes.pedal * 0)
    return flat.take(order)


def full_caption(row: dict, vocabulary: FactVocabulary, seed: int) -> str | None:
    """A caption of everything that a row's human or provenance labels say, or None where they say nothing."""
    if row["tier"] == "weak":
        return None
    facts = sorted(label_facts(row, vocabulary.creators)[0])
    words = random.Random(seed)
    return write_caption(facts[:8], vocabulary.creators, words) if facts else None


def validate(model, processor, corpus: PackedCorpus, most_windows: int | None = None) -> dict:
    """All MIDI protocols on the corpus's `valid` split."""

    def embed_text(texts):
        return embed_captions(model, processor, texts)

    def embed(positions, change=None):
        pieces = [corpus.notes(position) for position in positions]
        if change:
            pieces = [change(notes, position) for notes, position in zip(pieces, positions, strict=True)]
        return embed_notes(model, processor, pieces, most_windows)

    valid = corpus.select(lambda row: row["split"] == "valid")
    rows = [corpus.rows[position] for position in valid]
    embeddings, twins = embed(valid), embed(valid, without_cues)
    results = {
        "tagging": zero_shot_tagging(embeddings, rows, embed_text),
        "tagging_without_cues": zero_shot_tagging(twins, rows, embed_text),
    }
    for source, label in (("emopia", lambda row: row["emotion_quadrant"]), ("pianist8", creator_name)):
        held = corpus.select(lambda row, source=source: row["source"] == source and row["split"] == "train")
        test = [place for place, row in enumerate(rows) if row["source"] == source]
        train_embeddings = embed(held)

        held_rows = [corpus.rows[position] for position in held]
        for name, keep in (("published", "valid"), ("all", None)):
            chosen = [place for place in test if keep is None or rows[place].get("official_split") == keep]
            results[f"{source}_probe_{name}"] = linear_probe(
                train_embeddings,
                [label(row) for row in held_rows],
                embeddings[chosen],
                [label(rows[place]) for place in chosen],
                [row["song"] for row in held_rows],
            )
            if source == "emopia":
                results[f"emopia_zero_shot_{name}"] = zero_shot_emotion(
                    embeddings[chosen], [rows[place] for place in chosen], embed_text
                )
    vocabulary = FactVocabulary([row for row in corpus.rows if row["split"] == "train"])
    captions = [full_caption(row, vocabulary, seed) for seed, row in enumerate(rows)]
    described = np.array([place for place, caption in enumerate(captions) if caption])
    recalls = []
    for seed in range(5):
        chosen = np.random.default_rng(seed).permutation(described)[:200]
        scores = embed_text([captions[place] for place in chosen]) @ embeddings[chosen].T
        recalls.append(retrieval_metrics(scores, range(len(chosen)), bootstrap_samples=0))
    results["text_to_piece_200"] = {
        key: float(np.mean([recall[key] for recall in recalls])) for key in ("recall@1", "recall@10", "median_rank")
    }
    return results


def summary(results: dict) -> str:
    """The main figures on one line."""

    def accuracies(name):
        return "/".join(f"{results[f'{name}_{part}']['accuracy']:.3f}" for part in ("published", "all"))

    return (
        f"tags {results['tagging']['macro_roc_auc']:.3f} | "
        f"tags without cues {results['tagging_without_cues']['macro_roc_auc']:.3f} | "
        f"emopia probe {accuracies('emopia_probe')} zero-shot {accuracies('emopia_zero_shot')} | "
        f"pianist8 {accuracies('pianist8_probe')} | "
        f"text R@10 {results['text_to_piece_200']['recall@10']:.3f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--most-windows", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    model = PianoBindModel.from_pretrained(arguments.checkpoint, dtype=torch.float32).to(arguments.device).eval()
    processor = PianoBindProcessor.from_pretrained(arguments.checkpoint)
    results = validate(model, processor, PackedCorpus.load(arguments.corpus), arguments.most_windows)
    print(summary(results))
    for protocol in ("tagging", "tagging_without_cues"):
        areas = {tag: round(area, 3) for tag, area in results[protocol]["per_tag_roc_auc"].items()}
        print(f"{protocol}: {areas}")
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
