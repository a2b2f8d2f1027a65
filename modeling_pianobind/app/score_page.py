"""The score page of a hit, with matching measures marked and the times that move the playhead.

verovio draws it offline. The drawing goes to the browser as an image, in which nothing can run; marks and playhead lie
above it.
"""

import base64
import html
import os
from dataclasses import dataclass

import numpy as np

from ..index.note_alignment import NoteLine, match
from ..notes_pianobind import notes_from_score
from ..score_pianobind import DrawnPage, draw_score, read_score


@dataclass
class ScorePage:
    """A score page, aligned with a piece that is played.

    Attributes:
        drawn (`DrawnPage`): the page.
        times (`dict[int, float]`): the second in the piece at which each measure on it begins.
        marked (`set[int]`): the measures that match.
    """

    drawn: DrawnPage
    times: dict[int, float]
    marked: set[int]


def score_page(path: str | os.PathLike, window: tuple[float, float], notes: NoteLine | None = None) -> ScorePage:
    """Draws the page on which a window begins.

    Args:
        path: of the score.
        window (`tuple[float, float]`): seconds in the piece that is played.
        notes (`NoteLine`, *optional*): of that piece, if it is not the score itself.
    Raises:
        ValueError, OSError: the score cannot be read or drawn, or does not align with the piece.
    """
    reading = read_score(path)
    starts, _ = reading.measure_starts()
    if notes is not None:
        aligned = match(NoteLine.of(notes_from_score(reading.midi, str(path))), notes)
        if aligned is None:
            raise ValueError(f"{path}: it has too few notes to be aligned with this piece; show it by itself.")
        first, second = aligned.path.T
        times, kept = np.unique(first, return_index=True)  # several segments may begin with one note
        starts = np.interp(starts, times, second[kept])
    begin = max(0, int(np.searchsorted(starts, window[0] + 1e-3, side="right")) - 1)
    end = max(begin + 1, int(np.searchsorted(starts, window[1] - 1e-3)))
    drawn = draw_score(path, begin)
    return ScorePage(
        drawn, {place: float(starts[place]) for place in drawn.boxes}, set(range(begin, end)) & set(drawn.boxes)
    )


def page_html(page: ScorePage, name: str) -> str:
    """A page for the browser; `page.js` moves the playhead by `data-times`."""
    image = base64.b64encode(page.drawn.svg.encode()).decode()
    boxes = page.drawn.boxes
    marks = "".join(
        '<rect class="match" x="{}" y="{}" width="{}" height="{}"/>'.format(*box)
        for box in dict.fromkeys(boxes[place] for place in sorted(page.marked))
    )
    times = ";".join(
        ",".join(f"{value:.2f}" for value in (page.times[place], *boxes[place])) for place in sorted(boxes)
    )
    width, height = page.drawn.size
    return (
        f'<figure class="pb-page" data-times="{times}"><img alt="Page of the score {html.escape(name)}" '
        f'src="data:image/svg+xml;base64,{image}"><svg viewBox="0 0 {width:g} {height:g}" aria-hidden="true">'
        f'{marks}<rect class="playhead" width="0" height="0"/></svg></figure>'
    )


__all__ = ["ScorePage", "page_html", "score_page"]
