"""Protocols on printed scores: retrieval between scores and performances, and detection of duplicates."""

import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from modeling_pianobind.index.alignment import Example
from modeling_pianobind.index.duplicates import DEFAULT_CONFIDENCE, find_duplicates
from modeling_pianobind.index.embedding_index import EmbeddingIndex
from modeling_pianobind.index.note_alignment import NoteLine
from modeling_pianobind.index.table import FileTable
from modeling_pianobind.metric.ranking import retrieval_metrics
from modeling_pianobind.notes_pianobind import PrintedNotes, read_midi
from training.data.corpus import PackedCorpus

from .bench import Bench, UnsuitableError, means

# Sources whose files of one song are performances of it; others have excerpts, levels or covers of one name.
PERFORMANCES = ("asap", "pianolatron")
CONFIDENCES = (0.1, 0.25, DEFAULT_CONFIDENCE, 0.75, 0.9)
RANKED = 500  # hits that are ranked


def score_performance(bench: Bench) -> dict:
    """Retrieval of performances by scores and of scores by performances, by mean and by `--like`.

    A piece's song decides what is relevant. Where a performance seeks its score, the other files of its song are left
    out, and the scores of other splits are in the pool; where it seeks another performance, itself is.
    """
    listed, scores, unread = _read_scores(bench)
    pieces = bench.piece_examples
    songs = np.array(bench.songs_at(bench.places))
    asked = [place for place, row in enumerate(listed) if row["split"] == bench.split and row["song"] in set(songs)]
    if not asked:
        raise UnsuitableError(f"no score of split {bench.split!r} has a performance there.")
    names = [f"piece {number:05}" for number in range(len(pieces))]
    marks = [f"score {number:05}" for number in range(len(scores))]
    index = _index(dict(zip(names, pieces, strict=True)))
    both = _index(dict(zip([*names, *marks], [*pieces, *scores], strict=True)))
    options = {"bootstrap_samples": bench.bootstrap.samples, "seed": bench.bootstrap.seed}

    relevant = [np.flatnonzero(songs == listed[place]["song"]).tolist() for place in asked]
    by_mean = means([scores[place] for place in asked]) @ means(pieces).T
    by_like = np.stack([_searched(index, scores[place], names) for place in asked])
    figures = {
        "score_to_performance": retrieval_metrics(by_mean, relevant, **options),
        "score_to_performance_by_like": retrieval_metrics(by_like, relevant, **options),
    }
    of_song = {listed[place]["song"]: place for place in reversed(asked)}
    own = {row["id"]: number for number, row in enumerate(bench.rows)}
    played = [own[identity] for place in asked for identity in listed[place]["performances"] if identity in own]
    ranked = []
    for number in played:
        values = _searched(both, pieces[number], [*names, *marks])
        values[: len(names)][songs == songs[number]] = -np.inf
        others = [place for place, row in enumerate(listed) if row["song"] == songs[number]]
        values[[len(names) + place for place in others if place != of_song[songs[number]]]] = -np.inf
        ranked.append(values)
    relevant = [len(names) + of_song[songs[number]] for number in played]
    figures["performance_to_score_by_like"] = retrieval_metrics(_finite(ranked), relevant, **options)
    figures |= _other_performances(bench, index, pieces, names, songs, options)
    return {
        "scores": figures,
        "baselines": {},
        "settings": {
            "scores": len(scores),
            "unread_scores": unread,
            "queried_scores": len(asked),
            "queried_performances": len(played),
            "pieces": len(pieces),
        },
    }


def duplicates(bench: Bench) -> dict:
    """Files of one song, found by `find_duplicates` among all pieces; recall on performances of one source."""
    pieces, songs = bench.piece_examples, bench.songs_at(bench.places)
    sources = [row.get("source") for row in bench.rows]
    names = [f"{number:05}.mid" for number in range(len(pieces))]
    groups = find_duplicates(_index(dict(zip(names, pieces, strict=True))), 0.05)
    pairs = {(int(pair.first[:5]), int(pair.second[:5])): pair.confidence for group in groups for pair in group.pairs}
    wanted = {
        (first, second)
        for first, second in combinations(range(len(songs)), 2)
        if songs[first] == songs[second] and sources[first] == sources[second] and sources[first] in PERFORMANCES
    }
    if not wanted:
        raise UnsuitableError("no song of this split has two files of one source.")
    figures = {}
    for threshold in CONFIDENCES:
        said = {pair for pair, confidence in pairs.items() if confidence >= threshold}
        right = {(first, second) for first, second in said if songs[first] == songs[second]}
        figures[f"confidence {threshold:g}"] = {
            "precision": len(right) / max(1, len(said)),
            "recall": len(said & wanted) / len(wanted),
            "pairs": len(said),
        }
    return {
        "scores": figures[f"confidence {DEFAULT_CONFIDENCE:g}"] | {"by_confidence": figures},
        "baselines": {},
        "settings": {"pieces": len(songs), "wanted_pairs": len(wanted)},
    }


def _read_scores(bench: Bench) -> tuple[list[dict], list[Example], int]:
    """Rows of `scores.jsonl` that can be read, these scores embedded, and how many others there are.

    What `score_readers --keep` read before is not read again.
    """
    if bench.printed_scores is None:
        raise UnsuitableError("needs the folder of `scores.jsonl`: name it with --scores.")
    folder, listed, notes, failed = Path(bench.printed_scores), [], [], 0
    if PackedCorpus.is_folder(folder):
        kept = PackedCorpus.load(folder)
        examples = bench.note_examples([PrintedNotes(**vars(kept.notes(place))) for place in range(len(kept))])
        return kept.rows, examples, kept.rows[0]["listed"] - len(kept)
    for line in (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        try:
            notes.append(read_midi(folder / Path(row["score"]).name))
            listed.append(row)
        except ValueError as error:
            failed += 1
            print(error, file=sys.stderr)
    return listed, bench.note_examples(notes), failed


def _index(examples: dict[str, Example]) -> EmbeddingIndex:
    return EmbeddingIndex(
        table=FileTable.from_rows(
            [
                (
                    name,
                    name,
                    "",
                    example.embedding,
                    example.windows.astype(np.float16),
                    example.spans,
                    NoteLine.of(example.notes),
                    None,
                )
                for name, example in examples.items()
            ]
        )
    )


def _searched(index: EmbeddingIndex, example: Example, names: list[str]) -> np.ndarray:
    """Scores of all pieces as `search_like` ranks them; pieces that it does not rerank come last."""
    hits = index.search_like(example, top_k=RANKED)
    place = {name: number for number, name in enumerate(names)}
    scores = np.full(len(names), -2.0)
    for rank, hit in enumerate(hits):
        scores[place[hit.path]] = hit.score - 1e-9 * rank
    return scores


def _other_performances(
    bench: Bench, index: EmbeddingIndex, pieces: list[Example], names: list[str], songs: np.ndarray, options: dict
) -> dict:
    """Retrieval between real performances of one song and one source; other sources' files are left out.

    A song may hold a prelude and its fugue; a second figure is of files with one title alone.
    """
    sources = np.array([row.get("source") for row in bench.rows])
    kin = [
        np.flatnonzero((songs == song) & (sources == source) & (np.arange(len(songs)) != number))
        for number, (song, source) in enumerate(zip(songs, sources, strict=True))
    ]
    asked = [number for number in range(len(songs)) if len(kin[number]) and sources[number] in PERFORMANCES]
    if not asked:
        return {}
    ranked = {}
    for number in asked:
        values = _searched(index, pieces[number], names)
        values[(songs == songs[number]) & (sources != sources[number])] = -np.inf
        values[number] = -np.inf
        ranked[number] = values
    titles = np.array([" ".join(str(row.get("title", "")).casefold().split()) for row in bench.rows])
    of_title = {number: kin[number][titles[kin[number]] == titles[number]] for number in asked}
    relevant_sets = {"": {number: kin[number] for number in asked}, "_of_one_title": of_title}
    figures = {}
    for name, relevant in relevant_sets.items():
        numbers = [number for number in asked if len(relevant[number])]
        if numbers:
            figures[f"performance_to_performance_by_like{name}"] = retrieval_metrics(
                _finite([ranked[number] for number in numbers]),
                [relevant[number].tolist() for number in numbers],
                **options,
            )
    return figures


def _finite(rows: list[np.ndarray]) -> np.ndarray:
    return np.maximum(np.stack(rows), -3.0)
