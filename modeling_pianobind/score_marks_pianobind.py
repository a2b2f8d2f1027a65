"""Tempo and loudness of a score, computed from its words and signs."""

import re
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

DEFAULT_BEATS_A_MINUTE = 100.0  # of a score without marks
# Beats a minute by the words that scores begin with, the middle of what metronomes and editions give. The longest
# words that are found decide: "allegro ma non troppo" is not "allegro", "andantino" no "andante".
TEMPO_WORDS = {
    **dict.fromkeys(("larghissimo", "grave", "sehr langsam", "very slow", "très lent", "tres lent"), 42.0),
    **dict.fromkeys(("largo", "adagissimo"), 48.0),
    **dict.fromkeys(("lento", "langsam", "slow", "slowly", "lent", "lentement", "gravement"), 54.0),
    **dict.fromkeys(("larghetto", "adagio", "broadly", "breit"), 60.0),
    **dict.fromkeys(("adagietto", "getragen", "largement", "ziemlich langsam", "feierlich", "molto andante"), 66.0),
    **dict.fromkeys(("andante", "gehend", "ruhig", "calm", "calmly", "calme", "sostenuto", "innig"), 76.0),
    **dict.fromkeys(
        ("andantino", "andante con moto", "moderately slow", "tranquillo", "tempo di marcia funebre"), 84.0
    ),
    **dict.fromkeys(("moderato", "mässig", "mäßig", "massig", "moderately", "moderate", "modéré", "modere"), 100.0),
    **dict.fromkeys(
        ("allegretto", "poco allegro", "etwas bewegt", "con moto", "tempo giusto", "animé", "anime"), 112.0
    ),
    **dict.fromkeys(("allegro moderato", "allegro ma non troppo", "allegro non troppo", "bewegt", "maestoso"), 116.0),
    **dict.fromkeys(("nicht zu schnell", "nicht schnell", "pas trop vite", "not too fast", "nicht zu rasch"), 112.0),
    **dict.fromkeys(("tempo di menuetto", "menuetto", "minuet", "menuet", "tempo di valse", "tempo di marcia"), 120.0),
    **dict.fromkeys(("allegro", "lebhaft", "lively", "fast", "animato", "agitato", "frisch", "gai", "munter"), 132.0),
    **dict.fromkeys(("allegro con brio", "allegro assai", "con brio", "allegro molto", "con fuoco", "rasch"), 144.0),
    **dict.fromkeys(("vivace", "molto allegro", "schnell", "quick", "vif", "vite", "con spirito", "brisk"), 152.0),
    **dict.fromkeys(
        ("vivacissimo", "presto", "sehr rasch", "sehr schnell", "very fast", "très vif", "tres vif"), 172.0
    ),
    **dict.fromkeys(("prestissimo", "so rasch wie möglich", "so schnell wie möglich", "as fast as possible"), 196.0),
}
BACK_WORDS = re.compile(r"\b(a tempo|tempo (i|1|primo|1°)|im tempo|au mouvement|first tempo)\b")
RELATIVE_WORDS = {
    re.compile(r"\b(più mosso|piu mosso|schneller|faster|plus vite|stretto|più vivo|piu vivo|più animato)\b"): 1.2,
    re.compile(r"\b(meno mosso|langsamer|slower|moins vite|più lento|piu lento|più tranquillo)\b"): 0.83,
    re.compile(r"\b(doppio movimento|double tempo)\b"): 2.0,
}
WORDS = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in sorted(TEMPO_WORDS, key=len, reverse=True)))
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
    words = WORDS.findall(text) if len(text) <= MAX_WORDS else []
    return TEMPO_WORDS[max(words, key=len)] if words else None


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
    told = dict(written)
    first = current = None
    for measure in measures:
        beat = beat_quarters(measure.meter)
        for mark in sorted(
            (mark for mark in measure.marks if mark["what"] in ("tempo", "dir")), key=lambda mark: mark["at"]
        ):
            at = measure.start + mark["at"]
            known = [quarters for place, quarters in numbers.items() if abs(place - at) < beat / 2]
            text = mark["text"].casefold()
            if known:
                current = known[0]
            elif (beats := beats_of_words(text)) is not None:
                told[at] = current = beats * beat
            elif len(text) > MAX_WORDS or current is None:
                continue
            elif BACK_WORDS.search(text):
                told[at] = current = first
            elif ratios := [ratio for words, ratio in RELATIVE_WORDS.items() if words.search(text)]:
                told[at] = current = current * ratios[0]
            first = first or current
        if measure.start in numbers:
            current = numbers[measure.start]
            first = first or current
    changes = sorted(told.items())
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
    for at in accents:
        velocity[np.abs(quarters - at) < 0.05] += ACCENT_STEP
    return np.clip(np.rint(velocity), 1, 127).astype(np.int64)


def _loudness(levels, swells) -> list[tuple[float, float]]:
    """Levels and swells as one line of points; a swell ends at the next level, if that lies in its direction."""
    places = [at for at, _ in levels]
    points = []
    for number, (at, level) in enumerate(levels):
        if points:
            points.append((at - 1e-6, points[-1][1]))
        points.append((at, level))
        until, following = levels[number + 1] if number + 1 < len(levels) else (float("inf"), None)
        for begin, end, sign in swells:
            if bisect_right(places, begin) - 1 != number or begin < points[-1][0]:
                continue
            aim = points[-1][1] + sign * HAIRPIN_STEP
            if following is not None and until <= end + 1 and (following - points[-1][1]) * sign > 0:
                aim = following
            points += [(begin, points[-1][1]), (min(end, until - 1e-6), aim)]
    return points


__all__ = ["DEFAULT_BEATS_A_MINUTE", "Measure", "beat_quarters", "beats_of_words", "tempo_changes", "velocities"]
