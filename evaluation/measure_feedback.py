"""What feedback brings to a search: simulated users who like an artist or a mood, three rounds of thumbs.

    python -m evaluation.measure_feedback CHECKPOINT CORPUS --output JSON [--cache FILE.npz]

A user types the artist's name or words of the mood, sees ten pieces, marks each as right or wrong, and sees the next ten
that are not marked yet. Pieces are one for each song, so that no version of a song helps to find another. Measured after
each round: `page`, the ten best of all pieces, marked ones among them; `unseen`, the ten best of another half of the songs,
of which the user has never marked any. Names of files and metadata are not used.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from modeling_pianobind.index.feedback import Background, refine
from modeling_pianobind.labels_pianobind import EMOTION_PROMPTS
from modeling_pianobind.service.checkpoint import Checkpoint
from training.data.facts import creator_name

from .corpora import load_corpus
from .evaluate_checkpoint import code_commit, save_results, subject
from .piece_embeddings import SECONDS, add_arguments, embedded

ROUNDS, PAGE = 3, 10
MIN_SONGS = 6  # of an artist
HALVES = 10  # draws of the half that is never marked
ROCCHIO = (1.0, 0.75, 0.15)  # weights of the query, of what is wanted and of what is not, as is usual


def taste_groups(rows: list[dict]) -> dict[str, list[tuple[str, list[str], np.ndarray, np.ndarray]]]:
    """Users by kind: name, queries, the rows that are known either way, and which of these the user likes."""
    names = np.array([creator_name(row) or "" for row in rows])
    known = _one_a_song(rows, names != "")
    artists = [
        (name, [name], known, names[known] == name)
        for name in sorted({*names[known]})
        if (names[known] == name).sum() >= MIN_SONGS
    ]
    quadrant = np.array([row.get("emotion_quadrant") or 0 for row in rows])
    rated = _one_a_song(rows, quadrant > 0)
    moods = [
        (f"quadrant {number}", list(prompts), rated, quadrant[rated] == number)
        for number, prompts in EMOTION_PROMPTS.items()
        if (quadrant[rated] == number).sum() >= MIN_SONGS
    ]
    return {"artist": artists, "mood": moods}


def _has_taste(row) -> bool:
    return bool(creator_name(row) or row.get("emotion_quadrant"))


def _one_a_song(rows, usable) -> np.ndarray:
    first = {}
    for place in np.flatnonzero(usable):
        first.setdefault(rows[place].get("song") or rows[place]["id"], place)
    return np.array(sorted(first.values()), int)


def rocchio(query, more, less, background=None) -> np.ndarray:
    """The classic way, for comparison: weighted means of query and examples."""
    direction = ROCCHIO[0] * query
    for weight, side in ((ROCCHIO[1], more), (-ROCCHIO[2], less)):
        direction = direction + (weight * np.mean(side, axis=0) if len(side) else 0)
    return direction


def session(query, embeds, liked, marked_from, judged_on, move, marks: int = PAGE) -> list[float]:
    """Precision of the first ten before any feedback and after each round.

    Args:
        query (`np.ndarray` of shape `(dim,)`): the words.
        embeds (`np.ndarray` of shape `(pieces, dim)`), liked (`np.ndarray` of shape `(pieces,)`): the corpus.
        marked_from, judged_on (`np.ndarray`): places of the pieces that the user sees, and that are counted.
        move: `refine`, or another function of its arguments.
        marks (`int`): how many pieces of a page get a thumb, the first ones.
    """
    background = Background.of(embeds[marked_from])
    direction, unmarked, thumbs, found = query, list(marked_from), {True: [], False: []}, []
    for number in range(ROUNDS + 1):
        best = judged_on[np.argsort(-(embeds[judged_on] @ direction), kind="stable")[:PAGE]]
        found.append(float(liked[best].mean()))
        if number == ROUNDS:
            break
        page = sorted(unmarked, key=lambda place: -float(embeds[place] @ direction))[:PAGE]
        for place in page[:marks]:
            thumbs[bool(liked[place])].append(embeds[place])
        unmarked = [place for place in unmarked if place not in set(page[:marks])]
        direction = move(query, thumbs[True], thumbs[False], background)
    return found


def measure(rows, embeds, embed_text, seed: int = 0) -> dict:
    """Figures of all users, by kind, way of moving and place of measuring."""
    return {kind: _measure_kind(users, rows, embeds, embed_text, seed) for kind, users in taste_groups(rows).items()}


def _measure_kind(users, rows, embeds, embed_text, seed) -> dict:
    ways = {"refine": (refine, PAGE), "refine, three thumbs a round": (refine, 3), "rocchio": (rocchio, PAGE)}
    found = {f"{place} {way}": [] for place in ("page", "unseen") for way in ways}
    chance, per_user = [], {}
    for name, queries, places, liked in users:
        random, of_user = np.random.default_rng(seed), {key: [] for key in found}
        pieces = embeds[places]
        halves = [np.array_split(random.permutation(len(places)), 2) for _ in range(HALVES)]
        for query in embed_text(queries):
            for way, (move, marks) in ways.items():
                every = np.arange(len(places))
                of_user[f"page {way}"].append(session(query, pieces, liked, every, every, move, marks))
                for seen, unseen in halves:
                    of_user[f"unseen {way}"].append(session(query, pieces, liked, seen, unseen, move, marks))
        for key, curves in of_user.items():
            found[key].append(np.mean(curves, axis=0))
        chance.append(liked.mean())
        gain = {
            key: round(float(found[key][-1][-1] - found[key][-1][0]), 4) for key in ("page refine", "unseen refine")
        }
        per_user[name] = {"liked": int(liked.sum()), "among": len(liked), **gain}
    figures = {"users": len(users), "chance": round(float(np.mean(chance)), 4)}
    for key, curves in found.items():
        figures[key] = np.round(np.mean(curves, axis=0), 4).tolist()
    for place in ("page", "unseen"):
        figures[f"{place} gain"] = round(figures[f"{place} refine"][-1] - figures[f"{place} refine"][0], 4)
    # Half of a small artist's songs cannot fill ten places.
    ceiling = [min(PAGE, int(liked.sum()) / 2) / PAGE for *_, liked in users]
    return figures | {"unseen ceiling": round(float(np.mean(ceiling)), 4), "per_user": per_user}


def main(arguments=None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.measure_feedback", description=__doc__.split("\n")[0])
    add_arguments(parser)
    given = parser.parse_args(arguments)
    try:
        checkpoint, corpus = Checkpoint(str(given.checkpoint)), load_corpus(given.corpus)
        of = embedded(corpus, given.split, checkpoint, given.cache, given.dtype, given.pieces, _has_taste)
        found = measure(of.rows, of.embeds, checkpoint.embed_text)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    measured = subject(given.checkpoint, given.corpus, corpus, given.split, given.dtype)
    about = {"code_commit": code_commit(), "pieces": len(of.rows), "seconds_of_each": SECONDS, "rounds": ROUNDS}
    save_results(given.output, measured | about | {"feedback": found})
    for kind, figures in found.items():
        for place in ("page", "unseen"):
            curve = " ".join(f"{value:.3f}" for value in figures[f"{place} refine"])
            print(f"{kind}, {place}: precision@10 {curve}; rocchio {figures[f'{place} rocchio'][-1]:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
