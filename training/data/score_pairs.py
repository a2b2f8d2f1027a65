"""Printed scores and their performances as two views of the same music, cut at the same notes.

    python -m training.data.score_pairs SCORES CORPUS OUTPUT

aligns them once for several runs; a run whose `score_folder` is SCORES itself does so at its start.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from modeling_pianobind.index.note_alignment import NoteLine, match
from modeling_pianobind.notes_pianobind import PianoNotes, read_midi

from ..common.atomic_folder import atomic_folder
from .corpus import PackedCorpus

MIN_CONFIDENCE = 0.5  # of the alignment; a performance of another edition or with a part missing is left out
LISTED = "scores.jsonl"
READERS = 2  # scores read at once, each in a process of verovio's


@dataclass
class ScorePair:
    """A score and a performance of it.

    Attributes:
        score (`PianoNotes`): as its marks say.
        path (`np.ndarray` of shape `(steps, 2)`): seconds in the score and in the performance, in order.
    """

    score: PianoNotes
    path: np.ndarray

    def stretch(self, start_seconds: float, end_seconds: float) -> PianoNotes:
        """What the score has where the performance is between two times; nothing where the path does not go.

        Returns:
            `PianoNotes`: at the score's tempo, their onsets counted from the stretch's start.
        """
        first, second = self.path.T
        # `np.interp` needs times that grow: several segments may begin with one note.
        times, kept = np.unique(second, return_index=True)
        return self.score.crop(*np.interp([start_seconds, end_seconds], times, first[kept]))


def align_scores(folder: str | Path, corpora: list, split: str = "train") -> PackedCorpus:
    """Aligns the scores of a split with their performances.

    Args:
        folder (`str` or `Path`): with `scores.jsonl` (`score`, `performances`, `split`) and the scores.
        corpora (`list` of `PackedCorpus` or `DatasetCorpus`): whose rows have the performances' ids.
        split (`str`): scores of other splits are left out, and so are performances whose row is of another.
    Returns:
        `PackedCorpus`: the scores, with `paths` in their rows: by performance, those whose alignment is sure.
    Raises:
        ValueError: a score cannot be read, or none has a performance among the rows.
    """
    folder = Path(folder)
    places = {
        row["id"]: (corpus, place)
        for corpus in corpora
        for place, row in enumerate(corpus.rows)
        if row["split"] == split
    }
    listed = [json.loads(line) for line in (folder / LISTED).read_text(encoding="utf-8").splitlines()]
    listed = [row for row in listed if row["split"] == split and not places.keys().isdisjoint(row["performances"])]
    if not listed:
        raise ValueError(f"{folder / LISTED}: no score of split {split!r} has a performance in the corpus.")
    rows, scores = [], []
    with ThreadPoolExecutor(READERS) as readers:
        read = readers.map(read_midi, [folder / Path(row["score"]).name for row in listed])
        for row, score in zip(tqdm(listed, desc="aligning scores"), read, strict=True):
            printed, paths = NoteLine.of(score), {}
            for name in row["performances"]:
                corpus, place = places.get(name, (None, None))
                aligned = match(printed, NoteLine.of(corpus.notes(place))) if corpus is not None else None
                if aligned is not None and aligned.confidence >= MIN_CONFIDENCE:
                    paths[name] = np.round(aligned.path, 3).tolist()
            rows.append({"id": row["score"], "paths": paths})
            scores.append(score)
    return PackedCorpus.pack(rows, scores)


def open_score_pairs(folder: str | Path, corpora: list) -> dict[str, ScorePair]:
    """The pairs of a run's `score_folder`, by the row id of the performance.

    Args:
        folder (`str` or `Path`): what this module's command wrote, or what `align_scores` takes, which takes a second
            or two a score.
        corpora (`list`): as in `align_scores`.
    Raises:
        ValueError: as `align_scores`; or the folder holds neither.
    """
    folder = Path(folder)
    if PackedCorpus.is_folder(folder):
        scores = PackedCorpus.load(folder)
    elif (folder / LISTED).exists():
        scores = align_scores(folder, corpora)
    else:
        raise ValueError(f"{folder}: holds neither {LISTED} nor aligned scores; name another `score_folder`.")
    return {
        name: ScorePair(scores.notes(place), np.array(path))
        for place, row in enumerate(scores.rows)
        for name, path in row["paths"].items()
    }


def main() -> int:
    from .sources import open_corpus

    parser = argparse.ArgumentParser(prog="python -m training.data.score_pairs", description=__doc__.split("\n")[0])
    parser.add_argument("scores", type=Path, help=f"folder with {LISTED} and the scores")
    parser.add_argument("corpus", help="folder of training.data.corpus or training.build_dataset, or a Hub id")
    parser.add_argument("output", type=Path, help="folder that is written, a run's `score_folder`")
    given = parser.parse_args()
    try:
        scores = align_scores(given.scores, [open_corpus(given.corpus)])
        with atomic_folder(given.output) as partial:
            scores.save(partial)
    except (ValueError, OSError) as error:
        print(f"score_pairs: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    pairs = sum(len(row["paths"]) for row in scores.rows)
    print(f"{len(scores)} scores, {pairs} pairs of score and performance -> {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["ScorePair", "align_scores", "open_score_pairs"]
