"""Quality of `pianobind search`: recall of names, fit of nonsense queries, effect of negations.

`python -m evaluation.measure_search --corpus FOLDER` prints JSON. Pieces are embedded by one window each, from their
middle: names and negations do not depend on more.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

import numpy as np

from modeling_pianobind.index.embedding_index import EmbeddingIndex
from modeling_pianobind.index.finder import Finder
from modeling_pianobind.service.checkpoint import Checkpoint

from .corpora import load_corpus

SECONDS = 20.0
NAME_QUERIES, NONSENSE_QUERIES, TOP_K = 50, 100, 5
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


def measure(corpus, split: str, checkpoint: Checkpoint) -> dict:
    """Figures of a checkpoint's search on one split of a corpus.

    Args:
        corpus (`PackedCorpus`): rows with `title` and `creator`.
    Returns:
        `dict`: recall at 5 of title and composer queries with and without names, the best fit of nonsense, and the
        percentile of a mood among the hits of its negation.
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
        fits = [with_names.find(text, top_k=1).hits[0].fit for text in _nonsense()]
        figures |= {"nonsense best fit, largest": max(fits), "nonsense best fit, median": np.median(fits)}
        percentiles = [_denied_percentile(without, checkpoint, mood) for mood in MOODS]
        figures |= {
            "denied mood percentile, largest": max(percentiles),
            "denied mood percentile": np.mean(percentiles),
        }
    return {"pieces": len(rows), "queries": len(queries)} | {
        name: round(float(one), 4) for name, one in figures.items()
    }


def _middle(notes):
    start = max(0.0, (notes.seconds - SECONDS) / 2)
    part = notes.crop(start, start + SECONDS)
    return part if len(part) else notes


def _embed(checkpoint, notes) -> np.ndarray:
    from modeling_pianobind import embed_midi

    return embed_midi(checkpoint.model, checkpoint.processor, notes)


def _write_metadata(folder, rows) -> None:
    columns = ("title", "creator")
    about = [{"file_name": f"{row['id']}.mid"} | {column: row.get(column, "") for column in columns} for row in rows]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in about), encoding="utf-8")


def _name_queries(rows, paths) -> list[tuple[str, set[str]]]:
    """Titles and composers, half each, with the pieces that they name."""
    chance, queries = random.Random(0), []
    for column in ("title", "creator"):
        named = {}
        for row, path in zip(rows, paths, strict=True):
            if len(row.get(column) or "") > 3 and row[column].isascii():
                named.setdefault(row[column].lower(), set()).add(path)
        queries += chance.sample(sorted(named.items()), min(NAME_QUERIES // 2, len(named)))
    return queries


def _recall(finder, text: str, relevant: set[str]) -> float:
    hits = {hit.path for hit in finder.find(text, top_k=TOP_K).hits}
    return len(relevant & hits) / min(TOP_K, len(relevant))


def _nonsense() -> list[str]:
    chance = random.Random(1)
    letters = [
        " ".join("".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 8))) for _ in range(2))
        for _ in range(NONSENSE_QUERIES - len(OFF_TOPIC))
    ]
    return [*OFF_TOPIC, *letters]


def _denied_percentile(finder, checkpoint, mood: str) -> float:
    """Largest share of pieces that are less of a mood than one of the first ten hits of its negation."""
    scores = dict(zip(finder.index.paths, finder.index.embeddings @ checkpoint.embed_text([mood])[0], strict=True))
    values = np.sort(list(scores.values()))
    hits = finder.find(f"not {mood}", top_k=10).hits
    return max(float(np.searchsorted(values, scores[hit.path])) / len(values) for hit in hits)


def main(argv=None) -> int:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.measure_search", description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True, metavar="FOLDER", help="a packed corpus or a built data set")
    parser.add_argument("--split", default="valid", help="default: valid")
    parser.add_argument("--checkpoint", metavar="FOLDER|HUB_ID", help="default: the package's own")
    args = parser.parse_args(argv)
    print(json.dumps(measure(load_corpus(args.corpus), args.split, Checkpoint(args.checkpoint)), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
