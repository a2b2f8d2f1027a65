"""Playlists: pieces that continue some examples along a path of moods, with smooth steps from each to the next."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .alignment import Example
from .duplicates import DEFAULT_CONFIDENCE, sameness
from .embedding_index import EmbeddingIndex
from .feedback import Background
from .filters import piece_facts

POOL, PATH_STOPS = 60, 5  # candidates at each of some places along the path
BEAM = 8  # unfinished playlists that are kept
# Values are in standard deviations of the corpus.
PATH_WEIGHT = 1.0
SOUND_STEP, TEMPO_STEP, KEY_STEP = 2.0, 0.7, 0.7  # the worst step by each costs so much
UNKNOWN_STEP = 0.5  # of the worst, where tempo or key are not known
SPARE = 0.02  # of the length, by which a playlist may be longer than asked for
SAMPLE = 2_000  # pieces that the statistics of the corpus are estimated from


@dataclass(frozen=True)
class Track:
    """A piece of a playlist.

    Attributes:
        path (`str`): its file.
        seconds (`float`): its length.
        tempo (`float`): beats a minute; nan where it is not known.
        key (`float`): as in `FileFacts`; nan where it is not known.
        score (`float`): how much it is like the examples, in standard deviations of the corpus; 0 without examples.
    """

    path: str
    seconds: float
    tempo: float
    key: float
    score: float


def continuation(embeds: np.ndarray, likes: np.ndarray, background: Background) -> np.ndarray:
    """How well pieces continue a set of examples, `(pieces,)`, in standard deviations over these pieces.

    The score is the mean similarity to the examples after whitening by the background.

    Args:
        embeds (`np.ndarray` of shape `(pieces, dim)`), likes (`np.ndarray` of shape `(n, dim)`): unit rows; at least
            one example.
    """
    likeness = background.directions(embeds) @ background.directions(likes).mean(axis=0)
    return (likeness - likeness.mean()) / max(float(likeness.std()), 1e-9)


def make_playlist(
    index: EmbeddingIndex,
    likes: Sequence[Example],
    seconds: float,
    start: np.ndarray | None = None,
    end: np.ndarray | None = None,
) -> list[Track]:
    """Chooses and orders pieces.

    The examples themselves, and other versions of them or of a piece that is chosen, are left out.

    Args:
        index (`EmbeddingIndex`): the corpus.
        likes (`list[Example]`): examples that the pieces should continue; may be empty if there is a path.
        seconds (`float`): length of the playlist, above 0; it is shorter where no further piece fits in.
        start, end (`np.ndarray` of shape `(dim,)`, *optional*): words that the playlist begins and ends with.
    Raises:
        ValueError: there is neither an example nor a path, or no piece is short enough.
    """
    if not likes and start is None and end is None:
        raise ValueError("there is nothing to go by; give an example, or where the path begins or ends.")
    facts = _facts(index)
    background = Background.of(index.embeddings[:: max(1, len(index) // SAMPLE)])
    embeds = np.asarray(index.embeddings, np.float64)
    score = np.zeros(len(index))
    if likes:
        score = continuation(embeds, np.stack([like.embedding for like in likes]), background)
    ends = [np.zeros(len(index)) if words is None else _standard(embeds, words, background) for words in (start, end)]
    short = np.flatnonzero(facts[:, 0] <= seconds * (1 + SPARE))
    pool = _pool(score, ends, short)
    banned = _same(index, likes, pool)
    pool = [piece for piece in pool if piece not in banned]
    while pool:
        steps = _steps(background.directions(embeds[pool]), facts[pool])
        best = _best(score[pool], [way[pool] for way in ends], facts[pool, 0], steps, seconds)
        chosen = [pool[number] for number in best]
        versions = _versions(index, chosen)
        if not versions:
            return [Track(index.path(piece), *map(float, facts[piece, :3]), float(score[piece])) for piece in chosen]
        pool = [piece for piece in pool if piece not in versions]
    raise ValueError(f"no other piece is shorter than {seconds / 60:g} minutes; make it longer, or give more music.")


def _facts(index: EmbeddingIndex) -> np.ndarray:
    """Seconds, tempo and key of each piece, `(pieces, 3)`; the length by the windows where nothing else is known."""
    by_shard = []
    for shard in index.shards:
        if not len(shard):
            continue
        facts = piece_facts(shard)[0][:, :3].copy()
        for piece in np.flatnonzero(np.isnan(facts[:, 0])):
            spans = shard.table.windows_of(shard.named_by[piece])[1]
            facts[piece, 0] = spans.max() if len(spans) else math.inf
        by_shard.append(facts)
    return np.concatenate(by_shard or [np.zeros((0, 3))])


def _standard(embeds: np.ndarray, words: np.ndarray, background: Background) -> np.ndarray:
    words = np.asarray(words, np.float64)
    return (embeds - background.mean) @ words / background.deviation(words)


def _pool(score: np.ndarray, ends: list[np.ndarray], usable: np.ndarray) -> list[int]:
    """The most valuable pieces at some places along the path, and so along all of it."""
    chosen = set()
    for share in np.linspace(0, 1, PATH_STOPS):
        value = (score + PATH_WEIGHT * ((1 - share) * ends[0] + share * ends[1]))[usable]
        chosen |= set(usable[np.argsort(-value, kind="stable")[:POOL]].tolist())
    return sorted(chosen)


def _same(index: EmbeddingIndex, likes: Sequence[Example], pool: list[int]) -> set[int]:
    """Pieces of the pool that are one of the examples in some form."""
    examples = [index.example(piece) for piece in pool]
    sure = [sameness(like, examples) >= DEFAULT_CONFIDENCE for like in likes]
    return {piece for same in sure for piece, is_same in zip(pool, same, strict=True) if is_same}


def _versions(index: EmbeddingIndex, chosen: list[int]) -> set[int]:
    """Chosen pieces that are the same piece as one before them."""
    versions, examples = set(), [index.example(piece) for piece in chosen]
    for number, example in enumerate(examples[:-1]):
        later = sameness(example, examples[number + 1 :]) >= DEFAULT_CONFIDENCE
        versions |= {piece for piece, same in zip(chosen[number + 1 :], later, strict=True) if same}
    return versions


def _steps(directions: np.ndarray, facts: np.ndarray) -> np.ndarray:
    """What a step from each piece to each other costs, `(pieces, pieces)`.

    Args:
        directions (`np.ndarray` of shape `(pieces, dim)`): as `Background.directions` gives them.
        facts (`np.ndarray` of shape `(pieces, 3)`): seconds, tempo, key.
    """
    sound = (1 - directions @ directions.T) / 2
    tempo, fifths = facts[:, 1], key_place(facts[:, 2])
    octaves = np.abs(np.log2(tempo[:, None] / tempo))
    apart = np.abs(fifths[:, None] - fifths) % 12
    costs = (
        (SOUND_STEP, sound),
        (TEMPO_STEP, 2 * np.abs(octaves - np.rint(octaves))),  # half and double time are felt as one
        (KEY_STEP, np.minimum(apart, 12 - apart) / 6),
    )
    return sum(weight * np.where(np.isnan(cost), UNKNOWN_STEP, cost) for weight, cost in costs)


def key_place(key: np.ndarray) -> np.ndarray:
    """Places of keys on the circle of fifths, 0 to 11 from C major; a minor key has that of its relative major."""
    tonic = np.where(key < 12, key, key - 12 + 3)
    return (7 * tonic) % 12


def _best(
    score: np.ndarray, ends: list[np.ndarray], lengths: np.ndarray, steps: np.ndarray, seconds: float
) -> list[int]:
    """The best playlist by a beam search: places in the pool.

    The value of a piece is its `score`, plus its similarity to the path at its place, less the cost of the step to it.
    """
    beam, done = [(0.0, 0.0, [])], []
    while beam:
        longer = []
        for value, elapsed, chosen in beam:
            fits = np.setdiff1d(np.flatnonzero(elapsed + lengths <= seconds * (1 + SPARE)), chosen)
            if not len(fits):
                done.append((value / max(len(chosen), 1), elapsed, chosen))
                continue
            share = min(elapsed / seconds, 1.0)
            gain = score[fits] + PATH_WEIGHT * ((1 - share) * ends[0][fits] + share * ends[1][fits])
            gain = gain - (steps[chosen[-1], fits] if chosen else 0)
            for number in np.argsort(-gain, kind="stable")[:BEAM]:
                piece = int(fits[number])
                longer.append((value + float(gain[number]), elapsed + float(lengths[piece]), [*chosen, piece]))
        beam = sorted(longer, key=lambda state: -state[0])[:BEAM]
    full = [state for state in done if state[1] >= max(other[1] for other in done) - SPARE * seconds]
    return max(full, key=lambda state: state[0])[2]


__all__ = ["Track", "continuation", "key_place", "make_playlist"]
