"""Simulated users: whom they are made of, what a session counts, and the figures of playlists and tastes."""

import numpy as np

from evaluation.continuation import index_of, measure_continuation, measure_steps
from evaluation.measure_feedback import make_users, one_a_song, rocchio, session
from evaluation.tastes import measure_tastes
from modeling_pianobind.index.feedback import Background
from modeling_pianobind.notes_pianobind import PianoNotes

ARTISTS = ("Yiruma", "Jay Chou", "Pink")


def make_rows(songs=8):
    return [
        {"id": f"{name} {song}", "song": f"{name} {song}", "source": "emopia", "creator": name, "seconds": 180.0}
        | {"emotion_quadrant": 1 + number}
        for number, name in enumerate(ARTISTS)
        for song in range(songs)
    ]


def make_embeds(rows, spread=0.1):
    random = np.random.default_rng(0)
    embeds = random.normal(size=(len(rows), 8)) * spread
    embeds[np.arange(len(rows)), [ARTISTS.index(row["creator"]) for row in rows]] += 0.5
    embeds[:, 7] += 1
    return embeds / np.linalg.norm(embeds, axis=1, keepdims=True)


def embed_text(texts):
    random = np.random.default_rng(len(texts[0]))
    rows = random.normal(size=(len(texts), 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_users_like_artists_and_quadrants_with_enough_songs():
    rows = make_rows()
    rows.append(rows[0] | {"id": "another version"})
    users = make_users(rows, make_embeds(rows), embed_text)
    assert [(user.name, int(user.liked.sum())) for user in users["artist"]] == [
        ("Jay Chou", 8), ("Pink", 8), ("Yiruma", 8)
    ]  # fmt: skip
    assert [user.name for user in users["mood"]] == ["quadrant 1", "quadrant 2", "quadrant 3"]
    assert one_a_song(rows, np.ones(len(rows), bool)).tolist() == list(range(24))


def test_a_session_counts_the_ten_best_before_and_after_each_round():
    places, embeds = np.arange(30), np.eye(30)
    liked = places < 5  # what the query ranks first
    query = np.linspace(1, 0, 30)
    seen = []

    def stay(query, more, less, background):
        seen.append((len(more), len(less)))
        return query

    background = Background.of(embeds)
    assert session(query, embeds, liked, places, places, background, stay) == [0.5] * 4
    assert seen == [(5, 5), (5, 15), (5, 25)]  # a page of ten new ones in each round
    assert session(query, embeds, liked, places, places[10:], background, stay)[-1] == 0
    seen.clear()
    session(query, embeds, liked, places, places, background, stay, marks=3)
    assert seen == [(3, 0), (5, 1), (5, 4)]


def test_feedback_finds_an_artist_that_the_words_do_not_name():
    rows = make_rows()
    embeds, liked = make_embeds(rows), np.array([row["creator"] == "Pink" for row in rows])
    places = np.arange(len(rows))
    curve = session(np.eye(8)[6], embeds, liked, places, places, Background.of(embeds))
    assert curve[-1] == 0.8 > curve[0]


def test_rocchio_adds_means():
    query, more, less = np.eye(3)
    assert np.allclose(rocchio(query, [more, more], [less]), [1, 0.75, -0.15])
    assert np.allclose(rocchio(query, [], []), query)


def test_continuation_beats_chance_where_artists_are_apart():
    rows = make_rows(songs=20)
    result = measure_continuation(rows, make_embeds(rows), np.arange(len(rows)))
    assert result["continuation"] == 1.0 and result["given"] == 5 and result["among"] == 60
    assert result["random"] < 0.6


def test_steps_and_tastes_have_their_figures():
    rows = make_rows()
    embeds, random = make_embeds(rows), np.random.default_rng(1)
    notes = [
        PianoNotes(np.arange(60) * random.uniform(0.3, 0.6), np.full(60, 0.3, np.float32),
                   random.integers(40, 80, 60), np.full(60, 64), np.zeros(60, np.float32))
        for _ in rows
    ]  # fmt: skip
    steps = measure_steps(index_of(rows, embeds, notes), embed_text)
    assert steps["ordered"]["cosine"] > steps["shuffled"]["cosine"]
    tastes = measure_tastes(rows, embeds, np.arange(len(rows)), embed_text)
    assert tastes["listeners"] == 3 and tastes["words and taste"]["lost at most"] <= 0.0501
    assert tastes["no bound"]["share by the two artists"] >= tastes["words"]["share by the two artists"]
