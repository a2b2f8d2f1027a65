"""A search as people mean it: names, filters, negation, and scores that mean something."""

import json

import numpy as np
import pytest
import symusic

from modeling_pianobind import EmbeddingIndex, PianoBindModel, default_checkpoint
from modeling_pianobind.checkpoint_pianobind import model_fingerprint
from modeling_pianobind.index.facts import key_name, measured_tempo, parse_key, read_facts
from modeling_pianobind.index.filters import Filters
from modeling_pianobind.index.finder import Finder
from modeling_pianobind.index.names import NameIndex, titles, words_of
from modeling_pianobind.index.table import FileRow, FileTable
from modeling_pianobind.service.background_texts import music_texts
from modeling_pianobind.service.calibration import FILE, Calibration
from modeling_pianobind.service.examples import EXAMPLES
from modeling_pianobind.service.query import Query, embed_query, parse_query, unknown_words

PITCHES = {
    "D minor": (62, 64, 65, 67, 69, 70, 73, 62, 65, 69),
    "E flat major": (63, 65, 67, 68, 70, 72, 74, 63, 67, 70),
}


class StandIn:
    """A checkpoint whose embeddings are known: of words in three dimensions, with a background."""

    calibration = Calibration(
        np.eye(3, dtype=np.float32), np.array([1, 1, 0], np.float32), np.full(9, 0.5), np.full(9, 0.2)
    )
    words = {"sad": (1, 0, 0), "happy": (0, 1, 0), "asdfgh": (0, 0, 1)}

    def embed_text(self, texts):
        rows = [np.sum([self.words.get(word, (0, 0, 0.1)) for word in text.split()], axis=0) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32)

    def count_tokens(self, word):
        return 3 if word == "asdfgh" else 1


def make_index(count=20):
    """Pieces from sad to happy, with tempo and length; every second one is a recording."""
    turn = np.linspace(0, np.pi / 2, count)
    rows = []
    for number, angle in enumerate(turn):
        embed = np.array([np.cos(angle), np.sin(angle), 0], np.float32)
        path = f"/music/{number:02}-{'waltz' if number == 7 else 'study'}.{'mid' if number % 2 == 0 else 'mp3'}"
        facts = (
            (60.0 * (1 + number), 80 + 5.0 * number, number % 24, 0) if number % 2 == 0 else (90.0, np.nan, np.nan, 0)
        )
        windows = embed[None].astype(np.float16), np.array([[0.0, 20.0]])
        rows.append(FileRow(path, path[:-4], "", embed, *windows, facts=facts))
    return EmbeddingIndex(table=FileTable.from_rows(rows))


@pytest.fixture
def finder():
    return Finder(make_index(), StandIn())


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("calm, slow, rainy", "calm, slow, rainy", ()),
        ("not sad, not slow", "", ("sad", "slow")),
        ("calm but not too sad", "calm", ("sad",)),
        ("a waltz without pedal", "a waltz", ("pedal",)),
        ("not sad or slow, with pedal", "with pedal", ("sad", "slow")),
        ("waltz -sad", "waltz", ("sad",)),
        ("never fast and not loud", "", ("fast", "loud")),
        ("non-classical", "", ("classical",)),
        ("Nocturne No. 2", "Nocturne No. 2", ()),
        ("sonata no 5", "sonata no 5", ()),
        ("not only sad", "not only sad", ()),
        ("nothing", "nothing", ()),
        ("knot tying notes", "knot tying notes", ()),
    ],
)
def test_what_is_denied_is_parsed(text, wanted, unwanted):
    assert parse_query(text) == Query(wanted, unwanted)


def test_a_query_without_negation_is_embedded_as_it_is():
    embed = StandIn().embed_text
    assert np.array_equal(embed_query(embed, parse_query("sad happy")), embed(["sad happy"])[0])


@pytest.mark.parametrize(("query", "expected"), [("not sad", 19), ("sad, not happy", 0), ("not sad, not happy", None)])
def test_a_denied_mood_brings_the_pieces_that_have_least_of_it(finder, query, expected):
    hits = finder.find(query, top_k=2).hits
    sadness = finder.index.embeddings[:, 0]
    if expected is not None:
        assert hits[0].path == finder.index.paths[expected]
    if query == "not sad":
        lowest = {finder.index.paths[row] for row in np.argsort(sadness)[:2]}
        assert {hit.path for hit in hits} == lowest


def test_a_name_is_found_however_it_sounds_unless_names_are_left_out(finder):
    assert finder.find("WALTZ").hits[0].path.endswith("07-waltz.mp3")
    assert finder.find("waltz").hits[0].fit == pytest.approx(1, abs=0.2)
    alone = Finder(make_index(), StandIn(), by_names=False)
    assert not alone.find("waltz happy").hits[0].path.endswith("07-waltz.mp3")


def test_one_word_of_several_in_a_name_does_not_outweigh_the_sound():
    names = NameIndex(["sad song", *[f"study {number}" for number in range(50)]])
    few, all_of_it = names.coverage("happy dance in spring sad")[0], names.coverage("Sad song")[0]
    assert 0 < few < 0.4 < 0.8 < all_of_it


@pytest.mark.parametrize(
    ("name", "words"),
    [("Liebesträume_No3", ["liebestraume", "no3"]), ("castleHouse-Rag.mid", ["castle", "house", "rag"]), ("", [])],
)
def test_names_are_split_into_plain_words(name, words):
    assert words_of(name) == words


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_composers_of_a_metadata_file_are_searched(tmp_path, name):
    index = EmbeddingIndex()
    index.add([str(tmp_path / f"{number}.mid") for number in range(30)], np.random.default_rng(0).normal(size=(30, 3)))
    row = {"file_name": "11.mid", "composer": "Frédéric Chopin"}
    text = json.dumps(row) if name.endswith("jsonl") else f"{','.join(row)}\n{','.join(row.values())}\n"
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert Finder(index, StandIn(), tmp_path).find("chopin").hits[0].path.endswith("11.mid")
    (tmp_path / name).write_text("{" if name.endswith("jsonl") else "file_name\n" + '"' * 200_000, encoding="utf-8")
    if name.endswith("jsonl"):
        with pytest.raises(ValueError, match=r"metadata\.jsonl: is damaged"):
            Finder(index, StandIn(), tmp_path).find("chopin")


def test_filters_do_not_move_the_folder_in_which_metadata_is_sought(tmp_path):
    rows = [
        FileRow(str(tmp_path / name), name, "", np.eye(3, dtype=np.float32)[0], np.eye(3, dtype=np.float16)[:1],
                np.array([[0.0, 20.0]]), facts=(seconds, 100.0, 0.0, 0.0))
        for name, seconds in (("deep/a.mid", 60), ("deep/b.mid", 60), ("c.mid", 600))
    ]  # fmt: skip
    (tmp_path / "metadata.csv").write_text("file_name,Title,composer\ndeep/b.mid,Gymnopédie,Erik Satie\n")
    short = Finder(EmbeddingIndex(table=FileTable.from_rows(rows)), StandIn(), filters=Filters.parse(minutes="-5"))
    assert short.find("satie").hits[0].path.endswith("b.mid")
    assert titles(tmp_path) == {"deep/b.mid": ("Gymnopédie", "Erik Satie")}


def test_the_examples_titles_read_well():
    names = titles(EXAMPLES)
    assert len(names) == 50 and names["chopin-waltz-op-70-no-1.mid"] == ("Waltz, Op. 70 No. 1", "Frédéric Chopin")
    for title, creator in names.values():
        assert title and title[0].isupper() and "  " not in title and " = " not in title and "," not in creator


def test_texts_are_parted_by_what_tells_them_apart_and_not_by_what_few_have():
    random = np.random.default_rng(0)

    def embed(texts):
        rows = random.normal(0, 1, (len(texts), 40))
        rows[:, 0] += np.where(np.arange(len(texts)) < len(music_texts()), 3.0, -3.0)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    calibration = Calibration.measure(embed, np.zeros((0, 40)))
    assert abs(calibration.direction[0]) > 0.9 and (calibration.music[:, None] > calibration.other).mean() > 0.97
    far = np.eye(40)[0]
    assert calibration.understood(np.stack([far, -far])) == pytest.approx([1, 0], abs=0.01)


def test_nonsense_fits_nothing_and_the_words_are_named(finder):
    result = finder.find("asdfgh")
    assert max(hit.fit for hit in result.hits) < 0.5
    (note,) = result.notes
    assert note == "nothing fits well: the model knows English descriptions of music, and not 'asdfgh'"
    assert not finder.find("sad").notes and finder.find("sad").hits[0].fit > 0.5


def test_whatever_does_not_fit_is_told_what_the_model_knows(finder):
    (note,) = finder.find("sausage").notes
    assert "English descriptions of music, such as" in note and "does not read as one" in note
    alike = EmbeddingIndex(table=FileTable.from_rows([row._replace(embedding=np.eye(3, dtype=np.float32)[2])
                                                      for row in make_index(2).file_table.rows()]))  # fmt: skip
    (note,) = Finder(alike, StandIn()).find("sad").notes
    assert "no piece here stands out" in note and "English descriptions of music" in note


def test_words_of_other_scripts_are_unknown():
    assert unknown_words(Query("calm 悲しい грустный", ("sad",)), lambda word: 1) == ["悲しい", "грустный"]


def test_filters_leave_only_what_passes_and_say_what_is_not_known(finder):
    index = finder.index
    chosen, note = Filters.parse(tempo="90-120").select(index)
    assert [80 + 5 * number for number in chosen] == [90, 100, 110, 120] and note.startswith("10 pieces are left out")
    assert list(Filters.parse(minutes="-3", kind="midi").select(index)[0]) == [0, 2]
    assert list(Filters.parse(kind="audio").select(index)[0]) == list(range(1, 20, 2))
    assert list(Filters.parse(key="D major").select(index)[0]) == [2]
    few = Finder(index, StandIn(), filters=Filters.parse(minutes="3-", kind="midi"))
    assert {hit.path for hit in few.find("sad", top_k=30).hits} == {index.paths[row] for row in range(2, 20, 2)}
    none = Finder(index, StandIn(), filters=Filters.parse(minutes="500-"))
    assert none.find("sad").hits == [] and "no piece passes the filters; widen them" in none.find("sad").notes


def test_an_int8_index_and_one_in_shards_are_filtered_alike(tmp_path):
    index = make_index()
    index.save(tmp_path / "int8", "int8")
    for opened in (EmbeddingIndex.load(tmp_path / "int8"), index):
        part = opened.subset(np.array([3, 5, 8]))
        assert part.paths == [index.paths[row] for row in (3, 5, 8)]
        assert part.search(np.array([1, 0, 0]), 2)[0][0].path == index.paths[3]


@pytest.mark.parametrize("text", ["fast", "5-2", "-", "1-2-3", "x-4"])
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="give a range"):
        Filters.parse(tempo=text)


@pytest.mark.parametrize(
    ("text", "name"),
    [("D minor", "D minor"), ("f# Major", "F sharp major"), ("Bb", "B flat major"), ("C-sharp minor", "C sharp minor"),
     ("d flat major", "C sharp major"), ("B", "B major")],
)  # fmt: skip
def test_keys_are_read_as_people_write_them(text, name):
    assert key_name(parse_key(text)) == name


def write_scale(path, pitches, bpm, swing=0.0, others=()):
    score = symusic.Score(480)
    score.tempos.append(symusic.Tempo(0, qpm=bpm))
    track = symusic.Track(program=0, name="Etude in Steps")
    for step in range(64):
        tick = step * 240 + round(swing * (step % 7) * 31)
        track.notes.append(symusic.Note(tick, 200, pitches[step % len(pitches)], 80))
    score.tracks.append(track)
    for program in others:
        other = symusic.Track(program=program)
        other.notes.append(symusic.Note(0, 480, 40, 90))
        score.tracks.append(other)
    score.dump_midi(path)
    return path


@pytest.mark.parametrize("key", PITCHES)
def test_facts_are_measured_from_the_notes(tmp_path, key):
    facts, names = read_facts(str(write_scale(tmp_path / "a.mid", PITCHES[key], 96)), np.array([[0.0, 20.0]]))
    assert facts.tempo == pytest.approx(96, rel=0.01) and key_name(facts.key) == key
    assert facts.seconds == pytest.approx(63.83 * 60 / 96 / 2, abs=0.3) and names == "Etude in Steps"


def test_a_performance_is_timed_by_its_onsets_not_by_its_file():
    beat = 60 / 88
    onset = np.sort(np.concatenate([np.arange(0, 60, beat), np.arange(0, 60, beat / 2)]))
    onset = onset + np.random.default_rng(0).normal(0, 0.008, len(onset))
    assert measured_tempo(np.sort(onset)) == pytest.approx(88, rel=0.03)


def test_the_default_checkpoint_has_the_calibration_of_its_weights():
    folder = default_checkpoint()
    fingerprint = model_fingerprint(PianoBindModel.from_pretrained(folder))
    assert Calibration.load(f"{folder}/{FILE}", fingerprint) is not None, "run `pianobind calibrate`"


def test_a_calibration_of_other_weights_or_a_damaged_one_is_measured_again(tmp_path, tiny_checkpoint):
    StandIn.calibration.save(tmp_path / FILE, "mine")
    assert np.array_equal(Calibration.load(tmp_path / FILE, "mine").music, StandIn.calibration.music)
    assert Calibration.load(tmp_path / FILE, "another") is None
    (tmp_path / FILE).write_bytes(b"cut o")
    assert Calibration.load(tmp_path / FILE, "mine") is None
