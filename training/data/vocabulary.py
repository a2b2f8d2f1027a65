"""All facts that captions may claim, numbered."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from .descriptors import KEY_NAMES, THRESHOLDS
from .facts import creator_name, label_facts
from .works import work_facts

MIN_PIECES_OF_CREATOR = 8


class FactVocabulary:
    """The facts of a corpus.

    Attributes:
        facts (`list[str]`): all of them, sorted; `encode` gives their numbers.
        creators (`set[str]`): the names of people among them.
        is_label (`np.ndarray` of shape `(facts,)`): whether labels state a fact, not the notes of a window.
        own_tags (`dict[str, set[str]]`): tags of each source that are in no table here. A tag that its corpus gives to
            some rows is taken not to hold for the tagged rows that lack it.
    """

    def __init__(self, rows: list[dict]):
        counts = Counter(filter(None, map(creator_name, rows)))
        self.creators = {name for name, count in counts.items() if count >= MIN_PIECES_OF_CREATOR}
        labels = [label_facts(row, self.creators) for row in rows]
        facts = set().union(*(true | false for true, false in labels)) | set(THRESHOLDS) | {"difficult"}
        facts |= {f"{name} {mode}" for name in KEY_NAMES for mode in ("major", "minor")}
        self.own_tags = {}
        for row in rows:
            self.own_tags.setdefault(row["source"], set()).update(set(row.get("tags", ())) - facts)
        self.facts = sorted(facts.union(*self.own_tags.values()))
        self.number = {fact: number for number, fact in enumerate(self.facts)}
        measured = set(THRESHOLDS) | {f"{name} {mode}" for name in KEY_NAMES for mode in ("major", "minor")}
        self.is_label = np.array([fact not in measured for fact in self.facts])

    def labels(self, row: dict) -> tuple[set[str], set[str]]:
        """The facts that a row's labels and tags say hold, and those that do not."""
        true, false = label_facts(row, self.creators)
        tags = {tag for tag in row.get("tags", ()) if tag in self.number} - {"neutral"}
        if tags:
            false = false | self.own_tags.get(row["source"], set())
        return (true | tags) & self.number.keys(), (false - true - tags) & self.number.keys()

    def generated(self, row: dict) -> set[str]:
        """The facts that are known of a row's work from elsewhere (`training.data.works`), and from no label of it."""
        return work_facts(row["work"][0]) & self.number.keys() if "work" in row else set()

    def encode(self, facts: Iterable[str]) -> np.ndarray:
        """Set of facts -> `(facts,)` of 0 and 1."""
        encoded = np.zeros(len(self.facts), np.float32)
        encoded[[self.number[fact] for fact in facts]] = 1
        return encoded


__all__ = ["FactVocabulary"]
