"""The page's HTML: cards of pieces, and the maps. Every text that comes from a file or a person is escaped here."""

import html

import numpy as np

from ..commands.output import minutes_seconds
from ..service.piece_heads import QUADRANTS
from .library import Answer, Library, View

MAP_WIDTH, MAP_HEIGHT, MAP_MARGIN = 400, 300, 26
MAP_POINTS = 1_000  # more points overlap, and are slow to draw
# Drawn, since many systems have no font with the sign; upside down for "less" (`page.css`).
THUMB = (
    '<svg viewBox="0 0 24 24" aria-hidden="true">'
    '<path d="M3 11h4v10H3zM7 11l4-8c2 0 3 1 3 3l-1 4h6c1.5 0 2.3 1.2 2 2.5l-1.6 6.5c-.3 1.2-1.2 2-2.4 2H7"/></svg>'
)
MOOD_WORDS = {"left": "gloomy", "right": "bright", "bottom": "still", "top": "stirred"}


def escaped(text: object) -> str:
    """Text for HTML, in quotes or out of them; braces and dollars too, since gradio fills templates with the page."""
    text = html.escape(str(text))
    for character in "{}$`":
        text = text.replace(character, f"&#{ord(character)};")
    return text


def results(answer: Answer, thumbs: dict[str, str] | None = None) -> str:
    """The cards of a search, best first, below the notes about them.

    Args:
        thumbs (`dict[str, str]`, *optional*): "more" or "less" for the keys of pieces that got a thumb.
    """
    thumbs = thumbs or {}
    notes = "".join(f'<p class="pb-note" role="status">{escaped(_sentence(note))}</p>' for note in answer.notes)
    if not answer.views:
        return notes or '<p class="pb-empty">Nothing else is in this corpus.</p>'
    cards = "".join(card(view, rank, thumb=thumbs.get(view.key, "")) for rank, view in enumerate(answer.views, 1))
    return f'{notes}<section class="pb-results" aria-label="Pieces found">{cards}</section>'


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:].removesuffix('.')}."


def card(view: View, rank: int | None = None, action: bool = True, thumb: str | None = None) -> str:
    """One piece: its name, its roll to play, its tags.

    Args:
        rank (`int`, *optional*): its place in the ranking.
        action (`bool`): offer it as an example to search by.
        thumb (`str`, *optional*): offer thumbs, of which "more", "less" or "" is pressed.
    """
    title, length = escaped(view.title), "" if view.seconds is None else f" · {minutes_seconds(view.seconds)}"
    score = ""
    if view.fit is not None:
        score = (
            f'<span class="pb-score" title="how well it fits what you asked for; cosine {view.score:.2f}">'
            f"{round(100 * view.fit)}%</span>"
        )
    like = (
        f'<button type="button" class="pb-button" data-ask="like" data-key="{escaped(view.key)}" '
        f'aria-label="More like {title}, but …">More like this, but …</button>'
    )
    place = "" if rank is None else f'<span class="pb-rank">{rank}</span>'
    music = _player(view) if view.roll else f'<p class="pb-problem">{escaped(view.problem)}</p>'
    return (
        f'<article class="pb-card" data-key="{escaped(view.key)}">'
        f'<header>{place}<div class="pb-name"><h3>{title}</h3><p>{escaped(view.subtitle)}{length}</p></div>{score}'
        f"{'' if thumb is None else _thumbs(view, thumb)}</header>{music}"
        f'<div class="pb-foot">{_tags(view)}{like if action else ""}</div></article>'
    )


def _player(view: View) -> str:
    middle = sum(view.window) / 2 if view.window else 0.0
    cue = min(max(view.window[0] if view.window else 0.0, view.start_seconds), view.end_seconds)
    best = f"best match {minutes_seconds(view.window[0])} to {minutes_seconds(view.window[1])}" if view.window else ""
    title, length = escaped(view.title), view.end_seconds - view.start_seconds
    moods = ""
    if view.moods:
        words = "solid: bright above, gloomy below; dotted: stirred above, still below"
        moods = f'<div class="pb-moods" title="{words}">{view.moods}</div>'
    score = ""
    if view.has_score:
        start, end = view.window or (view.start_seconds, view.start_seconds + 20.0)
        score = (
            f'<button type="button" class="pb-button pb-score-button" data-page="score/{escaped(view.key)}?'
            f'start={start:.2f}&amp;end={end:.2f}" aria-label="Show the score of {title}">Show the score</button>'
        )
    return (
        f'<div class="pb-player" data-audio="audio/{escaped(view.key)}.flac?middle={middle:.2f}" '
        f'data-start="{view.start_seconds:.2f}" data-cue="{cue - view.start_seconds:.2f}" data-seconds="{length:.2f}">'
        f'<button type="button" class="pb-play" aria-label="Play {title}"><span aria-hidden="true"></span></button>'
        f'<div class="pb-roll" role="slider" tabindex="0" aria-label="Position in {title}, seconds" aria-valuemin="0" '
        f'aria-valuemax="{length:.0f}" aria-valuenow="0">{view.roll}<i class="pb-head" hidden></i></div>{moods}'
        f'<div class="pb-times"><span>{minutes_seconds(view.start_seconds)}</span><span class="pb-match">{best}</span>'
        f'<span>{minutes_seconds(view.end_seconds)}</span></div><p class="pb-said" role="status"></p>{score}</div>'
    )


def _thumbs(view: View, pressed: str) -> str:
    buttons = "".join(
        f'<button type="button" class="pb-thumb" data-ask="{ask}" data-key="{escaped(view.key)}" '
        f'aria-pressed="{str(ask == pressed).lower()}" aria-label="{words}: {escaped(view.title)}" title="{words}">'
        f"{THUMB}</button>"
        for ask, words in (("more", "More such music"), ("less", "Less such music"))
    )
    return f'<span class="pb-thumbs">{buttons}</span>'


def _tags(view: View) -> str:
    rows = "".join(
        f'<li><span>{escaped(label)}</span><i style="width:{max(4, round(100 * share))}%"></i></li>'
        for label, share in view.tags
    )
    return f'<ul class="pb-tags" aria-label="Words that fit">{rows}</ul>'


def example_card(view: View) -> str:
    """The piece that is searched by, above the results."""
    remove = '<button type="button" class="pb-button" data-ask="clear">Search without it</button>'
    title = f"<h2>Like this {remove}</h2>"
    return f'<section class="pb-example" aria-label="Your example">{title}{card(view, action=False)}</section>'


def corpus_map(library: Library, views: list[View] = (), shown: str = "") -> str:
    """The maps of the corpus: by how pieces sound, and by their mood where the checkpoint tells it.

    The page shows one of them, `page.js` says which.

    Args:
        views (`list[View]`): what a search found, marked by rank.
        shown (`str`): the key of the piece that is shown beside the map.
    """
    ranks = {view.key: rank for rank, view in enumerate(views, 1)}
    chosen = set(np.linspace(0, len(library) - 1, min(len(library), MAP_POINTS)).astype(int).tolist())
    chosen |= {int(key) for key in (*ranks, shown) if key.isdecimal()}
    order = sorted(chosen, key=lambda number: (str(number) == shown, str(number) in ranks))  # the marked ones on top
    note = "" if len(library) <= MAP_POINTS else f" {len(chosen)} of {len(library)} pieces are drawn."
    maps = {"sound": (library.map_points, library.map_words, "", "Near each other: alike.")}
    if library.mood_points is not None:
        maps["mood"] = (library.mood_points, MOOD_WORDS, _quadrants(), "Right: brighter; up: more stirred.")
    drawn = []
    for kind, (places, words, ground, said) in maps.items():
        points = "".join(_point(library, number, places[number], ranks, shown) for number in order)
        drawn.append(
            f'<section class="pb-map pb-by-{kind}" aria-label="Map of the corpus by {kind}">'
            f"{_map_buttons(kind) if len(maps) > 1 else ''}"
            f'<svg viewBox="0 0 {MAP_WIDTH} {MAP_HEIGHT}" role="group" '
            f'aria-label="Pieces; arrow keys move, Enter shows one">{ground}{_edges(words)}{points}</svg>'
            f"<p>{said} Click a point to see and hear it.{note}</p></section>"
        )
    return "".join(drawn)


def _map_buttons(drawn: str) -> str:
    buttons = "".join(
        f'<button type="button" class="pb-button" data-map="{kind}" aria-pressed="{str(kind == drawn).lower()}">'
        f"By {kind}</button>"
        for kind in ("sound", "mood")
    )
    return f'<div class="pb-kinds" role="group" aria-label="What the map is by">{buttons}</div>'


def _edges(words: dict[str, str]) -> str:
    """What a map's edges say."""
    middle_x, middle_y = MAP_WIDTH / 2, MAP_HEIGHT / 2
    return "".join(
        f'<text x="{x}" y="{y}" class="pb-edge"{turn}>{escaped(text)}</text>'
        for text, x, y, turn in (
            (words["top"], middle_x, 13, ""),
            (words["bottom"], middle_x, MAP_HEIGHT - 6, ""),
            (words["left"], 13, middle_y, f' transform="rotate(-90 13 {middle_y})"'),
            (words["right"], MAP_WIDTH - 13, middle_y, f' transform="rotate(90 {MAP_WIDTH - 13} {middle_y})"'),
        )
    )


def _quadrants() -> str:
    """The ground of the map by mood: a cross through its middle, and the names of the four quadrants."""
    left, right, top, bottom = MAP_MARGIN, MAP_WIDTH - MAP_MARGIN, MAP_MARGIN, MAP_HEIGHT - MAP_MARGIN
    cross = f"M{left} {MAP_HEIGHT / 2}H{right}M{MAP_WIDTH / 2} {top}V{bottom}"
    middles = ((0.75, 0.25), (0.25, 0.25), (0.25, 0.75), (0.75, 0.75))
    names = "".join(
        f'<text x="{x * MAP_WIDTH}" y="{y * MAP_HEIGHT + 5}" class="pb-quadrant">{name}</text>'
        for name, (x, y) in zip(QUADRANTS, middles, strict=True)
    )
    return f'<path class="pb-cross" d="{cross}"/>{names}'


def _point(library: Library, number: int, place: np.ndarray, ranks: dict, shown: str) -> str:
    """A piece on a map, at a place from -1 to 1."""
    key = str(number)
    x, y = place
    left = MAP_MARGIN + (x + 1) / 2 * (MAP_WIDTH - 2 * MAP_MARGIN)
    top = MAP_MARGIN + (1 - y) / 2 * (MAP_HEIGHT - 2 * MAP_MARGIN)
    title = escaped(" · ".join(part for part in library.name(number) if part))
    rank = ranks.get(key)
    state = ("pb-shown " if key == shown else "") + ("pb-found" if rank else "")
    label = f'<text x="{left:.1f}" y="{top + 3.2:.1f}">{rank}</text>' if rank else ""
    return (
        f'<g class="pb-point {state}" data-ask="show" data-key="{key}" role="button" tabindex="-1" '
        f'aria-label="{f"{rank}. " if rank else ""}{title}"><title>{title}</title>'
        f'<circle cx="{left:.1f}" cy="{top:.1f}" r="{8 if rank else 5}"/>{label}</g>'
    )


__all__ = ["card", "corpus_map", "escaped", "example_card", "results"]
