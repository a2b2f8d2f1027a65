"""Labels of valence, arousal and difficulty from the rows of a corpus."""

import re

import numpy as np

from .works import known_works

SOURCES = ("emopia", "vgmidi", "music_seeds", "everyonepiano")  # the best first: two of listeners, words, weak prose
# mood words -> valence and arousal: 1 high, 0 low, None neither
MOODS = {
    "happy": (1, 1), "energetic": (1, 1), "cheerful": (1, 1), "playful": (1, 1), "cute": (1, None),
    "uplifting": (1, None), "sad": (0, None), "melancholic": (0, 0), "lonely": (0, 0), "dark": (0, None),
    "eerie": (0, None), "tense": (0, 1), "intense": (None, 1), "epic": (None, 1), "passionate": (None, 1),
    "calm": (None, 0), "gentle": (None, 0), "dreamy": (None, 0), "healing": (1, 0), "lyrical": (None, 0),
}  # fmt: skip
EASY = re.compile(r"简单版|简易版|easy (?:version|piano)|初学|儿童版", re.IGNORECASE)  # titles of easy versions
HARD_TAGS = {"virtuosic"}


def emotion_of(row: dict) -> tuple[float, float]:
    """Valence and arousal of a row: 1 high, 0 low, NaN unknown or where its words contradict each other.

    Listeners' quadrants come before words.
    """
    if quadrant := row.get("emotion_quadrant"):
        return float(quadrant in (1, 4)), float(quadrant in (1, 2))
    ratings = []
    for place in (0, 1):
        said = {MOODS[word][place] for word in row.get("mood") or () if word in MOODS} - {None}
        ratings.append(float(said.pop()) if len(said) == 1 else np.nan)
    return tuple(ratings)


def is_easy(row: dict) -> bool:
    """Whether a row's title says that it is an easy version."""
    return bool(EASY.search(row.get("title") or ""))


def is_hard(row: dict) -> bool:
    """Whether a generated tag of the work says so; tier `generated`."""
    return bool(HARD_TAGS & set(known_works().get(row["id"], ((), ()))[0]))


__all__ = ["SOURCES", "emotion_of", "is_easy", "is_hard"]
