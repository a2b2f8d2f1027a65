"""Feedback moves a query, and a playlist goes on from examples."""

import csv

import numpy as np
import pytest

from modeling_pianobind import EmbeddingIndex, refine
from modeling_pianobind.index.alignment import Example
from modeling_pianobind.index.feedback import Background
from modeling_pianobind.index.filters import Filters
from modeling_pianobind.index.finder import Finder
from modeling_pianobind.index.playlist import key_place, make_playlist
from modeling_pianobind.index.table import FileRow, FileTable

from .test_cli import assert_one_line
from .test_finder import StandIn, make_index


def unit(*values) -> np.ndarray:
    return (np.array(values) / np.linalg.norm(values)).astype(np.float32)


def spread_corpus(count=200, dim=6) -> np.ndarray:
    """Pieces around one direction that all have in common."""
    random = np.random.default_rng(0)
    embeds = random.normal(size=(count, dim)) * np.linspace(0.3, 0.1, dim)
    embeds[:, 0] += 1
    return (embeds / np.linalg.norm(embeds, axis=1, keepdims=True)).astype(np.float32)


class TestRefine:
    def test_without_examples_the_query_stays(self):
        query = unit(1, 2, 2)
        assert np.array_equal(refine(query), query)

    def test_wanted_examples_rise_and_unwanted_ones_sink(self):
        corpus = spread_corpus()
        query = unit(0, 1, 0, 0, 0, 0)
        ranks = (-(corpus @ query)).argsort().argsort()
        wanted, unwanted = int(np.flatnonzero(ranks == 120)[0]), int(np.flatnonzero(ranks == 5)[0])
        moved = refine(query, corpus[[wanted]], corpus[[unwanted]], corpus)
        after = (-(corpus @ moved)).argsort().argsort()
        assert np.linalg.norm(moved) == pytest.approx(1, abs=1e-6)
        assert after[wanted] < 120 and after[unwanted] > 5

    def test_what_all_pieces_have_in_common_is_not_wanted(self):
        corpus = spread_corpus()
        moved = refine(None, corpus[:3], (), corpus)
        assert abs(corpus.mean(axis=0) @ moved) < abs(refine(None, corpus[:3]) @ unit(1, 0, 0, 0, 0, 0)) + 0.5
        scores = corpus @ moved
        assert set(np.argsort(-scores)[:10]) & {0, 1, 2}

    def test_more_examples_of_one_kind_point_closer_at_it(self):
        corpus = spread_corpus()
        kind = np.argsort(-corpus[:, 2])[:20]
        closeness = [refine(None, corpus[kind[:count]], (), corpus)[2] for count in (1, 10)]
        assert closeness[1] > closeness[0] > 0

    def test_nothing_to_go_by_and_contradictions_are_refused(self):
        with pytest.raises(ValueError, match="neither a query nor an example"):
            refine(None)
        with pytest.raises(ValueError, match="example 2 of what is wanted and example 1 of what is not"):
            refine(unit(1, 0, 0), [unit(0, 1, 0), unit(0, 0, 1)], [unit(0, 0, 1)])

    def test_a_background_has_unit_spread_and_its_mean_at_zero(self):
        corpus = spread_corpus()
        background = Background.of(corpus)
        whitened = background.whitened(corpus)
        assert np.allclose(whitened.mean(axis=0), 0, atol=1e-6)
        assert (whitened**2).sum(axis=1).mean() == pytest.approx(1, rel=0.02)
        assert background.deviation(unit(0, 1, 0, 0, 0, 0)) == pytest.approx(corpus[:, 1].std(), rel=0.01)


class TestFinderWithFeedback:
    def test_feedback_changes_what_words_find(self):
        finder = Finder(make_index(), StandIn(), by_names=False)
        plain = [hit.path for hit in finder.find("sad", top_k=5).hits]
        index = finder.index
        moved = finder.find("sad", top_k=5, more=index.embeddings[[10]], less=index.embeddings[[0]]).hits
        assert plain[0] == index.paths[0] and moved[0].path != index.paths[0]

    def test_feedback_alone_is_enough(self):
        finder = Finder(make_index(), StandIn())
        result = finder.find(more=finder.index.embeddings[[19]])
        assert result.hits[0].path == finder.index.paths[19] and 0 <= result.hits[0].fit <= 1

    def test_examples_count_as_much_where_one_piece_passes_the_filters(self):
        index = make_index()
        few = Finder(index, StandIn(), by_names=False, filters=Filters.parse(tempo="80-85"))
        examples = index.embeddings[[19, 18]]
        (hit,) = few.find("sad", more=examples).hits
        among_all = Finder(index, StandIn(), by_names=False).find("sad", top_k=20, more=examples).hits
        assert hit.path == index.paths[0]
        assert hit.score == pytest.approx(next(other.score for other in among_all if other.path == hit.path), abs=1e-6)


class TestSearchCommand:
    def test_more_and_less_move_the_hits(self, pianobind, corpus):
        plain = pianobind("search", corpus, "calm", "--csv")
        first, last = (list(csv.reader(plain[1].splitlines()))[row][2] for row in (1, -1))
        status, out, err = pianobind("search", corpus, "calm", "--csv", "--more", last, "--less", first)
        assert (status, err) == (0, "")
        paths = [row[2] for row in csv.reader(out.splitlines())][1:]
        assert paths.index(last) < paths.index(first)

    def test_files_outside_the_corpus_count_too(self, pianobind, corpus, tmp_path, write_midi):
        liked = write_midi(tmp_path / "liked.mid", seed=9)
        assert pianobind("search", corpus, "--more", liked)[0] == 0

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (("--more", "{0}", "--less", "{0}"), ["march.mid: is given with --more and with --less"]),
            (("--more", "missing.mid"), ["missing.mid", "exist"]),
            (("--less", "{folder}"), ["folder"]),
        ],
    )
    def test_a_mistake_is_one_line(self, pianobind, corpus, arguments, parts):
        filled = [argument.format(corpus / "march.mid", folder=corpus) for argument in arguments]
        status, out, err = pianobind("search", corpus, "calm", *filled)
        assert (status, out) == (2, "")
        assert_one_line(err, *parts)


def playlist_index(count=40, minutes=3.0):
    """Pieces on an arc from dark to bright, with tempo and key; the notes of 20 are those of 10."""
    random, rows = np.random.default_rng(3), []
    pitches = random.integers(40, 90, size=(count, 200))
    pitches[20] = pitches[10]
    for number, angle in enumerate(np.linspace(0, np.pi / 2, count)):
        embed = unit(np.cos(angle), np.sin(angle), 0.5 * (number % 2), 2)
        onset = np.sort(random.uniform(0, 60 * minutes, 200)).astype(np.float32)
        notes = Notes(pitches[number].astype(np.uint8), onset if number != 20 else rows[10].notes.onset * 1.1)
        spans = np.array([[0.0, 20.0]])
        facts = (60.0 * minutes, 100.0 + number % 3, float(number % 12), 0)
        path = f"/music/{number:02}.mid"
        rows.append(FileRow(path, path, "", embed, embed[None].astype(np.float16), spans, notes, facts=facts))
    return EmbeddingIndex(table=FileTable.from_rows(rows))


class Notes:
    """What a table keeps of notes."""

    def __init__(self, pitch, onset):
        self.pitch, self.onset = pitch, onset

    def __len__(self):
        return len(self.pitch)


class TestPlaylist:
    def test_it_has_the_length_that_was_asked_for_and_nothing_twice(self):
        index = playlist_index()
        tracks = make_playlist(index, [index.example(10)], 1200)
        assert 1200 * 0.8 <= sum(track.seconds for track in tracks) <= 1200 * 1.02
        paths = [track.path for track in tracks]
        assert len({*paths}) == len(paths) == 6
        assert "/music/10.mid" not in paths and "/music/20.mid" not in paths  # the example, and a version of it

    def test_a_path_leads_from_one_mood_to_the_other(self):
        index = playlist_index()
        dark, bright = unit(1, 0, 0, 0), unit(0, 1, 0, 0)
        places = [int(track.path[7:9]) for track in make_playlist(index, [], 1800, dark, bright)]
        assert places[0] < 10 and places[-1] > 30
        assert np.corrcoef(places, range(len(places)))[0, 1] > 0.8

    def test_keys_stand_on_the_circle_of_fifths(self):
        # C, G, D and F major; A and E minor.
        assert key_place(np.array([0, 7, 2, 5, 21, 16.0])).tolist() == [0, 1, 2, 11, 0, 1]

    def test_nothing_to_go_by_and_nothing_that_fits_are_refused(self):
        index = playlist_index()
        with pytest.raises(ValueError, match="nothing to go by"):
            make_playlist(index, [], 600)
        with pytest.raises(ValueError, match="no other piece is shorter than 1 minutes"):
            make_playlist(index, [index.example(0)], 60)

    def test_an_example_without_windows_or_notes_serves_too(self):
        index = playlist_index()
        example = Example(index.embeddings[0], np.zeros((0, 4)), np.zeros((0, 2)))
        assert make_playlist(index, [example], 600)


class TestPlaylistCommand:
    def test_it_writes_a_playlist(self, pianobind, corpus, tmp_path):
        status, out, _ = pianobind(
            "playlist", corpus, "--like", corpus / "march.mid", "--minutes", 2, "--output", tmp_path / "x.m3u8"
        )
        assert status == 0 and "pieces" in out
        lines = (tmp_path / "x.m3u8").read_text().splitlines()
        paths = lines[2::2]
        assert lines[0] == "#EXTM3U" and lines[1].startswith("#EXTINF:") and not lines[1].startswith("#EXTINF:-1")
        assert len({*paths}) == len(paths) and str(corpus / "march.mid") not in paths

    def test_csv_by_moods_alone(self, pianobind, corpus):
        status, out, _ = pianobind("playlist", corpus, "--from", "calm", "--to", "happy", "--minutes", 1, "--csv")
        rows = list(csv.DictReader(out.splitlines()))
        assert status == 0 and rows and float(rows[0]["seconds"]) > 0

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            ((), ["nothing to go by", "--like"]),
            (("--like", "missing.mid"), ["missing.mid", "exist"]),
            (("--from", " "), ["--from is empty"]),
            (("--from", "calm", "--minutes", "0"), ["'0' is not a number of minutes"]),
            (("--from", "calm", "--output", "x.txt"), ["x.txt", ".m3u8"]),
            (("--from", "calm", "--output", "/nowhere/x.csv"), ["/nowhere/x.csv", "folder"]),
        ],
    )
    def test_a_mistake_is_one_line(self, pianobind, corpus, arguments, parts):
        status, out, err = pianobind("playlist", corpus, *arguments)
        assert (status, out) == (2, "")
        assert_one_line(err, *parts)
