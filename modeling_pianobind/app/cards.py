"""The page's HTML: cards of pieces, and the map. Every text that comes from a file or a person is escaped here."""

import html

import numpy as np

from ..commands.output import minutes_seconds
from .library import Answer, Library, View

MAP_WIDTH, MAP_HEIGHT, MAP_MARGIN = 400, 300, 26
MAP_POINTS = 1_000  # more points overlap, and are slow to draw


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
        f"{sign}</button>"
        for ask, words, sign in (("more", "More such music", "&#128077;"), ("less", "Less such music", "&#128078;"))
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
    """The map of the corpus.

    Args:
        views (`list[View]`): what a search found, marked by rank.
        shown (`str`): the key of the piece that is shown beside the map.
    """
    ranks = {view.key: rank for rank, view in enumerate(views, 1)}
    chosen = set(np.linspace(0, len(library) - 1, min(len(library), MAP_POINTS)).astype(int).tolist())
    chosen |= {int(key) for key in (*ranks, shown) if key.isdecimal()}
    order = sorted(chosen, key=lambda number: (str(number) == shown, str(number) in ranks))  # the marked ones on top
    points = "".join(_point(library, number, ranks, shown) for number in order)
    note = "" if len(library) <= MAP_POINTS else f" {len(chosen)} of {len(library)} pieces are drawn."
    words = library.map_words
    middle_x, middle_y = MAP_WIDTH / 2, MAP_HEIGHT / 2
    edges = "".join(
        f'<text x="{x}" y="{y}" class="pb-edge"{turn}>{escaped(text)}</text>'
        for text, x, y, turn in (
            (words["top"], middle_x, 13, ""),
            (words["bottom"], middle_x, MAP_HEIGHT - 6, ""),
            (words["left"], 13, middle_y, f' transform="rotate(-90 13 {middle_y})"'),
            (words["right"], MAP_WIDTH - 13, middle_y, f' transform="rotate(90 {MAP_WIDTH - 13} {middle_y})"'),
        )
    )
    return (
        f'<section class="pb-map" aria-label="Map of the corpus"><svg viewBox="0 0 {MAP_WIDTH} {MAP_HEIGHT}" '
        f'role="group" aria-label="Pieces; arrow keys move, Enter shows one">{edges}{points}</svg>'
        f"<p>Near each other: alike. Click a point to see and hear it.{note}</p></section>"
    )


def _point(library: Library, number: int, ranks: dict, shown: str) -> str:
    key = str(number)
    x, y = library.map_points[number]
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
