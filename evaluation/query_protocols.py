"""Protocols of free queries, judged by labels, titles and notes, and of captions of known works."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.data.descriptors import descriptor_facts, measure
from training.data.lexicon import Query, read_lexicon
from training.data.works import is_held_out, known_works

from .baselines import generated_captions, word_scores
from .bench import Bench, UnsuitableError
from .scores import among_best, paired_retrieval, share_of_best

FREE_QUERIES = Path(__file__).parent / "free_queries.json"
FIRST_HITS = 5  # of a free query
TWICE = 2.0  # a query counts as understood from this multiple of chance
RIGHT_SHARE, BEST_PIECES = 0.1, 10  # of `lexicon_held_out`
CANDIDATES, DRAWS = 200, 5  # of `works_held_out`, as of `text_to_piece`
WORD_SEARCH = "BM25 over generated captions"


def facts_of(bench: Bench) -> list[tuple[set[str], set[str]]]:
    """Facts that hold and facts that do not, of each measured piece: from its labels, title and notes."""
    known = []
    for row, notes in zip(bench.rows, bench.notes_at(bench.places), strict=True):
        true, false = bench.vocabulary.labels(row)
        true_of_notes, false_of_notes = descriptor_facts(measure(notes, notes.seconds))
        known.append((true | true_of_notes, (false | false_of_notes) - true - true_of_notes))
    return known


def holds(condition: str | dict, facts: set[str], title: str) -> bool:
    """Whether a fact is among `facts`, or the regular expression of `{"title": ...}` is found in `title`."""
    if isinstance(condition, dict):
        return re.search(condition["title"], title, re.IGNORECASE) is not None
    return condition in facts


def fits(query: dict, facts: set[str], title: str) -> bool:
    """Whether a piece matches a free query: all of one list in `fits` holds, and nothing in `not`."""
    if any(holds(condition, facts, title) for condition in query["not"]):
        return False
    return any(all(holds(condition, facts, title) for condition in conditions) for conditions in query["fits"])


def free_queries(bench: Bench) -> dict:
    """Sixty queries that the lexicon does not have: the share of the first five pieces that fit, by a rule for each.

    A piece is judged by its title, its labels and its notes (`fits`); a missing label counts as not holding.
    """
    queries = json.loads(FREE_QUERIES.read_text(encoding="utf-8"))
    facts = [true for true, _ in facts_of(bench)]
    titles = [row.get("title") or "" for row in bench.rows]
    fitting = np.array(
        [[fits(query, *piece) for piece in zip(facts, titles, strict=True)] for query in queries], float
    )
    separable = [number for number, row in enumerate(fitting) if 0 < row.mean() < 1]
    if not separable:
        raise UnsuitableError("no free query fits some pieces of this split and not others.")
    left_out = [query["query"] for number, query in enumerate(queries) if number not in separable]
    queries, fitting = [queries[number] for number in separable], fitting[separable]
    texts, chance = [query["query"] for query in queries], fitting.mean(1)
    shares = share_of_best(bench.embed_text(texts) @ bench.midi_at(bench.places).T, fitting, FIRST_HITS)
    words = share_of_best(word_scores(texts, bench.generated), fitting, FIRST_HITS)
    per_query = {
        text: {"kind": query["kind"], "fit@5": float(share), "chance": float(rate), WORD_SEARCH: float(word)}
        for text, query, share, rate, word in zip(texts, queries, shares, chance, words, strict=True)
    }
    kinds = [query["kind"] for query in queries]
    return {
        "scores": _fit_scores(shares, chance, kinds, bench) | {"per_query": per_query},
        "baselines": {
            "chance": _fit_scores(chance, chance, kinds, bench),
            WORD_SEARCH: _fit_scores(words, chance, kinds, bench),
        },
        "settings": {"pieces": len(titles), "hits": FIRST_HITS, "left_out": left_out},
    }


def _fit_scores(shares: np.ndarray, chance: np.ndarray, kinds: list[str], bench: Bench) -> dict:
    """Means of the queries' shares, of all and of each kind, and how many reach twice their chance."""
    kind_of = np.array(kinds)

    def figures(chosen):
        return {"fit@5": float(shares[chosen].mean())}

    return _over_queries(bench, figures, len(shares)) | {
        "queries": len(shares),
        "queries_at_twice_chance": int((shares >= TWICE * chance).sum()),
        "per_kind": {
            kind: {"queries": kinds.count(kind), "fit@5": float(shares[kind_of == kind].mean())}
            for kind in dict.fromkeys(kinds)
        },
    }


def _over_queries(bench: Bench, figures: Callable[[np.ndarray], dict], count: int) -> dict:
    """Figures with intervals, for which queries are drawn with replacement."""
    return bench.bootstrap.intervals(figures, range(count))


def fact_scores(queries: list[Query], known: list[tuple[set[str], set[str]]]) -> np.ndarray:
    """Sum of the requested facts that are known to hold, `(queries, pieces)`.

    A fact counts 1 for a piece where it holds, 0 where it does not, and half its prevalence where nothing is known of
    it; the prevalence is the share of all pieces for which it is known to hold. Facts that a query asks for are added,
    facts that it rules out are taken away.
    """
    facts = sorted({fact for query in queries for fact in (*query.holds, *query.excludes)})
    number = {fact: place for place, fact in enumerate(facts)}
    values = np.full((len(known), len(facts)), np.nan)
    for row, (true, false) in zip(values, known, strict=True):
        row[[number[fact] for fact in false & number.keys()]] = 0.0
        row[[number[fact] for fact in true & number.keys()]] = 1.0
    half_prevalence = np.nansum(values, axis=0) / len(known) / 2
    values = np.where(np.isnan(values), half_prevalence, values)
    signs = np.zeros((len(queries), len(facts)))
    for row, query in zip(signs, queries, strict=True):
        row[[number[fact] for fact in query.excludes]] = -1.0
        row[[number[fact] for fact in query.holds]] = 1.0
    return np.round(signs @ values.T, 9)  # rounded, so that the score does not depend on the order of summation


def lexicon_held_out(bench: Bench) -> dict:
    """Queries of the lexicon that training has not seen: the share of the ten first pieces in the right tenth.

    The right tenth are the pieces for which most holds of what the query asks for, and least of what it rules out
    (`fact_scores`). Where pieces tie at its border, each counts in part, so that chance is a tenth for every query.
    """
    queries = [query for query in read_lexicon() if query.held_out]
    known = fact_scores(queries, facts_of(bench))
    separable = np.flatnonzero(np.ptp(known, axis=1) > 0).tolist()
    if not separable:
        raise UnsuitableError("nothing that the held-out queries ask for tells the pieces of this split apart.")
    queries = [queries[number] for number in separable]
    pieces = len(bench.places)
    right, best = among_best(known[separable], RIGHT_SHARE * pieces), min(BEST_PIECES, pieces)
    texts = [query.text for query in queries]

    def scores(similarity):
        shares = share_of_best(similarity, right, best)
        return _over_queries(bench, lambda chosen: {"right@10": float(shares[chosen].mean())}, len(shares))

    return {
        "scores": scores(bench.embed_text(texts) @ bench.midi_at(bench.places).T) | {"queries": len(queries)},
        "baselines": {
            "chance": {"right@10": RIGHT_SHARE},
            WORD_SEARCH: scores(word_scores(texts, bench.generated)),
        },
        "settings": {"pieces": pieces, "right_share": RIGHT_SHARE, "hits": best},
    }


def works_held_out(bench: Bench) -> dict:
    """Generated captions of known works that training has not seen seek the piece among 200 of `train`.

    The pieces themselves are in the training data, with their labels; a language model wrote the captions from title
    and creator. The figure therefore does not replace that of `text_to_piece`, whose pieces are outside the training
    data and whose captions state human labels. One piece stands for all versions of a song.
    """
    works, of_song = known_works(), {}
    for place, row in enumerate(bench.corpus.rows):
        song = row.get("song")
        if row["split"] == "train" and row["id"] in works and song and is_held_out(song):
            of_song.setdefault(song, place)
    places = sorted(of_song.values())
    if len(places) < 2:
        raise UnsuitableError("fewer than two songs of `train` have captions of a known work that are held out.")
    among, embeddings = min(CANDIDATES, len(places)), bench.midi_at(places)
    captions = [works[row["id"]][1] for row in bench.rows_at(places)]
    first = [texts[0] for texts in captions]
    generated = generated_captions(bench, bench.notes_at(places), unseen=places)
    scores = {
        name: paired_retrieval(bench.embed_text(texts) @ embeddings.T, among, bench.bootstrap, DRAWS)
        for name, texts in (("first caption", first), ("last caption", [texts[-1] for texts in captions]))
    }
    baselines = {"chance": np.zeros((len(places), len(places))), WORD_SEARCH: word_scores(first, generated)}
    return {
        "scores": scores,
        "baselines": {
            name: {"first caption": paired_retrieval(matrix, among, bench.bootstrap, DRAWS)}
            for name, matrix in baselines.items()
        },
        "settings": {"songs": len(places), "draws": DRAWS, "captions": "generated"},
    }
