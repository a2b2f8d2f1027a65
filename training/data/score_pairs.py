"""Printed scores and their performances as two views of the same music, cut at the same notes."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeling_pianobind.index.note_alignment import NoteLine, match
from modeling_pianobind.notes_pianobind import PianoNotes, read_midi

from .corpus import PackedCorpus

MIN_CONFIDENCE = 0.5  # of the alignment; a performance of another edition or with a part missing is left out
MIN_NOTES = 8  # of a view


@dataclass
class ScorePair:
    """A score and a performance of it, with their times beside each other.

    Attributes:
        place (`int`): row of the performance in the corpus.
        score (`PianoNotes`): as its marks say.
        path (`np.ndarray` of shape `(steps, 2)`): seconds in the score and in the performance, in order.
    """

    place: int
    score: PianoNotes
    path: np.ndarray

    def views(self, performance: PianoNotes, start_seconds: float, seconds: float) -> tuple[PianoNotes, PianoNotes]:
        """What is played in a stretch, and what the score has there.

        Args:
            performance (`PianoNotes`): the notes of row `place`.
            start_seconds, seconds (`float`): in the performance.
        Returns:
            Both, their onsets counted from the stretch's start; either may be empty where the path does not go.
        """
        first, second = self.path.T
        # `np.interp` needs times that grow: several segments may begin with one note.
        times, kept = np.unique(second, return_index=True)
        ends = np.interp([start_seconds, start_seconds + seconds], times, first[kept])
        return performance.crop(start_seconds, start_seconds + seconds), self.score.crop(*ends)


def score_pairs(folder: str | Path, corpus: PackedCorpus, split: str = "train") -> list[ScorePair]:
    """Aligns the scores of a split with their performances in a corpus.

    Args:
        folder (`str` or `Path`): with `scores.jsonl` (`score`, `performances`, `split`) and the scores.
        corpus (`PackedCorpus`): whose rows have the performances' ids.
        split (`str`): scores of other splits are left out, and so are performances whose row is of another.
    Returns:
        `list[ScorePair]`: those whose alignment is sure; seconds a score, so keep them for a run.
    """
    folder, places, pairs = Path(folder), {row["id"]: place for place, row in enumerate(corpus.rows)}, []
    for line in (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        known = [places[name] for name in row["performances"] if name in places]
        known = [place for place in known if corpus.rows[place]["split"] == split]
        if row["split"] != split or not known:
            continue
        score = read_midi(folder / Path(row["score"]).name)
        printed = NoteLine.of(score)
        for place in known:
            aligned = match(printed, NoteLine.of(corpus.notes(place)))
            if aligned is not None and aligned.confidence >= MIN_CONFIDENCE:
                pairs.append(ScorePair(place, score, aligned.path))
    return pairs


def score_views(
    pairs: list[ScorePair], corpus: PackedCorpus, window_seconds: float, seed: int = 0
) -> Iterator[tuple[int, PianoNotes, PianoNotes]]:
    """Yields stretches without end: the row of a performance, what is played, and what the score has there.

    Args:
        window_seconds (`float`): length in the performance; the score's may be shorter or longer.
        seed (`int`): decides the order and the places.
    """
    source = random.Random(seed)
    while pairs:
        pair = source.choice(pairs)
        low, high = pair.path[0, 1], max(pair.path[0, 1], pair.path[-1, 1] - window_seconds)
        played, printed = pair.views(corpus.notes(pair.place), source.uniform(low, high), window_seconds)
        if min(len(played), len(printed)) >= MIN_NOTES:
            yield pair.place, played, printed


__all__ = ["ScorePair", "score_pairs", "score_views"]
