"""Protocols on scores and duplicates, with an embedding that is a histogram of keys."""

import numpy as np
import pytest

from evaluation.bench import Bench, UnsuitableError
from evaluation.score_protocols import duplicates, score_performance
from evaluation.score_readers import line_of, right_notes
from evaluation.scores import Bootstrap
from modeling_pianobind.embedding_pianobind import unit_rows
from modeling_pianobind.index.alignment import Example
from modeling_pianobind.index.note_alignment import NoteLine
from training.data.corpus import PackedCorpus

from .test_duplicates import music, played


def examples(pieces) -> list[Example]:
    made = []
    for notes in pieces:
        keys = unit_rows(np.bincount(notes.pitch, minlength=128)[None])
        made.append(Example(keys[0], keys, np.array([[0.0, notes.seconds]]), notes))
    return made


@pytest.fixture
def bench(tmp_path):
    """Two performances and a fugue of one song, one of another, and others; the scores of both songs, and one more."""
    rows = [
        {"id": name, "song": song, "title": title, "source": "asap", "split": "valid"}
        for name, song, title in (
            ("a1", "a", "Prelude"), ("a2", "a", "prelude"), ("a3", "a", "Fugue"), ("b1", "b", "Waltz"),
            ("c1", "c", "x"),
        )
    ]  # fmt: skip
    pieces = [played(music(1), 1, 0.6), played(music(1), 2, 1.4), music(2), played(music(3), 3, 0.5), music(4)]
    listed = [
        {"score": f"{song}.xml", "song": song, "performances": names, "split": split, "listed": 4}
        for song, names, split in (("a", ["a1", "a2"], "valid"), ("b", ["b1"], "valid"), ("d", ["d1"], "train"))
    ]
    PackedCorpus.pack(listed, [music(1), music(3), music(5)]).save(tmp_path / "scores")
    return Bench(
        corpus=PackedCorpus.pack(rows, pieces),
        embed_text=None,
        embed_notes=None,
        audio_examples=None,
        note_examples=examples,
        sampling_rate=16_000,
        printed_scores=tmp_path / "scores",
        bootstrap=Bootstrap(0, 0),
    )


def test_scores_and_performances_find_each_other(bench):
    result = score_performance(bench)
    scores = {name: value["recall@1"] for name, value in result["scores"].items()}
    assert scores.pop("performance_to_performance_by_like") == pytest.approx(2 / 3), "the fugue finds no prelude"
    assert scores == dict.fromkeys(scores, 1.0) and len(scores) == 4
    assert result["settings"] == {
        "scores": 3, "unread_scores": 1, "queried_scores": 2, "queried_performances": 3, "pieces": 5
    }  # fmt: skip
    bench.printed_scores = None
    with pytest.raises(UnsuitableError, match="--scores"):
        score_performance(bench)


def test_duplicates_are_the_performances_of_one_song(bench):
    scores = duplicates(bench)["scores"]
    assert (scores["precision"], scores["recall"], scores["pairs"]) == (1.0, 1 / 3, 1)


def test_right_notes_are_those_that_score_and_performance_have_at_the_same_place():
    whole = music(6)
    score, performance = line_of(whole.onset * 0.1, whole.pitch), NoteLine.of(played(whole, 4, 1.3))
    shared, printed, count = right_notes(score, performance)
    assert count == len(whole) and shared / count > 0.9 and shared <= printed <= count
    wrong = line_of(whole.onset * 0.1, np.where(np.arange(len(whole)) % 10 == 0, 21, whole.pitch))
    assert right_notes(wrong, performance)[0] < shared - 20
    assert right_notes(NoteLine.of(None), performance) == (0, 0, count)
