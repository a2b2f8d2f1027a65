"""A taste profile: read from a play history, kept as JSON, blended with the words of a search."""

import json

import numpy as np
import pytest

from modeling_pianobind.index.feedback import Background
from modeling_pianobind.index.finder import Finder
from modeling_pianobind.index.taste import Taste, blend, read_history

from .test_cli import assert_one_line
from .test_finder import StandIn, make_index


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


class TestHistory:
    def test_plays_count_by_their_logarithm_and_fade_with_time(self, tmp_path):
        file = write(
            tmp_path / "history.csv",
            "Path,Plays,Last Played",
            "new.mid,3,2026-06-30",
            "old.mid,3,2026-01-01",  # 180 days before
            "never.mid,0,2026-06-30",
        )
        new, old = read_history(file)
        assert (new.path, old.path) == ("new.mid", "old.mid")
        assert new.weight == pytest.approx(np.log(4)) and old.weight == pytest.approx(np.log(4) / 2)

    def test_unix_seconds_and_missing_columns_will_do(self, tmp_path):
        seconds = write(tmp_path / "a.csv", "path,last_played", "a.mid,1760000000", "b.mid,1760000000")
        assert [play.weight for play in read_history(seconds)] == pytest.approx([np.log(2)] * 2)
        assert len(read_history(write(tmp_path / "b.csv", "file", "a.mid"))) == 1

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ((), "the history is empty"),
            (("path,plays",), "the history is empty"),
            (("song,plays", "a.mid,1"), "has no column `path`; its columns are song, plays"),
            (("path,plays", "a.mid,often"), "line 2 has 'often' plays"),
            (("path,plays", "a.mid,-1"), "line 2 has '-1' plays"),
            (("path,plays", "a.mid,0"), "was ever played"),
            (("path,last_played", "a.mid,yesterday"), "line 2 was last played 'yesterday'"),
        ],
    )
    def test_a_bad_history_is_refused(self, tmp_path, lines, message):
        with pytest.raises(ValueError, match=message):
            read_history(write(tmp_path / "history.csv", *lines))


class TestTaste:
    def test_two_kinds_of_music_are_both_liked(self):
        index = make_index(41)
        taste = Taste.learn(index.embeddings[[0, 40]], [1.0, 1.0])
        scores = taste.scores(index.embeddings, Background.of(index.embeddings))
        assert min(scores[0], scores[40]) > scores[20] and abs(scores.mean()) < 1e-6

    def test_a_profile_is_kept_and_belongs_to_its_checkpoint(self, tmp_path):
        index = make_index()
        Taste.learn(index.embeddings[:3], [1.0, 2.0, 1.0], "abc").save(tmp_path / "me.json")
        taste = Taste.load(tmp_path / "me.json", "abc")
        assert taste.weights == pytest.approx([0.5, 0.25, 0.25])
        assert np.allclose(taste.embeds, index.embeddings[[1, 0, 2]], atol=1e-3)
        assert "/music" not in (tmp_path / "me.json").read_text()  # what was played is nobody's business
        with pytest.raises(ValueError, match="another checkpoint made this profile"):
            Taste.load(tmp_path / "me.json", "xyz")

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"weights": [1], "dim": 3, "embeddings_float16": "AAAA"}'])
    def test_other_files_are_no_profiles(self, tmp_path, content):
        with pytest.raises(ValueError, match="is no taste profile"):
            Taste.load(write(tmp_path / "me.json", content))

    def test_nothing_played_is_refused(self):
        with pytest.raises(ValueError, match="the history is empty"):
            Taste.learn(np.zeros((0, 3)), [])


class TestBlend:
    def test_taste_orders_pieces_that_fit_alike(self):
        cosines = np.array([0.30, 0.299, 0.298, 0.1])
        values = (cosines - 0.2) / 0.1
        assert blend(values, cosines, np.array([-1.0, 0.0, 1.0, 0.0]), top_k=2).tolist()[:2] == [2, 1]

    def test_the_words_lose_at_most_their_share(self):
        random = np.random.default_rng(0)
        for _ in range(50):
            cosines, taste = random.normal(0.2, 0.1, 200), random.normal(size=200)
            best = blend((cosines - 0.2) / 0.1, cosines, taste, top_k=10)[:10]
            plain = np.sort(cosines)[::-1][:10]
            assert cosines[best].mean() >= 0.95 * plain.mean()
            assert taste[best].mean() > taste[np.argsort(-cosines)[:10]].mean()

    def test_the_finder_uses_it(self):
        finder = Finder(make_index(), StandIn(), by_names=False)
        taste = Taste.learn(finder.index.embeddings[[6]], [1.0])
        plain, suited = (
            [finder.index.paths.index(hit.path) for hit in finder.find("sad", top_k=3, taste=given).hits]
            for given in (None, taste)
        )
        assert plain == [0, 1, 2] and np.mean(suited) > np.mean(plain)


class TestCommand:
    def test_a_profile_is_learnt_and_used(self, pianobind, corpus, tmp_path):
        history = write(tmp_path / "history.csv", "path,plays", "march.mid,5", "take.mid,1", "gone.mid,9")
        status, out, err = pianobind("profile", corpus, history, "--output", tmp_path / "me.json")
        assert status == 0 and "the taste of 2 pieces" in out
        assert_one_line(err, "1 of its files are not in", "gone.mid")
        status, out, _ = pianobind("search", corpus, "calm", "--json", "--profile", tmp_path / "me.json")
        assert status == 0 and len(json.loads(out)) == 4

    @pytest.mark.parametrize(
        ("lines", "output", "parts"),
        [
            (["path"], "me.json", ["history.csv", "empty"]),
            (["path", "gone.mid"], "me.json", ["history.csv", "none of its files", "gone.mid"]),
            (["path", "march.mid"], "me.txt", ["me.txt", ".json"]),
            (["path", "march.mid"], "/nowhere/me.json", ["/nowhere/me.json", "folder"]),
        ],
    )
    def test_a_mistake_is_one_line(self, pianobind, corpus, tmp_path, lines, output, parts):
        history = write(tmp_path / "history.csv", *lines)
        target = output if output.startswith("/") else tmp_path / output
        status, out, err = pianobind("profile", corpus, history, "--output", target)
        assert (status, out) == (2, "")
        assert_one_line(err, *parts)

    def test_a_profile_that_is_none_is_one_line(self, pianobind, corpus, tmp_path):
        write(tmp_path / "me.json", "{}")
        for name, words in (("me.json", "is no taste profile"), ("missing.json", "exist")):
            status, out, err = pianobind("search", corpus, "calm", "--profile", tmp_path / name)
            assert (status, out) == (2, "")
            assert_one_line(err, name, words)
