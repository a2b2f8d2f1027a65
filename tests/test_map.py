"""The map of a corpus: its layout, the page and the picture."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from modeling_pianobind.commands import map as map_command
from modeling_pianobind.index.layout import lay_out
from modeling_pianobind.index.note_alignment import NoteLine

from .test_cli import assert_one_line

LABELS = ["calm", "wild", "odd"]
LABEL_EMBEDS = np.eye(3, 8, dtype=np.float32)


def two_kinds(count=30) -> np.ndarray:
    """Pieces of which the first third is calm, the second wild, the last odd."""
    random = np.random.default_rng(0)
    embeds = random.normal(size=(count, 8)) * 0.05
    for kind in range(3):
        embeds[kind * count // 3 : (kind + 1) * count // 3, kind] += 1
    return (embeds / np.linalg.norm(embeds, axis=1, keepdims=True)).astype(np.float32)


def data_of(page: str) -> dict:
    return json.loads(re.search(r"^const data = (.*);$", page, re.MULTILINE)[1])


class TestLayout:
    def test_kinds_are_clusters_named_by_their_labels(self):
        layout = lay_out(two_kinds(), LABELS, LABEL_EMBEDS)
        assert [{*layout.cluster[start : start + 10].tolist()} for start in (0, 10, 20)] == [
            {layout.cluster[0]}, {layout.cluster[10]}, {layout.cluster[20]}
        ]  # fmt: skip
        assert [layout.names[layout.cluster[place]].split(",")[0] for place in (0, 10, 20)] == LABELS
        assert layout.words[0].startswith("calm")
        assert layout.points.min() == 0 and layout.points.max() == 1

    def test_neighbours_are_alike(self):
        layout = lay_out(two_kinds(), LABELS, LABEL_EMBEDS)
        apart = np.linalg.norm(layout.points[:, None] - layout.points, axis=2)
        np.fill_diagonal(apart, np.inf)
        kind = np.arange(30) // 10
        assert (kind[apart.argmin(axis=1)] == kind).mean() > 0.9

    @pytest.mark.parametrize("count", [1, 2, 3, 9])
    def test_a_few_pieces_are_laid_out_too(self, count):
        layout = lay_out(two_kinds()[:count], LABELS, LABEL_EMBEDS)
        assert layout.points.shape == (count, 2) and np.isfinite(layout.points).all()
        assert len(layout.names) == layout.cluster.max() + 1


def test_notes_are_packed_as_pitches_and_steps():
    line = NoteLine(np.array([60, 64, 67], np.uint8), np.array([1.0, 1.5, 9.0], np.float32))
    assert list(base64.b64decode(map_command.packed_notes(line))) == [60, 0, 64, 50, 67, 255]


def test_addresses_are_relative_and_quoted(tmp_path):
    assert map_command.address(str(tmp_path / "music" / "a b#1.mp3"), tmp_path) == "./music/a%20b%231.mp3"


class TestCommand:
    def test_the_page_holds_every_piece_and_no_network(self, pianobind, corpus, tmp_path, write_midi):
        write_midi(corpus / "<script>alert(1).mid", seed=8)
        status, out, err = pianobind("map", corpus, "--output", tmp_path / "map.html")
        assert (status, err) == (0, "") and "5 pieces" in out
        page = (tmp_path / "map.html").read_text()
        data = data_of(page)
        files = {piece["title"]: piece["file"] for piece in data["pieces"]}
        assert files["rain"] == "./corpus/rain.wav" and files["march"] == "./corpus/march.mid"
        assert {piece["title"]: bool(piece["notes"]) for piece in data["pieces"]} | {"rain": False} == {
            "<script>alert(1)": True, "march": True, "waltz": True, "rain": False, "take": False
        }  # fmt: skip
        assert "<script>alert" not in page and not re.search(r"https?://|src=|@import", page)

    def test_titles_come_from_the_metadata_file_of_the_folder(self, pianobind, tmp_path, write_midi):
        music = tmp_path / "music"
        (music / "deep").mkdir(parents=True)
        write_midi(music / "deep" / "a.mid", seed=1)
        (music / "metadata.csv").write_text("file_name,title,composer\ndeep/a.mid,Gymnopedie,Erik Satie\n")
        assert pianobind("map", music, "--output", tmp_path / "map.html")[0] == 0
        (piece,) = data_of((tmp_path / "map.html").read_text())["pieces"]
        assert (piece["title"], piece["detail"]) == ("Gymnopedie", "Erik Satie · deep · MIDI")

    def test_the_picture_is_a_png(self, pianobind, corpus, tmp_path):
        assert pianobind("map", corpus, "--output", tmp_path / "map.png")[0] == 0
        image = Image.open(io.BytesIO((tmp_path / "map.png").read_bytes()))
        assert image.format == "PNG" and min(image.size) > 500

    @pytest.mark.parametrize(
        ("output", "parts"),
        [("map.pdf", ["map.pdf", ".html"]), ("/nowhere/map.html", ["/nowhere/map.html", "folder"])],
    )
    def test_a_mistake_is_one_line(self, pianobind, corpus, output, parts):
        status, out, err = pianobind("map", corpus, "--output", output)
        assert (status, out) == (2, "")
        assert_one_line(err, *parts)
