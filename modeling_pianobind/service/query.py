"""Parses a query into wanted and unwanted words, and embeds it."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# "no. 2" and "no 2" count pieces; "not only" denies nothing.
NEGATION = re.compile(
    r"(?:\b(?:but|and)\s+)?(?:\b(?:not(?!\s+only\b)|no(?!\.|\s*\d|\w)|without|never|except|isn['\u2019]?t|nothing|avoid)\b"
    r"(?:\s+(?:too|very|so|any|a|an|the|be|being|at\s+all)\b)*"
    r"|(?:^|(?<=[\s,]))-(?=[a-z])|\bnon-)",
    re.IGNORECASE,
)
END = re.compile(r"[,;.!?]|\b(?:but|yet|though|with|rather|just)\b|" + NEGATION.pattern, re.IGNORECASE)
ALTERNATIVES = re.compile(r"\s+(?:or|nor|and)\s+|\s*/\s*", re.IGNORECASE)
EDGES = " ,;.!?"


@dataclass(frozen=True)
class Query:
    """A parsed query.

    Attributes:
        wanted (`str`): the words outside any negation; "" where there are none.
        unwanted (`tuple[str, ...]`): what was negated: ("sad", "slow") of "not sad, not slow".
    """

    wanted: str
    unwanted: tuple[str, ...] = ()


def parse_query(text: str) -> Query:
    """Splits a query into wanted and unwanted words; a query without negation stays unchanged."""
    wanted, unwanted, at = [], [], 0
    while (negation := NEGATION.search(text, at)) is not None:
        end = END.search(text, negation.end())
        stop = end.start() if end else len(text)
        denied = [part.strip(EDGES) for part in ALTERNATIVES.split(text[negation.end() : stop])]
        denied = [part for part in denied if part]
        wanted.append(text[at : negation.start() if denied else negation.end()])
        unwanted += denied
        at = max(stop, negation.end())
    if not unwanted:
        return Query(text)
    wanted.append(text[at:])
    parts = (re.sub(r"^(?:but|and|yet)\b|\b(?:but|and)$", "", part.strip(EDGES), flags=re.I) for part in wanted)
    return Query(", ".join(part.strip(EDGES) for part in parts if part.strip(EDGES)), tuple(unwanted))


def embed_query(embed_text: Callable[[list[str]], np.ndarray], query: Query) -> np.ndarray:
    """Embedding of a query: `(dim,)`, unit length.

    Unwanted words are subtracted with the weight of the wanted ones.
    """
    texts = [*([query.wanted] if query.wanted else []), *query.unwanted]
    embeds = np.asarray(embed_text(texts))
    if not query.unwanted:
        return embeds[0]
    against = embeds[-len(query.unwanted) :].mean(axis=0)
    direction = (embeds[0] if query.wanted else 0) - against / max(np.linalg.norm(against), 1e-12)
    length = np.linalg.norm(direction)
    return (direction / length if length > 1e-6 else -against / np.linalg.norm(against)).astype(np.float32)


def unknown_words(query: Query, count_tokens: Callable[[str], int]) -> list[str]:
    """Words that the tokenizer splits into pieces, or that have letters other than English ones.

    Args:
        count_tokens: gives the number of tokens of a word, without special ones.
    """
    words = re.findall(r"[^\W\d_]+", " ".join((query.wanted, *query.unwanted)))
    return [word for word in words if any(letter > "ʯ" for letter in word) or count_tokens(word) > 2]


__all__ = ["Query", "embed_query", "parse_query", "unknown_words"]
