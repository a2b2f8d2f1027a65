"""Measures taste profiles: simulated listeners of two artists search by words."""

from collections.abc import Callable
from itertools import combinations

import numpy as np

from modeling_pianobind.index.feedback import Background
from modeling_pianobind.index.taste import LOSS, MAX_TASTE_WEIGHT, Taste, blend
from training.data.facts import creator_name

MIN_SONGS, TOP_K = 6, 10
QUERIES = (
    "calm", "happy", "sad", "tense", "slow and quiet", "fast and energetic", "romantic", "dark", "bright", "dreamy",
)  # fmt: skip


def measure_tastes(
    rows: list[dict],
    embeds: np.ndarray,
    known: np.ndarray,
    embed_text: Callable[[list[str]], np.ndarray],
    seed: int = 0,
) -> dict:
    """Searches by words alone, by words and taste, and by words and taste without a bound.

    Each listener has played half of the songs of two artists; these are left out of the search.

    Args:
        known (`np.ndarray`): rows that compete: one a song, each of a known artist.
    Returns:
        `dict`: for each way the share of the first ten that are by the two artists, the mean cosine with the words,
        and how much of it is lost against the words alone, on average and at most.
    """
    names, pieces = np.array([creator_name(rows[place]) for place in known]), embeds[known]
    artists = [name for name in sorted({*names.tolist()}) if (names == name).sum() >= MIN_SONGS]
    if len(artists) < 2:
        raise ValueError(f"fewer than two artists have {MIN_SONGS} songs in this split; measure on another one.")
    background, queries = Background.of(pieces), embed_text(list(QUERIES))
    by_way = {"words": [], "words and taste": [], "no bound": []}
    for listener, pair in enumerate(combinations(artists, 2)):
        random = np.random.default_rng(seed + listener)
        liked = np.isin(names, pair)
        played = np.concatenate([random.permutation(np.flatnonzero(names == name))[::2] for name in pair])
        rest = np.setdiff1d(np.arange(len(pieces)), played)
        suits = Taste.learn(pieces[played], np.ones(len(played))).scores(pieces[rest], background)
        for query in queries:
            cosines = pieces[rest] @ query
            values = (cosines - cosines.mean()) / cosines.std()
            orders = {
                "words": np.argsort(-values, kind="stable"),
                "words and taste": blend(values, cosines, suits, TOP_K),
                "no bound": np.argsort(-(values + MAX_TASTE_WEIGHT * suits), kind="stable"),
            }
            for way, order in orders.items():
                best = order[:TOP_K]
                by_way[way].append((liked[rest][best].mean(), cosines[best].mean()))
    figures = {"listeners": listener + 1, "queries": len(QUERIES), "among": len(pieces), "bound": LOSS}
    plain = np.array(by_way["words"])[:, 1]
    for way, values in by_way.items():
        share, cosine = np.array(values).T
        lost = 1 - cosine / plain
        figures[way] = {
            "share by the two artists": round(float(share.mean()), 4),
            "mean cosine with the words": round(float(cosine.mean()), 4),
            "lost": round(float(1 - cosine.mean() / plain.mean()), 4),
            "lost at most": round(float(lost[plain > 0].max()), 4),
        }
    return figures


__all__ = ["measure_tastes"]
