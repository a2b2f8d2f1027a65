"""Notes and measures of an index beside its facts: older indices, filters, subsets, what a search prints."""

import json

import numpy as np
import pytest

from modeling_pianobind import EmbeddingIndex, cli, score_pianobind
from modeling_pianobind.commands.output import as_csv, as_json, as_table
from modeling_pianobind.index import storage
from modeling_pianobind.index.build import FolderContent, embed_folder
from modeling_pianobind.index.embedding_index import Hit
from modeling_pianobind.index.facts import read_facts
from modeling_pianobind.index.filters import Filters
from modeling_pianobind.index.note_alignment import NoteLine
from modeling_pianobind.index.table import FileRow, FileTable
from modeling_pianobind.inputs_pianobind import content_hash

SPANS = np.array([[0.0, 20.0]])
UNIT = np.array([1.0, 0.0], np.float32)
LINES = [NoteLine(np.full(40, pitch, np.uint8), np.arange(40, dtype=np.float32)) for pitch in (60, 64)]


def row_of(path, stem, **about) -> FileRow:
    return FileRow(str(path), stem, "", UNIT, UNIT[None].astype(np.float16), SPANS, **about)


def index_of_pairs() -> EmbeddingIndex:
    """Two pieces, each a recording and what its notes are known of."""
    files = [("a.mid", LINES[0]), ("a.mp3", None), ("b.musicxml", LINES[1]), ("b.mp3", None)]
    rows = [row_of(path, path[0], notes=line, facts=(90.0, 100.0, 2.0, 0.0)) for path, line in files]
    return EmbeddingIndex(table=FileTable.from_rows(rows))


def test_an_index_without_notes_is_read_and_brought_up_to_date(tmp_path, write_midi, monkeypatch):
    music = tmp_path / "music"
    music.mkdir()
    path = write_midi(music / "a.mid", seed=1)
    row = row_of(path, str(path)[:-4])._replace(content_hash=content_hash(path))
    with monkeypatch.context() as older:
        older.setattr(storage, "NOTE_ARRAYS", ())
        EmbeddingIndex(table=FileTable.from_rows([row])).save(tmp_path / "index")
    loaded = EmbeddingIndex.load(tmp_path / "index")
    assert len(loaded.example(0).notes) == 0 and loaded.search(UNIT)[0][0].start_measure is None
    content = embed_folder(music, FolderContent(loaded.file_table.rows()), lambda paths: pytest.fail("embedded again"))
    assert len(content.rows[0].notes) > 0 and content.rows[0].facts[0] > 0
    assert not EmbeddingIndex(table=FileTable.from_rows(content.rows)).same_files(loaded)


def test_notes_measures_facts_and_names_are_saved_together(tmp_path):
    about = {"facts": (90.0, 100.0, 2.0, 0.0), "names": "Sonata", "stamp": (1, 2, 3)}
    row = row_of("a.musicxml", "a", notes=LINES[0], measures=np.array([[1, 8]]), **about)
    EmbeddingIndex(table=FileTable.from_rows([row, row_of("b.mp3", "b")])).save(tmp_path / "index")
    first, second = EmbeddingIndex.load(tmp_path / "index").file_table.rows()
    assert (first.facts, first.names, first.stamp) == ((90.0, 100.0, 2.0, 0.0), "Sonata", (1, 2, 3))
    assert first.measures.tolist() == [[1, 8]] and np.array_equal(first.notes.pitch, LINES[0].pitch)
    assert second.measures.tolist() == [[0, 0]] and len(second.notes) == 0


def test_a_subset_keeps_the_notes_of_its_pieces():
    index = index_of_pairs()
    assert index.paths == ["a.mp3", "b.mp3"]
    subset = index.subset(np.array([1]))
    assert np.array_equal(subset.example(0).notes.pitch, LINES[1].pitch)


def test_pieces_are_chosen_by_kind():
    index = index_of_pairs()
    assert [list(Filters.parse(kind=kind).select(index)[0]) for kind in ("midi", "score", "audio")] == [
        [0],
        [1],
        [0, 1],
    ]
    assert list(Filters.parse(kind="score", tempo="90-110").select(index)[0]) == [1]


def test_bars_are_printed_of_scores_alone():
    hits = [Hit("a.xml", 0.5, 0.0, 20.0, 1, 8, 0.9), Hit("b.mid", 0.4, 0.0, 20.0, fit=0.8)]
    assert "0:00-0:20 bars 1-8" in as_table(hits) and as_table(hits).count("bars") == 1
    score, midi = json.loads(as_json(hits))
    assert (score["start_measure"], score["end_measure"], score["fit"]) == (1, 8, 0.9)
    assert "start_measure" not in midi
    assert as_csv(hits).splitlines()[1:] == ["1,0.5,a.xml,0.0,20.0,0.9,1,8", "2,0.4,b.mid,0.0,20.0,0.8,,"]


def test_a_score_with_a_voice_is_in_an_index_unless_solo_only_refuses_it(tmp_path, tiny_checkpoint, capsys):
    pytest.importorskip("verovio")
    from .test_scores import SIMPLE, SONG

    music, output = tmp_path / "music", tmp_path / "index"
    music.mkdir()
    (music / "solo.musicxml").write_text(SIMPLE)
    (music / "song.musicxml").write_text(SONG)
    command = ["index", str(music), "--output", str(output), "--checkpoint", str(tiny_checkpoint)]
    for solo_only, pieces in ((False, 2), (True, 1), (False, 2)):
        assert cli.main(command + ["--solo-only"] * solo_only) == (2 if solo_only else 0)
        out, err = capsys.readouterr()
        assert f"{pieces} pieces" in out and ("it has a part for Voice" in err) == solo_only
    index = EmbeddingIndex.load(output)
    chosen, _ = Filters.parse(solo_only=True).select(index)
    assert [index.path(piece) for piece in chosen] == [str(music / "solo.musicxml")]


def test_indexing_reads_a_score_once(tmp_path, tiny_model, tiny_processor, monkeypatch):
    pytest.importorskip("verovio")
    from .test_scores import ABC

    (tmp_path / "tune.abc").write_text(ABC)
    read, ask = [], score_pianobind.ask_verovio
    monkeypatch.setattr(score_pianobind, "ask_verovio", lambda *given: read.append(given) or ask(*given))
    index = EmbeddingIndex.build(tiny_model, tiny_processor, tmp_path)
    (row,) = index.file_table.rows()
    assert len(read) == 1
    assert (
        row.facts[0] == pytest.approx(4 * 60 / 76, abs=0.3)
        and row.measures.tolist() == [[1, 2]]
        and len(row.notes) == 3
    )


def test_facts_of_a_score_are_those_of_its_notes(tmp_path):
    pytest.importorskip("verovio")
    from .test_scores import ABC

    path = tmp_path / "tune.abc"
    path.write_text(ABC)
    facts, _ = read_facts(str(path), SPANS)
    assert facts.seconds == pytest.approx(4 * 60 / 76, abs=0.3) and facts.other_tracks == 0
