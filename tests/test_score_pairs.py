"""Scores and performances as two views of the same music."""

import json

import numpy as np
import pytest

from modeling_pianobind.notes_pianobind import read_midi
from training.data import score_pairs
from training.data.corpus import PackedCorpus
from training.data.dataset import PRINTED_SHARE, WindowSampler
from training.data.score_pairs import align_scores, open_score_pairs
from training.data.sources import TrainingCorpus

from .corpus_files import run
from .test_duplicates import music, played
from .test_scores import ATTRIBUTES, musicxml
from .test_training_parts import ROWS

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


def white_keys(seed):
    notes = music(seed)
    notes.pitch = notes.pitch - np.isin(notes.pitch % 12, [1, 3, 6, 8, 10])
    return notes


@pytest.fixture
def folders(tmp_path):
    """A score, and a corpus of: its performance, that of the `valid` split, and one that is another piece."""
    notes = white_keys(7)
    rows = [ROWS[0] | {"id": name, "split": split} for name, split in (("a", "train"), ("b", "valid"), ("c", "train"))]
    own = played(notes, 1, 0.5)
    corpus = PackedCorpus.pack(rows, [own, own, music(9)])
    corpus.save(tmp_path / "packed")
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "one.musicxml").write_text(printed(notes))
    line = {"score": "x/one.musicxml", "performances": ["a", "b", "c"], "split": "train"}
    lines = [line, line | {"split": "valid"}, line | {"performances": ["unknown"]}]
    (tmp_path / "scores" / "scores.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "scores", tmp_path / "packed"


def shared_keys(first, second) -> float:
    """How much of the notes of the larger of two lists of keys the other has too."""
    both = np.minimum(np.bincount(first, minlength=128), np.bincount(second, minlength=128)).sum()
    return both / max(len(first), len(second))


def test_a_pair_has_the_same_notes_at_the_same_place(folders):
    corpus = PackedCorpus.load(folders[1])
    pairs = open_score_pairs(folders[0], [corpus])
    assert pairs.keys() == {"a"}, "neither the valid row nor the one that is another piece"
    for start in (0.0, 20.0, 90.0):
        played, read = corpus.notes(0).crop(start, start + 15.0), pairs["a"].stretch(start, start + 15.0)
        assert len(played) > 20 and shared_keys(played.pitch, read.pitch) > 0.7
        assert 0 <= read.onset[0] < 1.0
    assert not len(pairs["a"].stretch(1000.0, 1020.0))


def test_what_the_command_wrote_is_read_as_the_scores_are(folders, tmp_path, monkeypatch, capsys):
    command = ["score_pairs", str(folders[0]), str(folders[1]), str(tmp_path / "aligned")]
    monkeypatch.setattr("sys.argv", command)
    assert score_pairs.main() == 0
    assert capsys.readouterr().out.startswith("1 scores, 1 pairs of score and performance")
    pair = open_score_pairs(tmp_path / "aligned", [])["a"]
    other = open_score_pairs(folders[0], [PackedCorpus.load(folders[1])])["a"]
    assert np.array_equal(pair.path, other.path) and np.array_equal(pair.score.onset, other.score.onset)
    command[1] = str(tmp_path / "packed")
    assert score_pairs.main() == 2 and "scores.jsonl" in capsys.readouterr().err


def test_half_of_the_second_views_of_a_performance_are_printed_ones_in_the_windows_key(folders, tiny_processor):
    corpus = TrainingCorpus.open(str(folders[1]))
    pairs = open_score_pairs(folders[0], [part.corpus for part in corpus.parts])
    options = {"corpus": corpus, "processor": tiny_processor, "view_share": 1.0, "seed": 4}
    sampler, without = WindowSampler(score_pairs=pairs, **options), WindowSampler(**options)
    seen, keys = [], set()
    for number in range(60):
        example, other = sampler[number], without[number]
        assert np.array_equal(example["rows"], other["rows"]), "the window itself stays as it is"
        if example["id"] == "c":
            assert example["caption"] == other["caption"] and np.array_equal(example["view"], other["view"])
            continue
        even = len(np.unique(example["view"][1:, 1])) == 1  # the score has eighths alone
        seen.append(even)
        if even:
            assert shared_keys(example["view"][:, 0], example["rows"][:, 0]) > 0.55
            keys.add(frozenset((example["rows"][:, 0] % 12).tolist()))
    assert abs(np.mean(seen) - PRINTED_SHARE) < 0.25
    assert len(keys) > 2, "windows and views are transposed together"


def test_a_data_set_is_built_from_scores_too(tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "one.musicxml").write_text(printed(white_keys(7)))
    status, rows, refused = run(tmp_path, [{"path": str(tmp_path / "music"), "licence": "CC0"}], window_seconds=20.0)
    assert (status, refused) == (0, {}) and len(rows) > 3
    assert sum(len(read_midi(row["midi"])) for row in rows) > 200


def test_a_folder_without_pairs_is_refused(folders):
    corpus = PackedCorpus.load(folders[1])
    with pytest.raises(ValueError, match=r"scores\.jsonl: no score of split 'test'"):
        align_scores(folders[0], [corpus], "test")
    with pytest.raises(ValueError, match=r"neither scores\.jsonl nor aligned scores"):
        open_score_pairs(folders[0].parent, [corpus])
