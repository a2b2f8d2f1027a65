"""Tempo and loudness of a score, computed from its words and signs."""

import re
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

DEFAULT_BEATS_A_MINUTE = 100.0  # of a score without marks
# Beats a minute by the words that scores begin with, the middle of what metronomes and editions give. The longest
# words that are found decide: "allegro ma non troppo" is not "allegro", "andantino" no "andante".
_TEMPO_WORDS = {
    42.0: "larghissimo, grave, sehr langsam, very slow, très lent, tres lent",
    48.0: "largo, adagissimo",
    54.0: "lento, langsam, slow, slowly, lent, lentement, adagio sostenuto",
    60.0: "larghetto, adagio, broadly, breit, etwas langsam, assez lent",
    66.0: "adagietto, ziemlich langsam, molto andante, andante sostenuto",
    76.0: "andante, gehend, walking",
    84.0: "andantino, andante con moto, moderately slow, tempo di marcia funebre, marcia funebre, allant, gemächlich",
    100.0: "moderato, mässig, massig, moderately, moderate, modéré, modere, modérément",
    112.0: "allegretto, poco allegro, etwas bewegt, animé, anime, modérément animé, nicht zu schnell, nicht schnell, "
    "nicht zu rasch, pas trop vite, pas vite, not too fast",
    116.0: "allegro moderato, allegro ma non troppo, allegro non troppo, allegro ma non tanto, allegro maestoso, "
    "moderately fast, mässig schnell, bewegt",
    120.0: "tempo di menuetto, tempo di minuetto, menuetto, minuetto, minuet, menuet, menuett, tempo di valse, "
    "tempo di marcia, alla marcia",
    132.0: "allegro, lebhaft, lively, fast, brightly, frisch, gai, munter, très animé, tres animé",
    138.0: "ziemlich schnell, assez vif, vivace ma non troppo",
    144.0: "allegro con brio, allegro assai, allegro molto, allegro di molto, allegro vivace, rasch, briskly, brisk",
    152.0: "vivace, vivo, molto allegro, schnell, quick, quickly, vif, vite, rapide, allegro con spirito",
    172.0: "vivacissimo, presto, sehr rasch, sehr schnell, very fast, très vif, tres vif, très vite",
    196.0: "prestissimo, so rasch wie möglich, so schnell wie möglich, as fast as possible",
}
# Of words on the character of a piece, where no other mark stands with them.
_CHARACTER_WORDS = {
    54.0: "gravement",
    66.0: "getragen, largement, feierlich",
    76.0: "ruhig, calm, calmly, calme, sostenuto, innig",
    84.0: "tranquillo",
    112.0: "con moto, tempo giusto",
    116.0: "maestoso",
    132.0: "animato, agitato, vivement",
    144.0: "con brio, con fuoco",
    152.0: "con spirito, with spirit",
}
BACK_WORDS = re.compile(r"\b(a tempo|tempo (i|1|primo|1°)|im tempo|au mouvement|first tempo)\b")
RELATIVE_WORDS = {
    re.compile(r"\b(più mosso|piu mosso|schneller|faster|plus vite|stretto|più vivo|piu vivo|più animato)\b"): 1.2,
    re.compile(r"\b(meno mosso|langsamer|slower|moins vite|più lento|piu lento|più tranquillo)\b"): 0.83,
    re.compile(r"\b(doppio movimento|double tempo)\b"): 2.0,
}


def _beats(table: dict[float, str]) -> dict[str, float]:
    """Beats by words in lower case, the longest first."""
    beats = {word.casefold(): number for number, words in table.items() for word in words.split(", ")}
    return dict(sorted(beats.items(), key=lambda item: -len(item[0])))


TEMPO_WORDS = [
    (beats, re.compile("|".join(rf"\b{re.escape(word)}\b" for word in beats)))
    for beats in map(_beats, (_TEMPO_WORDS, _CHARACTER_WORDS))
]
MAX_WORDS = 60  # a longer line is a preface

LEVELS = {"pppp": 20, "ppp": 28, "pp": 38, "p": 50, "mp": 60, "mf": 70, "f": 84, "ff": 98, "fff": 110, "ffff": 120}
LEVELS |= {"piano": 50, "forte": 84, "pianissimo": 38, "fortissimo": 98, "mezzoforte": 70, "mezzo forte": 70}
DEFAULT_LEVEL = 70
ACCENTS = {"sf", "sfz", "fz", "sffz", "sfp", "rf", "rfz", "sforzando", "rinforzando"}
ACCENT_STEP, HAIRPIN_STEP = 16, 14
LEVEL_WORDS = re.compile(r"\b(" + "|".join(sorted(LEVELS, key=len, reverse=True)) + r")\b")
SWELLS = re.compile(r"\b(cresc|crescendo|decresc|decrescendo|dim|dimin|diminuendo|morendo|smorzando|calando)\b")
SWELL_QUARTERS = 16.0  # that "cresc." lasts where no dynamic ends it


@dataclass
class Measure:
    """A measure as it is played; a repeated one is there each time.

    Attributes:
        start (`float`): quarters from the beginning.
        name (`str`): its number in print.
        meter (`tuple[int, int]` or None): beats and what a beat is, as 6 and 8.
        marks (`list[dict]`): see `score_worker_pianobind`.
    """

    start: float
    name: str
    meter: tuple[int, int] | None = None
    marks: list[dict] = field(default_factory=list)


def beats_of_words(text: str) -> float | None:
    """Beats a minute that words stand for, such as "Andante con moto"; None for words without a tempo."""
    text = text.casefold()
    for beats, words in TEMPO_WORDS if len(text) <= MAX_WORDS else ():
        if matches := words.findall(text):
            return beats[max(matches, key=len)]
    return None


def _ratio_of_words(text: str) -> float | None:
    """How many times as fast words such as "più mosso" say, in lower case; None for others."""
    ratios = (ratio for words, ratio in RELATIVE_WORDS.items() if len(text) <= MAX_WORDS and words.search(text))
    return next(ratios, None)


def beat_quarters(meter: tuple[int, int] | None) -> float:
    """How many quarters a beat has: three eighths in 6/8, a half in 2/2."""
    if meter is None:
        return 1.0
    count, unit = meter
    return 4 / unit * (3 if count % 3 == 0 and count > 3 and unit >= 8 else 1)


def tempo_changes(measures: list[Measure], written: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The tempi of a score by its numbers and, where it has none, its words.

    Args:
        measures (`list[Measure]`): in the order in which they are played.
        written (`list[tuple]`): quarters from the beginning, and the quarters a minute that the file itself gives.
    Returns:
        `list[tuple]`: the same for all tempi; the first begins at 0.
    """
    numbers = dict(written)
    tempo_at, places = dict(written), sorted(numbers)
    first = current = None
    for measure in measures:
        beat = beat_quarters(measure.meter)
        for mark in sorted(
            (mark for mark in measure.marks if mark["what"] in ("tempo", "dir")), key=lambda mark: mark["at"]
        ):
            at = measure.start + mark["at"]
            near = bisect_right(places, at - beat / 2)
            text = mark["text"].casefold()
            if near < len(places) and places[near] < at + beat / 2:
                current = numbers[places[near]]
            elif current and len(text) <= MAX_WORDS and BACK_WORDS.search(text):
                tempo_at[at] = current = first
            elif current and (ratio := _ratio_of_words(text)) is not None:
                tempo_at[at] = current = current * ratio
            elif (beats := beats_of_words(text)) is not None:
                tempo_at[at] = current = beats * beat
            first = first or current
        if measure.start in numbers:
            current = numbers[measure.start]
            first = first or current
    changes = sorted(tempo_at.items())
    if not changes:
        return [(0.0, DEFAULT_BEATS_A_MINUTE)]
    # What stands over the first notes, or soon after an upbeat, holds for them too.
    return [(0.0, changes[0][1]), *changes[1:]] if changes[0][0] < 8 else [(0.0, DEFAULT_BEATS_A_MINUTE), *changes]


def velocities(measures: list[Measure], quarters: np.ndarray) -> np.ndarray:
    """How loud notes are by the dynamics and hairpins of all staves.

    Args:
        measures (`list[Measure]`): in the order in which they are played.
        quarters (`np.ndarray` of shape `(notes,)`): when notes begin.
    Returns:
        `np.ndarray` of shape `(notes,)`, int64, 1 to 127.
    """
    levels, swells, accents = [(-1.0, float(DEFAULT_LEVEL))], [], []
    for number, measure in enumerate(measures):
        for mark in measure.marks:
            at, text = measure.start + mark["at"], mark["text"].casefold().strip(" .")
            if mark["what"] == "hairpin":
                later, quarter = mark.get("end", (0, mark["at"] + 4))
                end = measures[min(number + later, len(measures) - 1)].start + quarter
                swells.append((at, max(end, at), 1 if mark.get("form") == "cres" else -1))
                continue
            swell = SWELLS.search(text) if mark["what"] in ("dynam", "dir") else None
            if mark["what"] == "dynam" and text in ACCENTS:
                accents.append(at)
            elif swell:
                swells.append((at, at + SWELL_QUARTERS, 1 if swell[0].startswith("cresc") else -1))
            elif mark["what"] == "dynam" and (level := LEVEL_WORDS.search(text)):
                levels.append((at, float(LEVELS[level[0]])))
            elif mark["what"] == "dynam" and text == "fp":
                levels.append((at + 0.5, float(LEVELS["p"])))
                accents.append(at)
    curve = _loudness(sorted(levels), sorted(swells))
    places, values = np.array(curve).T
    velocity = np.interp(quarters, places, values)
    accents = np.sort(accents)
    velocity += ACCENT_STEP * (np.searchsorted(accents, quarters + 0.05) - np.searchsorted(accents, quarters - 0.05))
    return np.clip(np.rint(velocity), 1, 127).astype(np.int64)


def _loudness(levels: list[tuple[float, float]], swells: list[tuple[float, float, int]]) -> list[tuple[float, float]]:
    """Levels and swells as one line of points; a swell ends at the next level, if that lies in its direction."""
    places = [at for at, _ in levels]
    begun = {}
    for swell in swells:
        begun.setdefault(bisect_right(places, swell[0]) - 1, []).append(swell)
    points = []
    for number, (at, level) in enumerate(levels):
        if points:
            points.append((at - 1e-6, points[-1][1]))
        points.append((at, level))
        until, following = levels[number + 1] if number + 1 < len(levels) else (float("inf"), None)
        for begin, end, sign in begun.get(number, ()):
            if begin < points[-1][0]:
                continue
            aim = points[-1][1] + sign * HAIRPIN_STEP
            if following is not None and until <= end + 1 and (following - points[-1][1]) * sign > 0:
                aim = following
            points += [(begin, points[-1][1]), (min(end, until - 1e-6), aim)]
    return points


__all__ = ["DEFAULT_BEATS_A_MINUTE", "Measure", "beat_quarters", "beats_of_words", "tempo_changes", "velocities"]
