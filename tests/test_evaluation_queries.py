"""Free queries, the lexicon, dances and forms, and captions of works, on pieces whose answer is known by hand."""

import json
import re

import numpy as np
import pytest

from evaluation import midi_protocols, query_protocols
from evaluation.bench import UnsuitableError
from evaluation.scores import among_best, share_of_best
from training.data.captions import MOODS, STYLES
from training.data.descriptors import KEY_NAMES, THRESHOLDS
from training.data.facts import PERIOD_OF
from training.data.lexicon import Query, read_lexicon

from .test_evaluation import make_bench, one_hot, piece, row

KEYS = {f"{name} {mode}" for name in KEY_NAMES for mode in ("major", "minor")}
ARTISTS = {
    "5 Seconds of Summer", "ABBA", "AKB48", "Adele", "Aimer", "Alan Menken", "Alan Walker", "Albeniz",
    "Alicia Keys", "Animenz", "Ariana Grande", "Ava Max", "Avicii", "Avril Lavigne", "Bandari", "Bethel Music",
    "Beyer", "Beyonce", "Beyond", "Big Bang", "Billie Eilish", "Blackpink", "Britney Spears", "Bruno Mars",
    "C418", "Calvin Harris", "Camila Cabello", "Celine Dion", "Charlie Puth", "Coldplay", "Czerny",
    "David Guetta", "Demi Lovato", "DooPiano", "Doug McKenzie", "Drake", "Dua Lipa", "EXO", "Ed Sheeran",
    "Ellie Goulding", "Elton John", "Eminem", "Evanescence", "Fall Out Boy", "Fifth Harmony", "GUMI", "Halsey",
    "Hanon", "Hans Zimmer", "Harry Styles", "Hatsune Miku", "Herbie Hancock", "Hillsong Worship",
    "Imagine Dragons", "Jason Derulo", "Jay Chou", "Joe Hisaishi", "July", "Justin Bieber", "Justin Timberlake",
    "Kanye West", "Katy Perry", "Kelly Clarkson", "Kesha", "Kevin Kern", "Kygo", "Lady Gaga", "Lana Del Rey",
    "Lewis Capaldi", "LiSA", "Linkin Park", "Little Mix", "Lorde", "Ludovico Einaudi", "Maroon 5", "Marshmello",
    "Martin Garrix", "Melanie Martinez", "Miley Cyrus", "MusicBand-Guide", "Niall Horan", "Olivia Rodrigo",
    "One Direction", "OneRepublic", "Panic! at the Disco", "Post Malone", "RADWIMPS", "Rachmaninoff",
    "Ramin Djawadi", "Richard Clayderman", "Rihanna", "Ryuichi Sakamoto", "S.H.E", "SNH48", "Sam Smith",
    "Selena Gomez", "Shakira", "Shawn Mendes", "Shi Jin", "Sia", "Strauss", "TFBOYS", "Taylor Swift",
    "Teresa Teng", "The Beatles", "The Chainsmokers", "The Theorist", "The Weeknd", "TheFatRat", "Thompson",
    "Toby Fox", "Troye Sivan", "Twenty One Pilots", "Why Don't We", "Yiruma", "Yuki Kajiura", "ZUN", "Zedd",
}  # fmt: skip
FACTS = MOODS | STYLES | set(THRESHOLDS) | KEYS | set(PERIOD_OF) | ARTISTS


def test_pieces_that_tie_share_the_places_that_are_left():
    scores = np.array([[3.0, 2.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    assert among_best(scores, 2).tolist() == [[1.0, 0.5, 0.5, 0.0], [0.5, 0.5, 0.5, 0.5]]
    assert among_best(scores, 1.5).tolist() == [[1.0, 0.25, 0.25, 0.0], [0.375] * 4]
    assert share_of_best(scores, np.array([[0, 1, 0, 1], [1, 0, 0, 0]]), 2).tolist() == [0.25, 0.25]
    assert share_of_best(scores, np.ones((2, 4)), 9).tolist() == [1.0, 1.0]


def test_a_piece_fits_where_one_list_holds_whole_and_nothing_rules_it_out():
    query = {"fits": [["jazz", "slow"], [{"title": "^blue.*bossa"}]], "not": ["march", {"title": "live"}]}
    assert query_protocols.fits(query, {"jazz", "slow", "major"}, "")
    assert not query_protocols.fits(query, {"jazz"}, "A jazz piece")
    assert query_protocols.fits(query, set(), "Blue Bossa")
    assert not query_protocols.fits(query, {"march"}, "Blue Bossa")
    assert not query_protocols.fits(query, {"jazz", "slow"}, "A night (Live)")


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Twenty pieces, of which 0 to 4 are jazz and 5 is called a waltz; piece n is found by a text "... n"."""
    queries = [
        {"query": "smoke 0", "kind": "scene", "fits": [["jazz"]], "not": [{"title": "waltz"}]},
        {"query": "turning 5", "kind": "dance", "fits": [[{"title": "waltz"}]], "not": []},
        {"query": "organ 9", "kind": "scene", "fits": [["worship"]], "not": []},
    ]
    (tmp_path / "queries.json").write_text(json.dumps(queries))
    monkeypatch.setattr(query_protocols, "FREE_QUERIES", tmp_path / "queries.json")
    rows = [row(number, genre=["jazz"] if number < 5 else ["classical"]) for number in range(20)]
    rows[4]["title"], rows[5]["title"] = "Jazz Waltz", "Valse, a waltz"
    # a train row per genre, so that the vocabulary knows both
    rows += [row(20, split="train", genre=["jazz"]), row(21, split="train", genre=["classical"])]
    return make_bench(rows, [piece(number % 20) for number in range(22)])


def test_free_queries_count_the_first_five_pieces_that_fit(judged):
    result = query_protocols.free_queries(judged)
    scores = result["scores"]
    # "smoke 0" finds piece 0; the other 19 tie for 4 places, and 3 of them fit: (1 + 3 * 4 / 19) / 5
    smoke, turning = (1 + 12 / 19) / 5, (1 + 4 / 19) / 5
    assert scores["per_query"]["smoke 0"]["fit@5"] == pytest.approx(smoke)
    assert scores["per_query"]["smoke 0"]["chance"] == 4 / 20
    assert scores["per_query"]["turning 5"]["fit@5"] == pytest.approx(turning)  # pieces 4 and 5 are called waltz
    assert scores["fit@5"] == pytest.approx((smoke + turning) / 2)
    assert scores["per_kind"]["dance"] == {"queries": 1, "fit@5": pytest.approx(turning)}
    assert (scores["queries"], scores["queries_at_twice_chance"]) == (2, 1)  # 0.33 < 2 * 0.2, 0.24 > 2 * 0.1
    assert scores["fit@5_interval"] == pytest.approx([turning, smoke])
    assert result["baselines"]["chance"]["fit@5"] == pytest.approx(0.15)
    assert 0 <= result["baselines"][query_protocols.WORD_SEARCH]["fit@5"] <= 1
    assert result["settings"]["left_out"] == ["organ 9"]


def test_the_sixty_queries_are_well_formed_and_no_text_of_the_lexicon():
    queries = json.loads(query_protocols.FREE_QUERIES.read_text(encoding="utf-8"))
    texts = [query["query"].casefold() for query in queries]
    assert len(set(texts)) == len(queries) == 60
    assert {query["kind"] for query in queries} == {"scene", "occasion", "dance", "mood", "technique", "style"}
    for query in queries:
        assert set(query) == {"query", "kind", "fits", "not"} and query["fits"] and all(query["fits"])
        for condition in [*query["not"], *(condition for conditions in query["fits"] for condition in conditions)]:
            if isinstance(condition, dict):
                re.compile(condition["title"])
            else:
                assert condition in FACTS, f"{query['query']}: {condition}"
    known = {plain(query.text) for query in read_lexicon()}
    assert not known & {plain(text) for text in texts}


def plain(text: str) -> frozenset[str]:
    """The words of a text without those that carry nothing, in no order."""
    words = re.sub(r"[^\w ]", " ", text.casefold()).split()
    return frozenset(words) - {"a", "an", "the", "of", "in", "on", "at", "to", "for", "with", "and", "piano", "music"}


def test_the_lexicon_states_known_facts_and_holds_out_a_tenth():
    lexicon = read_lexicon()
    assert len(lexicon) >= 6_000
    assert len({query.text.casefold() for query in lexicon}) == len(lexicon)
    assert 0.09 < np.mean([query.held_out for query in lexicon]) < 0.11
    for query in lexicon:
        assert query.holds and not set(query.holds) & set(query.excludes), query
        assert set(query.holds) | set(query.excludes) <= FACTS, query


def test_a_piece_scores_by_what_holds_less_what_is_ruled_out_and_half_prevalence_where_unknown():
    known = [({"jazz", "slow"}, set()), ({"slow"}, {"jazz"}), (set(), {"slow"}), ({"jazz"}, set())]
    queries = [Query("a", ("jazz",), ("slow",)), Query("b", ("slow",), ()), Query("c", ("waltz",), ())]
    # half the prevalence: jazz 2 of 4 -> 0.25, slow 2 of 4 -> 0.25, waltz never -> 0
    expected = [[0.0, -1.0, 0.25, 0.75], [1.0, 1.0, 0.0, 0.25], [0.0] * 4]
    assert query_protocols.fact_scores(queries, known).tolist() == expected


def test_held_out_queries_are_right_where_their_tenth_comes_first(judged, monkeypatch):
    lexicon = [Query("smoke 0", ("jazz",), ()), Query("organ 9", ("worship",), ()), Query("smoke 1", ("jazz",), ())]
    monkeypatch.setattr(query_protocols, "read_lexicon", lambda: lexicon)
    monkeypatch.setattr(Query, "held_out", property(lambda query: query.text != "smoke 1"))
    judged.embed_text = lambda texts: np.stack([one_hot(range(5)).sum(0) for _ in texts])
    monkeypatch.setattr(query_protocols, "BEST_PIECES", 5)
    result = query_protocols.lexicon_held_out(judged)
    # the right tenth is 2 of 20 pieces, shared by the 5 of jazz, which come first: 5 * 0.4 / 5
    assert result["scores"]["right@10"] == pytest.approx(0.4)
    assert result["scores"]["queries"] == 1, "nothing tells which pieces are worship"
    assert result["baselines"]["chance"]["right@10"] == 0.1
    monkeypatch.setattr(query_protocols, "read_lexicon", lambda: lexicon[1:2])
    with pytest.raises(UnsuitableError, match="apart"):
        query_protocols.lexicon_held_out(judged)


def test_dances_and_forms_are_what_titles_say():
    titles = ["Waltz in A", "Valse", "March", "Marsch", "Tango", "Song"]
    rows = [row(number, title=titles[number % 6] if number < 24 else None) for number in range(30)]
    rows += [row(number, title=titles[number % 6], split="train") for number in range(30, 60)]

    def embed_text(texts):
        return one_hot(next(n for n, form in enumerate(("waltz", "march", "tango")) if form in text) for text in texts)

    form = [0, 0, 1, 1, 2, 3]
    notes = [piece(form[number % 6], count=30 + number) for number in range(60)]
    result = midi_protocols.dance_and_form(make_bench(rows, notes, embed_text=embed_text))
    assert result["scores"]["macro_roc_auc"] == 1.0
    assert {name: row["pieces"] for name, row in result["scores"]["per_tag"].items()} == {"waltz": 8, "march": 8}
    assert result["scores"]["pieces"] == 24, "pieces without a title are left out"
    assert list(result["scores"]["rare_forms"]["per_tag"]) == ["tango"], "four pieces are too few"
    assert result["baselines"][midi_protocols.FEATURES]["macro_roc_auc"] > 0.8
    rows[0:24] = [{**row, "title": "Song"} for row in rows[0:24]]
    with pytest.raises(UnsuitableError, match="no dance or form"):
        midi_protocols.dance_and_form(make_bench(rows, notes, embed_text=embed_text))


def test_captions_of_held_out_works_seek_one_piece_of_each_song(monkeypatch):
    rows = [row(number, split="train", song=f"{number * 10 if number < 6 else number:x}") for number in range(9)]
    rows[5]["song"] = rows[4]["song"]  # another version of a song
    works = {f"piece {number}": (["jazz"], [f"a {number}", f"b {number + 1}"]) for number in range(9) if number != 3}
    monkeypatch.setattr(query_protocols, "known_works", lambda: works)
    bench = make_bench(rows)
    result = query_protocols.works_held_out(bench)
    # 0, 1, 2 and 4 remain: 3 is not a known work, 5 is 4 again, and the songs of 6 to 8 are not held out
    assert result["settings"]["songs"] == result["scores"]["first caption"]["items"] == 4
    assert result["scores"]["first caption"]["recall@1"] == 1.0
    assert result["scores"]["last caption"]["recall@1"] < 0.7
    assert result["baselines"]["chance"]["first caption"]["recall@1"] == pytest.approx(0.25)
    with pytest.raises(UnsuitableError, match="held out"):
        query_protocols.works_held_out(make_bench(rows[6:], [piece(number) for number in range(3)]))
