"""Which files of an index are the same piece: copies, other encodings, other performances, scores and performances."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..inputs_pianobind import EXTENSIONS
from .alignment import Example, alignment
from .embedding_index import EmbeddingIndex
from .note_alignment import MIN_NOTES, Match, NoteLine, confidences, match
from .search import top_pieces
from .table import IndexShard

# Among the 992 `valid` pieces no pair of different songs reaches 0.6; from 0.7 on pairs of one song are missed.
DEFAULT_CONFIDENCE = 0.6
CANDIDATES = 200  # pieces of the closest kind, with which each is compared
# Similarity of windows where a recording's notes are unknown; such a match never has full confidence.
WINDOWS_FROM, WINDOWS_SURE, MAX_BY_WINDOWS = 0.88, 0.98, 0.9
SAME_NOTES, STEADY = 0.985, 0.02  # of one performance in two encodings: likeness, and how far its tempo may wander
ARRANGED_SHARE = 0.8  # of the notes of the other; performances of one text differ by a tenth


@dataclass(frozen=True)
class Pair:
    """Two files that are the same piece.

    Attributes:
        first, second (`str`): paths; `first` is the earlier one.
        kind (`str`): "same file", "same performance", "score and performance", "two scores", "other performance", or
            "arrangement", where one has many more notes.
        confidence (`float`): 0 to 1.
        first_span, second_span (`tuple[float, float]` or None): what is the same in each, in seconds.
    """

    first: str
    second: str
    kind: str
    confidence: float
    first_span: tuple[float, float] | None = None
    second_span: tuple[float, float] | None = None


@dataclass
class Group:
    """Files that are the same piece, by `pairs` of them."""

    paths: list[str]
    pairs: list[Pair] = field(default_factory=list)


def find_duplicates(index: EmbeddingIndex, confidence: float = DEFAULT_CONFIDENCE) -> list[Group]:
    """Groups the files of an index that are the same piece; files of one stem are compared too.

    Args:
        index (`EmbeddingIndex`): of a folder.
        confidence (`float`): 0 to 1; pairs below it are left out.
    Returns:
        `list[Group]`: sorted by their first paths.
    """
    pairs = sorted(_pairs(index, confidence), key=lambda pair: (pair.first, pair.second))
    leader = {}

    def find(path):
        while leader.get(path, path) != path:
            path = leader[path]
        return path

    for pair in pairs:
        first, second = sorted((find(pair.first), find(pair.second)))
        leader[second] = leader[first] = first
    groups = {}
    for pair in pairs:
        group = groups.setdefault(find(pair.first), Group([]))
        group.pairs.append(pair)
        group.paths = sorted({*group.paths, pair.first, pair.second})
    return [groups[path] for path in sorted(groups)]


def _pairs(index: EmbeddingIndex, min_confidence: float) -> Iterator[Pair]:
    table = index.file_table
    if not len(table.paths):
        return
    # Every file is a piece of its own here, so that a score and a performance of one stem are a pair too.
    shard = IndexShard(table, table.embeds, np.arange(len(table.paths)))
    examples = [shard.example(row) for row in range(len(shard))]
    lines = [example.notes for example in examples]
    hashes = list(table.hashes)
    seen = set()
    for row, example in enumerate(examples):
        close, _ = top_pieces(shard, np.asarray(table.embeds[row : row + 1]), min(CANDIDATES, len(shard)))[0]
        twins = {other for other, digest in enumerate(hashes) if digest and digest == hashes[row]}
        others = sorted({*close.tolist(), *twins} - {row})
        others = [other for other in others if (min(row, other), max(row, other)) not in seen]
        seen |= {(min(row, other), max(row, other)) for other in others}
        sure = sameness(example, [examples[other] for other in others])
        for other, likely in zip(others, sure.tolist(), strict=True):
            rows = sorted((row, other), key=lambda place: table.paths[place])
            names = [table.paths[place] for place in rows]
            if hashes[row] and hashes[row] == hashes[other]:
                yield Pair(*names, "same file", 1.0)
                continue
            if likely < min_confidence:
                continue
            both = min(len(lines[row]), len(lines[other])) >= MIN_NOTES
            aligned = match(*(lines[place] for place in rows)) if both else None
            spans = (aligned.first_span, aligned.second_span) if aligned else ()
            yield Pair(*names, _kind(names, aligned, [lines[place] for place in rows]), round(likely, 4), *spans)


def sameness(example: Example, others: Sequence[Example]) -> np.ndarray:
    """Confidence that other files, in any form, are the same piece as an example: `(others,)`, 0 to 1.

    Notes decide where both sides have enough of them, else the windows.
    """
    line, lines = NoteLine.of(example.notes), [NoteLine.of(other.notes) for other in others]
    by_notes = confidences(line, lines)
    return np.array(
        [
            float(sure) if min(len(line), len(notes)) >= MIN_NOTES else _by_windows(example, other)
            for sure, notes, other in zip(by_notes, lines, others, strict=True)
        ]
    )


def _by_windows(first: Example, second: Example) -> float:
    if not len(first.windows) or not len(second.windows):
        return 0.0
    likeness = min(alignment(first, second), alignment(second, first))
    share = (likeness - WINDOWS_FROM) / (WINDOWS_SURE - WINDOWS_FROM)
    return MAX_BY_WINDOWS * float(np.clip(share, 0.0, 1.0))


def _kind(names: list[str], aligned: Match | None, lines: list[NoteLine]) -> str:
    scores = sum(EXTENSIONS.get("." + name.rpartition(".")[2].lower()) == "score" for name in names)
    if scores:
        return "two scores" if scores == 2 else "score and performance"
    if aligned is None:
        return "same performance"
    if aligned.likeness > SAME_NOTES and len(aligned.path) > 2:
        first, second = aligned.path.T
        steady = np.polyval(np.polyfit(first, second, 1), first)
        wander = np.abs(second - steady).max() / max(float(np.ptp(second)), 1e-9)
        if wander < STEADY:
            return "same performance"
    spans = zip(lines, (aligned.first_span, aligned.second_span), strict=True)
    counts = [np.ptp(np.searchsorted(line.onset, span)) for line, span in spans]
    return "arrangement" if min(counts) < ARRANGED_SHARE * max(counts) else "other performance"


__all__ = ["DEFAULT_CONFIDENCE", "Group", "Pair", "find_duplicates", "sameness"]
