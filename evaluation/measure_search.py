"""Quality of `pianobind search`: recall of names, fit of nonsense queries, effect of negations.

`python -m evaluation.measure_search --corpus FOLDER` prints the figures and writes them to results/search.json, in
about a minute of one core. Pieces are embedded by one window each, from their middle: names and negations do not
depend on more. A search by sound alone is compared with `EmbeddingIndex.search`, whose figures `evaluate_checkpoint`
measures.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from modeling_pianobind import default_checkpoint
from modeling_pianobind.index.embedding_index import EmbeddingIndex
from modeling_pianobind.index.finder import Finder
from modeling_pianobind.notes_pianobind import PianoNotes
from modeling_pianobind.service.checkpoint import Checkpoint
from modeling_pianobind.service.query import parse_query
from training.data.corpus import PackedCorpus

from .corpora import load_corpus
from .measurement import code_commit, save_results, subject

SECONDS = 20.0
RESULTS = Path(__file__).parent / "results" / "search.json"
NAME_QUERIES, NONSENSE_QUERIES, TOP_K = 50, 100, 5
# What a search has to reach: figure -> lowest, highest value.
TARGETS = {
    "names recall@5": (0.95, 1.0),
    "nonsense best fit, largest": (0.0, 0.6),
    "denied mood percentile, largest": (0.0, 0.1),
    "sound alone finds what embeddings find": (1.0, 1.0),
}
MOODS = ("sad", "happy", "calm", "tense", "dark", "energetic", "dreamy", "aggressive", "gentle", "playful")
# None of them is a background text of the calibration.
OFF_TOPIC = (
    "insurance policy number",
    "my neighbour sold his tractor",
    "docker compose up",
    "two eggs and a pinch of salt",
    "who won the league last night",
    "die Rechnung bitte",
    "replace the water filter",
    "turn left at the roundabout",
    "the glacier is retreating",
    "lost luggage at the station",
    "nuclear fusion reactor",
    "pay the parking fine online",
    "knee surgery waiting list",
    "sharpen a kitchen knife",
    "the minister resigned on Tuesday",
)


def measure(corpus: PackedCorpus, split: str, checkpoint: Checkpoint) -> dict:
    """Figures of a checkpoint's search on one split of a corpus.

    Args:
        corpus (`PackedCorpus`): rows with `title` and `creator`.
    Returns:
        `dict`: recall at 5 of title and composer queries with and without names; the best fit of nonsense; the
        percentile of a mood among the hits of its negation; the share of queries for which a search without names
        finds what `EmbeddingIndex.search` finds, with the same scores.
    """
    pieces = corpus.select(lambda row: row["split"] == split)
    rows = [corpus.rows[piece] for piece in pieces]
    notes = [_middle(corpus.notes(piece)) for piece in pieces]
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{row['id']}.mid") for row in rows]
        _write_metadata(Path(folder), rows)
        index = EmbeddingIndex()
        index.add(paths, _embed(checkpoint, notes))
        with_names, without = (Finder(index, checkpoint, folder, by_names) for by_names in (True, False))
        queries = _name_queries(rows, paths)
        figures = {
            "names recall@5": np.mean([_recall(with_names, *query) for query in queries]),
            "names recall@5, sound alone": np.mean([_recall(without, *query) for query in queries]),
        }
    fits = {text: max(hit.fit for hit in with_names.find(text, top_k=TOP_K).hits) for text in _nonsense()}
    figures |= {
        "nonsense best fit, largest": max(fits.values()),
        "nonsense best fit, 95 of 100": np.quantile(list(fits.values()), 0.95),
        "nonsense best fit, median": np.median(list(fits.values())),
    }
    denied = {mood: _denied_percentile(without, checkpoint, mood) for mood in MOODS}
    figures |= {
        "denied mood percentile, largest": max(denied.values()),
        "denied mood percentile": np.mean(list(denied.values())),
    }
    plain = [*MOODS, *(text for text, _ in queries)]
    figures["sound alone finds what embeddings find"] = np.mean([_same(without, checkpoint, text) for text in plain])
    worst = dict(sorted(((text, round(fit, 4)) for text, fit in fits.items()), key=lambda pair: -pair[1])[:5])
    return {"pieces": len(rows), "queries": len(queries)} | {
        "figures": {name: round(float(value), 4) for name, value in figures.items()},
        "nonsense that fits best": worst,
    }


def _same(finder: Finder, checkpoint: Checkpoint, text: str) -> bool:
    """Whether a finder's hits are those of the index, apart from their fit."""
    if parse_query(text).unwanted:  # a title such as "Never again" is searched as what it denies
        return True
    hits = finder.find(text, top_k=10).hits
    return [replace(hit, fit=None) for hit in hits] == finder.index.search(checkpoint.embed_text([text]), 10)[0]


def _middle(notes: PianoNotes) -> PianoNotes:
    start = max(0.0, (notes.seconds - SECONDS) / 2)
    part = notes.crop(start, start + SECONDS)
    return part if len(part) else notes


def _embed(checkpoint: Checkpoint, notes: list[PianoNotes]) -> np.ndarray:
    from modeling_pianobind import embed_midi

    return embed_midi(checkpoint.model, checkpoint.processor, notes)


def _write_metadata(folder: Path, rows: list[dict]) -> None:
    columns = ("title", "creator")
    about = [{"file_name": f"{row['id']}.mid"} | {column: row.get(column, "") for column in columns} for row in rows]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in about), encoding="utf-8")


def _name_queries(rows: list[dict], paths: list[str]) -> list[tuple[str, set[str]]]:
    """Titles and composers, half each, with the pieces that they name."""
    chance, queries = random.Random(0), []
    for column in ("title", "creator"):
        named = {}
        for row, path in zip(rows, paths, strict=True):
            if len(row.get(column) or "") > 3 and row[column].isascii():
                named.setdefault(row[column].lower(), set()).add(path)
        queries += chance.sample(sorted(named.items()), min(NAME_QUERIES // 2, len(named)))
    return queries


def _recall(finder: Finder, text: str, relevant: set[str]) -> float:
    hits = {hit.path for hit in finder.find(text, top_k=TOP_K).hits}
    return len(relevant & hits) / min(TOP_K, len(relevant))


def _nonsense() -> list[str]:
    chance = random.Random(1)
    letters = [
        " ".join("".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 8))) for _ in range(2))
        for _ in range(NONSENSE_QUERIES - len(OFF_TOPIC))
    ]
    return [*OFF_TOPIC, *letters]


def _denied_percentile(finder: Finder, checkpoint: Checkpoint, mood: str) -> float:
    """Largest share of pieces that are less of a mood than one of the first ten hits of its negation."""
    scores = dict(zip(finder.index.paths, finder.index.embeddings @ checkpoint.embed_text([mood])[0], strict=True))
    values = np.sort(list(scores.values()))
    hits = finder.find(f"not {mood}", top_k=10).hits
    return max(float(np.searchsorted(values, scores[hit.path])) / len(values) for hit in hits)


def main(argv: list[str] | None = None) -> int:
    """Prints the figures and writes them to a file; the exit status is 1 if one misses its target."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.measure_search", description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True, metavar="FOLDER", type=Path, help="a packed corpus or a data set")
    parser.add_argument("--split", default="valid", help="default: valid")
    parser.add_argument("--checkpoint", metavar="FOLDER", default=default_checkpoint(), help="default: the package's")
    parser.add_argument("--output", metavar="FILE", type=Path, default=RESULTS, help="default: results/search.json")
    args = parser.parse_args(argv)
    begun, corpus = time.monotonic(), load_corpus(args.corpus)
    measured = subject(Path(args.checkpoint), args.corpus, corpus, args.split)
    del measured["sources"]
    results = measure(corpus, args.split, Checkpoint(args.checkpoint))
    missed = [name for name, (low, high) in TARGETS.items() if not low <= results["figures"][name] <= high]
    results |= {"targets": {name: list(bounds) for name, bounds in TARGETS.items()}, "missed": missed}
    results |= {"seconds": round(time.monotonic() - begun), "code_commit": code_commit()}
    save_results(args.output, measured | results)
    print(json.dumps(results, indent=1, ensure_ascii=False))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
