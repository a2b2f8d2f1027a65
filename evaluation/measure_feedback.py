"""Measures feedback, taste profiles and playlists with simulated users.

    python -m evaluation.measure_feedback CHECKPOINT CORPUS --output JSON [--cache FILE.npz]

Feedback: a user who likes an artist or a mood types words, sees ten pieces, marks each as right or wrong, and sees the
next ten that are not marked yet, three times. The words are either the name of the artist or words for the mood
(`named`), or others: the label of `describe` that fits the artist best, and "piano music" for a mood (`other words`).
Pieces are one for each song, so that no version of a song helps to find another. Measured after each round: `page`,
the ten best of all pieces, marked ones among them; `unseen`, the ten best of another half of the songs, of which the
user has never marked any. Names of files are not used. For the other figures see `continuation.py` and `tastes.py`.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modeling_pianobind.index.feedback import Background, refine
from modeling_pianobind.labels_pianobind import EMOTION_PROMPTS, label_embeddings
from modeling_pianobind.service.checkpoint import Checkpoint
from training.data.facts import creator_name

from .continuation import index_of, measure_continuation, measure_steps
from .corpora import load_corpus
from .measurement import code_commit, save_results, subject
from .piece_embeddings import SECONDS, add_arguments, embedded
from .tastes import measure_tastes

EmbedText = Callable[[list[str]], np.ndarray]  # texts -> `(texts, dim)` unit rows
ROUNDS, PAGE = 3, 10
MIN_SONGS = 6  # of an artist
HALVES = 4  # draws of the half that is never marked
ROCCHIO = (1.0, 0.75, 0.15)  # weights of the query, of what is wanted and of what is not, as is usual


@dataclass(frozen=True)
class User:
    """Someone who likes some pieces of a corpus.

    Attributes:
        name (`str`): an artist, or a mood.
        queries (`dict[str, np.ndarray]`): embeddings of what the user types, by kind of words.
        places (`np.ndarray` of shape `(pieces,)`): rows of which it is known whether the user likes them.
        liked (`np.ndarray` of shape `(pieces,)`): whether.
    """

    name: str
    queries: dict[str, np.ndarray]
    places: np.ndarray
    liked: np.ndarray


def make_users(rows: list[dict], embeds: np.ndarray, embed_text: EmbedText) -> dict[str, list[User]]:
    """Users by kind: those of artists with `MIN_SONGS` songs, and those of the four quadrants of emotion."""
    names = np.array([creator_name(row) or "" for row in rows])
    quadrants = np.array([row.get("emotion_quadrant") or 0 for row in rows])
    _, labels = label_embeddings(embed_text)
    vague = embed_text(["piano music"])[0]
    users = {"artist": [], "mood": []}
    known = one_a_song(rows, names != "")
    for name in sorted({*names[known].tolist()}):
        liked = names[known] == name
        if liked.sum() >= MIN_SONGS:
            pieces = embeds[known]
            label = labels[np.argmax(labels @ (pieces[liked].mean(axis=0) - pieces.mean(axis=0)))]
            users["artist"].append(User(name, {"named": embed_text([name])[0], "other words": label}, known, liked))
    known = one_a_song(rows, quadrants > 0)
    for number, prompts in EMOTION_PROMPTS.items():
        liked = quadrants[known] == number
        if liked.sum() >= MIN_SONGS:
            queries = {"named": embed_text(list(prompts[:1]))[0], "other words": vague}
            users["mood"].append(User(f"quadrant {number}", queries, known, liked))
    return users


def _has_taste(row: dict) -> bool:
    return bool(creator_name(row) or row.get("emotion_quadrant"))


def one_a_song(rows: list[dict], usable: np.ndarray) -> np.ndarray:
    """The first usable row of each song, ascending."""
    first = {}
    for place in np.flatnonzero(usable):
        first.setdefault(rows[place].get("song") or rows[place]["id"], place)
    return np.array(sorted(first.values()), int)


def rocchio(
    query: np.ndarray, more: list[np.ndarray], less: list[np.ndarray], background: Background | None = None
) -> np.ndarray:
    """Rocchio's method, for comparison: weighted means of query and examples."""
    direction = ROCCHIO[0] * query
    for weight, side in ((ROCCHIO[1], more), (-ROCCHIO[2], less)):
        direction = direction + (weight * np.mean(side, axis=0) if len(side) else 0)
    return direction


WAYS = {"refine": (refine, PAGE), "refine, three thumbs a round": (refine, 3), "rocchio": (rocchio, PAGE)}
PLACES = {"page": 1.0, "unseen": 0.5}  # and the share of the songs that is measured


def session(
    query: np.ndarray,
    embeds: np.ndarray,
    liked: np.ndarray,
    marked_from: np.ndarray,
    judged_on: np.ndarray,
    background: Background,
    move: Callable = refine,
    marks: int = PAGE,
) -> list[float]:
    """Precision of the first ten before any feedback and after each round.

    Args:
        query (`np.ndarray` of shape `(dim,)`): the words.
        embeds (`np.ndarray` of shape `(pieces, dim)`), liked (`np.ndarray` of shape `(pieces,)`): the corpus.
        marked_from, judged_on (`np.ndarray`): places of the pieces that the user sees, and that are counted.
        background (`Background`): of the pieces that the user sees.
        move: `refine`, or another function of its arguments.
        marks (`int`): how many pieces of a page get a thumb, the first ones.
    """
    direction, unmarked, thumbs, shares = query, list(marked_from), {True: [], False: []}, []
    for number in range(ROUNDS + 1):
        best = judged_on[np.argsort(-(embeds[judged_on] @ direction), kind="stable")[:PAGE]]
        shares.append(float(liked[best].mean()))
        if number == ROUNDS:
            break
        page = sorted(unmarked, key=lambda place: -float(embeds[place] @ direction))[:PAGE]
        for place in page[:marks]:
            thumbs[bool(liked[place])].append(embeds[place])
        unmarked = [place for place in unmarked if place not in set(page[:marks])]
        direction = move(query, thumbs[True], thumbs[False], background)
    return shares


def measure(rows: list[dict], embeds: np.ndarray, embed_text: EmbedText, seed: int = 0) -> dict:
    """Figures of all users, by kind of user and of words."""
    by_kind = {}
    for kind, users in make_users(rows, embeds, embed_text).items():
        if not users:
            raise ValueError(f"no {kind} has {MIN_SONGS} songs in this split; measure on another one.")
        curves = [_measure_user(user, embeds[user.places], seed) for user in users]
        by_kind[kind] = {
            "users": {user.name: int(user.liked.sum()) for user in users},
            "pieces": len(users[0].places),
            "chance": float(np.mean([user.liked.mean() for user in users])),
            # Half of a small artist's songs cannot fill ten places.
            "ceiling": {
                place: float(np.mean([min(PAGE, user.liked.sum() * share) / PAGE for user in users]))
                for place, share in PLACES.items()
            },
        }
        for words in users[0].queries:
            of_words = {key: np.mean([curve[words, *key] for curve in curves], axis=0) for key in _keys()}
            by_kind[kind][words] = {
                place: {way: of_words[place, way].round(4).tolist() for way in WAYS}
                | {"gain": round(float(of_words[place, "refine"][-1] - of_words[place, "refine"][0]), 4)}
                for place in PLACES
            }
    return by_kind


def _keys() -> list[tuple[str, str]]:
    return [(place, way) for place in PLACES for way in WAYS]


def _measure_user(user: User, pieces: np.ndarray, seed: int) -> dict:
    """Precision before and after each round, by words, place and way."""
    random, every = np.random.default_rng(seed), np.arange(len(pieces))
    halves = [np.array_split(random.permutation(every), 2) for _ in range(HALVES)]
    parts = {"page": [(every, every)], "unseen": halves}
    all_curves = {(words, *key): [] for words in user.queries for key in _keys()}
    for place, splits in parts.items():
        for seen, judged in splits:
            background = Background.of(pieces[seen])
            for words, query in user.queries.items():
                for way, (move, marks) in WAYS.items():
                    curve = session(query, pieces, user.liked, seen, judged, background, move, marks)
                    all_curves[words, place, way].append(curve)
    return {key: np.mean(curves, axis=0) for key, curves in all_curves.items()}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.measure_feedback", description=__doc__.split("\n")[0])
    add_arguments(parser)
    given = parser.parse_args(arguments)
    try:
        checkpoint, corpus = Checkpoint(str(given.checkpoint)), load_corpus(given.corpus)
        of = embedded(corpus, given.split, checkpoint, given.cache, given.dtype, given.pieces, _has_taste)
        results = {"feedback": measure(of.rows, of.embeds, checkpoint.embed_text)}
        known = one_a_song(of.rows, np.array([bool(creator_name(row)) for row in of.rows]))
        results["continuation"] = measure_continuation(of.rows, of.embeds, known)
        results["taste"] = measure_tastes(of.rows, of.embeds, known, checkpoint.embed_text)
        index = index_of(of.rows, of.embeds, [corpus.notes(place) for place in of.places])
        results["playlist"] = measure_steps(index, checkpoint.embed_text)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    measured = subject(given.checkpoint, given.corpus, corpus, given.split, given.dtype)
    about = {"code_commit": code_commit(), "pieces": len(of.rows), "seconds_of_each": SECONDS, "rounds": ROUNDS}
    save_results(given.output, measured | about | results)
    for kind, figures in results["feedback"].items():
        for words in ("named", "other words"):
            for place in PLACES:
                of = figures[words][place]
                curve = " ".join(f"{value:.3f}" for value in of["refine"])
                print(f"{kind}, {words}, {place}: precision@10 {curve}; rocchio {of['rocchio'][-1]:.3f}")
    for name in ("continuation", "taste", "playlist"):
        print(f"{name}: {results[name]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
