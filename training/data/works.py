"""Captions and tags of known works, written from general knowledge of them and not from the files: tier `generated`.

`texts/works.tsv.gz` has a line for each work: row id, tags, and two captions, separated by tabs. They were written by
a language model that saw title, creator and genre alone; works of `valid` have none. Losses keep them apart from
human labels, and a figure that is measured on them says so.
"""

import gzip
from functools import lru_cache
from pathlib import Path

from .facts import FORMS, GENRES, MOOD_QUADRANT, OPEN_MOODS

HELD_OUT_OF = 10
WORKS = Path(__file__).parent / "texts" / "works.tsv.gz"
# tags as they are written -> facts that they state
FACTS_OF_TAG = {
    "rag": "ragtime", "rags": "ragtime", "classic rag": "ragtime", "anime opening": "anime", "anime ending": "anime",
    "video game": "game", "game music": "game", "jrpg": "game", "new age": "new-age", "k-pop": "k-pop",
    "chinese pop": "mandopop", "pop ballad": "ballad", "rock ballad": "rock", "pop rock": "rock", "film song": "film",
    "film score": "film", "easy piano": "easy", "virtuosic": "difficult", "melancholy": "melancholic",
    "joyful": "happy", "serene": "peaceful", "gentle": "gentle", "tender": "gentle", "solemn": "dark",
    "wistful": "melancholic", "dramatic": "intense", "heroic": "powerful", "lively": "energetic", "sorrowful": "sad",
    "swing": "swing", "hymn": "hymn", "carol": "christmas", "boogie-woogie": "boogie", "children's song": "children",
    "nursery rhyme": "children", "fast": "fast", "slow": "slow", "stride piano": "jazz", "bebop": "jazz",
    "minuet": "minuet", "study": "etude", "jazz standard": "jazz", "carefree": "happy", "ominous": "tense",
    "eerie": "eerie", "spooky": "eerie", "furious": "angry", "impressionist": "impressionist", "baroque": "baroque",
}  # fmt: skip
OWN_NAMES = set(FORMS) | set(GENRES) | set(MOOD_QUADRANT) | OPEN_MOODS


@lru_cache(maxsize=1)
def known_works() -> dict[str, tuple[list[str], list[str]]]:
    """Row id -> tags and captions of the work."""
    with gzip.open(WORKS, "rt") as lines:
        columns = [line.rstrip("\n").split("\t") for line in lines]
    return {row_id: (tags.split(", "), captions) for row_id, tags, *captions in columns}


def work_facts(tags: list[str]) -> set[str]:
    """The facts that tags of a work state."""
    facts = {FACTS_OF_TAG.get(tag, tag) for tag in tags}
    facts |= {form for form in FORMS if any(form in tag.split() for tag in tags)}
    return facts & (OWN_NAMES | set(FACTS_OF_TAG.values()))


def is_held_out(song: str) -> bool:
    """Whether a song's captions are kept for measuring: one of ten."""
    return int(song, 16) % HELD_OUT_OF == 0


def add_works(rows: list[dict]) -> None:
    """Gives each `train` row of a known work, or of another version of its song, `work`: tags and captions.

    Songs that are held out get none.
    """
    works = known_works()
    of_song = {row["song"]: works[row["id"]] for row in rows if row["id"] in works and row.get("song")}
    measured = {row.get("song") for row in rows if row["split"] != "train"}
    for row in rows:
        song = row.get("song")
        if row["split"] != "train" or not song or song in measured or is_held_out(song):
            continue
        if work := works.get(row["id"]) or of_song.get(song):
            row["work"] = work


__all__ = ["add_works", "is_held_out", "known_works", "work_facts"]
