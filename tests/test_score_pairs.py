"""Scores and performances as two views of the same music."""

import itertools
import json

import numpy as np
import pytest

from training.data.corpus import PackedCorpus
from training.data.score_pairs import score_pairs, score_views

from .test_duplicates import music, played
from .test_scores import ATTRIBUTES, musicxml

pytest.importorskip("verovio")
STEPS = {0: "C", 2: "D", 4: "E", 5: "F", 7: "G", 9: "A", 11: "B"}


def printed(notes) -> str:
    """A score of eighths with the white keys of some notes."""
    measures = []
    for number, start in enumerate(range(0, len(notes), 4)):
        keys = [
            f"<note><pitch><step>{STEPS[pitch % 12]}</step><octave>{pitch // 12 - 1}</octave></pitch>"
            f"<duration>1</duration><voice>1</voice><type>eighth</type></note>"
            for pitch in notes.pitch[start : start + 4].tolist()
        ]
        measures.append(f'<measure number="{number + 1}">{ATTRIBUTES if not number else ""}{"".join(keys)}</measure>')
    return musicxml("".join(measures))


def test_views_of_a_pair_hold_the_same_notes(tmp_path):
    notes = music(7)
    notes.pitch = notes.pitch - np.isin(notes.pitch % 12, [1, 3, 6, 8, 10])
    own, other = played(notes, 1, 0.5), music(9)
    rows = [{"id": name, "split": split} for name, split in (("a", "train"), ("b", "valid"), ("c", "train"))]
    corpus = PackedCorpus.pack(rows, [own, own, other])
    (tmp_path / "one.musicxml").write_text(printed(notes))
    line = {"score": "x/one.musicxml", "performances": ["a", "b", "c"], "split": "train"}
    (tmp_path / "scores.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(line | {"split": "valid"}))
    (pair,) = score_pairs(tmp_path, corpus)  # neither the valid row nor the one that is another piece
    assert pair.place == 0
    views = list(itertools.islice(score_views([pair], corpus, 20.0, seed=3), 6))
    for place, heard, read in views:
        assert place == 0
        shared = sum((np.bincount(heard.pitch, minlength=128) & 0xFF) != 0)
        both = np.minimum(np.bincount(heard.pitch, minlength=128), np.bincount(read.pitch, minlength=128)).sum()
        assert shared and both > 0.7 * max(len(heard), len(read))
    again = list(itertools.islice(score_views([pair], corpus, 20.0, seed=3), 6))
    assert all((a[1].onset == b[1].onset).all() for a, b in zip(views, again, strict=True))
