"""Search by an example: windows one by one, in their order."""

import numpy as np
import pytest

from modeling_pianobind import EmbeddingIndex
from modeling_pianobind.index.alignment import UNMATCHED_SHARE, Example, alignment
from modeling_pianobind.index.table import FileTable


def spans(count):
    return np.arange(count)[:, None] * 10.0 + [0.0, 20.0]


def example(*rows):
    """Of windows that are unit vectors along an axis."""
    windows = np.eye(8, dtype=np.float32)[list(rows)]
    mean = windows.mean(0)
    return Example(mean / np.linalg.norm(mean), windows, spans(len(rows)))


def index_of(**pieces):
    rows = [
        (name, name, "", piece.embedding, piece.windows.astype(np.float16), piece.spans)
        for name, piece in pieces.items()
    ]
    return EmbeddingIndex(table=FileTable.from_rows(rows))


def test_values_by_hand():
    assert alignment(example(0, 1), example(0, 1)) == pytest.approx(1.0)
    # No diagonal of both windows fits: 0 is gained beside the mean of 4 cosines, 2 of them 1.
    beside = UNMATCHED_SHARE * 0.5
    assert alignment(example(0, 1), example(1, 0)) == pytest.approx(beside + (0 - 2 * beside) / 2)
    # 2 windows within 4: their sum is 2, and of the mean 2 of 8.
    beside = UNMATCHED_SHARE * 0.25
    assert alignment(example(1, 2), example(0, 1, 2, 3)) == pytest.approx(beside + (2 - 2 * beside) / np.sqrt(2 * 4))
    # The other way round all 4 windows of the example count.
    assert alignment(example(0, 1, 2, 3), example(1, 2)) == pytest.approx(beside + (2 - 2 * beside) / 4)


def test_order_and_length_tell_pieces_of_one_mean_apart():
    played = example(0, 1, 2, 3)
    mixed, twice, other = example(0, 2, 1, 3), example(0, 1, 2, 3, 0, 1, 2, 3), example(4, 5, 6, 7)
    scores = [alignment(played, piece) for piece in (played, twice, mixed, other)]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4


def test_an_excerpt_finds_its_piece_by_where_it_lies():
    whole, mixed = example(0, 1, 2, 3, 4, 5), example(2, 0, 4, 1, 3, 5)
    assert alignment(example(2, 3, 4), whole) > alignment(example(2, 3, 4), mixed)


def at(starts, *rows):
    """An example whose windows begin at given seconds."""
    music = example(*rows)
    return Example(music.embedding, music.windows, np.array(starts, float)[:, None] + [0.0, 20.0])


def test_a_window_left_out_shifts_nothing():
    # 3 of the 4 windows lie beside their own; the mean of the 12 cosines is 3 of 12.
    beside = UNMATCHED_SHARE * 0.25
    scored = alignment(at([0, 10, 30], 0, 1, 3), example(0, 1, 2, 3))
    assert scored == pytest.approx(beside + (3 - 3 * beside) / np.sqrt(3 * 4))
    assert (
        scored
        == alignment(at([50, 60, 80], 0, 1, 3), example(0, 1, 2, 3))
        > alignment(example(0, 1, 3), example(0, 1, 2, 3))
    )
    assert alignment(at([0, 10, 30], 0, 1, 3), at([0, 10, 30], 0, 1, 3)) == pytest.approx(1.0)


def test_parts_of_a_dense_window_are_one():
    whole, cut = example(0, 1, 2), at([0, 10, 12, 20], 0, 1, 1, 2)
    assert alignment(whole, cut) == pytest.approx(alignment(whole, whole)) == pytest.approx(1.0)


@pytest.mark.parametrize("windows", [1, 2, 3])
def test_a_transcribed_recording_is_compared_by_what_both_towers_heard(windows):
    first, second = example(*range(windows)), example(*range(3, 3 + windows))
    both = Example(first.embedding, np.concatenate([first.windows, second.windows]), np.tile(spans(windows), (2, 1)))
    assert alignment(both, both) == pytest.approx(1.0)
    own = alignment(both, second)
    assert own == pytest.approx(alignment(both, first)) == pytest.approx(alignment(first, both))
    assert own > alignment(both, example(*range(6, 6 + windows)[:2], *[7] * (windows - 2)))


@pytest.mark.parametrize("damage", [np.nan, np.inf, 1e9])
def test_damaged_times_give_no_score(damage):
    assert np.isnan(alignment(example(0, 1, 2, 3), at([0, 1, damage], 0, 1, 2)))


class TestSearch:
    def test_the_piece_itself_comes_before_one_of_the_same_mean(self):
        index = index_of(a=example(3, 2, 1, 0), b=example(0, 1, 2, 3), c=example(4, 5, 6, 7))
        assert [hit.path for hit in index.search(example(0, 1, 2, 3).embedding, 3)[0]] == ["a", "b", "c"]
        hits = index.search_like(example(0, 1, 2, 3), 3)
        assert [hit.path for hit in hits] == ["b", "a", "c"]
        assert hits[0].score == pytest.approx(1.0, abs=1e-3) and (hits[0].start_seconds, hits[0].end_seconds) == (
            0,
            20,
        )

    def test_words_steer_it(self):
        index, words = index_of(a=example(0, 1), b=example(0, 2)), np.eye(8, dtype=np.float32)[2]
        assert [hit.path for hit in index.search_like(example(0, 1), 2)] == ["a", "b"]
        assert [hit.path for hit in index.search_like(example(0, 1), 2, words, 0.7)] == ["b", "a"]
        assert index.search_like(example(0, 1), 2, words, 0.0) == index.search_like(example(0, 1), 2)
        alone = index.search(words, 2)[0]
        assert [(hit.path, hit.score) for hit in index.search_like(example(0, 1), 2, words, 1.0)] == [
            (hit.path, pytest.approx(hit.score, abs=1e-6)) for hit in alone
        ]

    def test_pieces_without_windows_are_ranked_by_their_mean(self):
        index = EmbeddingIndex()
        index.add(["x", "y"], np.eye(8)[:2])
        assert [(hit.path, hit.score) for hit in index.search_like(example(1), 2)] == [("y", 1.0), ("x", 0.0)]

    def test_only_the_closest_are_aligned_and_all_can_be_asked_for(self, monkeypatch):
        monkeypatch.setattr("modeling_pianobind.index.embedding_index.RERANKED_PIECES", 2)
        index = index_of(a=example(0, 1), b=example(1, 0), c=example(4), d=example(5))
        assert [hit.path for hit in index.search_like(example(0, 1), 1)] == ["a"]
        assert [hit.path for hit in index.search_like(example(0, 1), 9)] == ["a", "b", "c", "d"]

    def test_a_saved_index_and_shards_find_the_same(self, tmp_path):
        pieces = {f"{row}{other}": example(row, other) for row in range(8) for other in range(8) if row != other}
        index = index_of(**pieces)
        expected = index.search_like(example(3, 5), 20)
        assert expected[0].path == "35"
        for dtype in ("float32", "int8"):
            index.save(tmp_path / dtype, dtype=dtype)
            assert EmbeddingIndex.load(tmp_path / dtype).search_like(example(3, 5), 20) == expected

    def test_pieces_of_the_index_are_examples(self):
        index = index_of(a=example(0, 1), b=example(1, 0))
        assert [hit.path for hit in index.search_like(index.example(1), 2)] == ["b", "a"]
        with pytest.raises(IndexError):
            index.example(2)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 9.0])
    def test_damaged_windows_are_refused(self, value):
        index = index_of(a=example(0, 1))
        index.shards[0].table.windows[:] = value
        with pytest.raises(ValueError, match="damaged"):
            index.search_like(example(0, 1))
