"""The page of a score in the app: its bars, their times, and whose score it is."""

import re

import numpy as np
import pytest

from modeling_pianobind.app.score_page import page_html, score_page
from modeling_pianobind.index.note_alignment import NoteLine
from modeling_pianobind.notes_pianobind import read_midi
from modeling_pianobind.score_pianobind import draw_score

from .test_duplicates import music, played
from .test_score_pairs import printed
from .test_scores import SIMPLE

pytest.importorskip("verovio")


@pytest.fixture(scope="module")
def score(tmp_path_factory):
    notes = music(7, 160)
    notes.pitch = notes.pitch - np.isin(notes.pitch % 12, [1, 3, 6, 8, 10])
    path = tmp_path_factory.mktemp("scores") / "<b>one.musicxml"
    path.write_text(printed(notes))
    return path, notes


def test_a_page_has_its_measures_from_left_to_right_and_repeats_at_one_place():
    page = draw_score(SIMPLE.encode(), 0)
    assert page.svg.startswith("<svg") and set(page.boxes) == {0, 1, 2, 3}
    assert page.boxes[0] == page.boxes[2] and page.boxes[1] == page.boxes[3]
    (left, top, width, height), second = page.boxes[0], page.boxes[1]
    assert left + width == pytest.approx(second[0], abs=2) and top == second[1]
    assert second[0] + second[2] <= page.size[0] and top + height <= page.size[1]
    with pytest.raises(ValueError, match="no such measure"):
        draw_score(SIMPLE.encode(), 99)


def test_the_matching_bars_are_marked_and_timed(score):
    path, _ = score
    starts = read_midi(path).onset[::4]  # a bar of four eighths
    page = score_page(path, (starts[3], starts[6]))
    assert page.marked == {3, 4, 5}
    assert [page.times[place] for place in (0, 5)] == pytest.approx([0, starts[5]], abs=1e-2)
    html = page_html(page, path.name)
    assert html.count('class="match"') == 3 and "<b>" not in html
    assert len(re.search('data-times="([^"]*)"', html)[1].split(";")) == len(page.times)


def test_a_performance_shows_the_bars_of_its_score(score):
    path, notes = score
    performance = played(notes, 1, 0.5)
    page = score_page(path, (performance.onset[64], performance.onset[80]), NoteLine.of(performance))
    assert page.marked and abs(min(page.marked) - 16) <= 3
    with pytest.raises(ValueError, match="too few notes"):
        score_page(path, (0.0, 1.0), NoteLine.of(None))
