"""Lexicon of search queries, each with the facts that it asks for.

`texts/lexicon.tsv.gz` has a line for each query: the query, the facts that hold for what it seeks, and the facts that
rule a piece out, separated by tabs; facts that stand in neither are open. Queries and facts were written by a language
model from general knowledge (scenes, occasions, weather, films, dances, forms, techniques, styles, eras, moods, wishes
such as "not too fast", typing errors), without sight of any piece: tier `generated`. The lists that it wrote were
joined, queries that differ in case or spaces alone were kept once, and the queries of `evaluation/free_queries.json`
were left out. A tenth, by the hash of the query, is held out of training; `evaluation` measures on it.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LEXICON = Path(__file__).parent / "texts" / "lexicon.tsv.gz"


@dataclass(frozen=True)
class Query:
    """A query, the facts that hold for what it seeks (`holds`) and those that rule a piece out (`excludes`)."""

    text: str
    holds: tuple[str, ...]
    excludes: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """Whether training must not see it."""
        return in_held_out_tenth(self.text)


def in_held_out_tenth(text: str) -> bool:
    """Whether the hash of a text falls into the tenth that is held out."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10 == 0


@lru_cache(maxsize=1)
def read_lexicon() -> list[Query]:
    """All queries, in the order of the file."""
    with gzip.open(LEXICON, "rt", encoding="utf-8") as lines:
        columns = [line.rstrip("\n").split("\t") for line in lines]
    return [Query(text, _facts(holds), _facts(excludes)) for text, holds, excludes in columns]


def _facts(column: str) -> tuple[str, ...]:
    return tuple(column.split(", ")) if column else ()


__all__ = ["Query", "in_held_out_tenth", "read_lexicon"]
