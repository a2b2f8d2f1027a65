"""Facts -> English, in many wordings; one caption is made of a few facts of a piece."""

import random
from typing import TYPE_CHECKING

from modeling_pianobind.labels_pianobind import TEMPLATES

from .facts import DIFFICULTY, FORMS, GENRES, MOOD_QUADRANT, OPEN_MOODS, PERIOD_OF

if TYPE_CHECKING:
    from .vocabulary import FactVocabulary

# wordings as adjectives before a noun, and as phrases after it; a fact without an entry is its own adjective
ADJECTIVES = {
    "fast": ("fast", "quick", "lively", "rapid", "brisk"),
    "slow": ("slow", "unhurried", "leisurely", "slow-paced"),
    "very fast": ("very fast", "virtuosic", "speedy", "furious"),
    "very slow": ("very slow", "extremely slow", "adagio"),
    "dense": ("dense", "busy", "full-textured", "thick"),
    "sparse": ("sparse", "minimal", "thin-textured", "spacious"),
    "low register": ("low", "deep", "dark-toned"),
    "high register": ("high", "high-pitched", "light-toned"),
    "quiet": ("quiet", "soft", "delicate", "hushed"),
    "loud": ("loud", "forceful", "strong", "forte"),
    "wide dynamics": ("dynamic", "expressive"),
    "steady dynamics": ("even-toned",),
    "chordal": ("chordal", "block-chord"),
    "single line": ("monophonic", "melodic"),
    "staccato": ("staccato", "detached", "short-noted"),
    "legato": ("legato", "flowing", "smooth"),
    "pedalled": ("resonant", "pedalled", "blurred"),
    "dry": ("dry", "unpedalled"),
    "major": ("major-key", "major", "major mode"),
    "minor": ("minor-key", "minor", "minor mode"),
    "even rhythm": ("steady", "regular"),
    "free rhythm": ("rubato", "free-flowing", "rhythmically free"),
    "dissonant": ("dissonant", "chromatic"),
    "happy": ("happy", "joyful", "cheery"),
    "energetic": ("energetic", "upbeat", "spirited"),
    "tense": ("tense", "anxious", "nervous"),
    "angry": ("angry", "aggressive"),
    "sad": ("sad", "sorrowful", "mournful"),
    "dark": ("dark", "gloomy"),
    "calm": ("calm", "peaceful", "tranquil"),
    "relaxing": ("relaxing", "soothing", "relaxed"),
    "melancholic": ("melancholic", "melancholy", "wistful"),
    "eerie": ("eerie", "creepy", "spooky"),
    "healing": ("healing", "comforting"),
    "easy": ("easy", "simple", "beginner"),
    "difficult": ("difficult", "advanced", "virtuoso"),
    "pop-piano cover": ("pop", "pop piano cover"),
    "new-age": ("new age", "new-age"),
    "film": ("film", "movie soundtrack", "cinematic"),
    "game": ("video game", "game"),
    "chinese folk": ("Chinese folk", "Chinese traditional"),
    "children": ("children's",),
    "worship": ("worship", "Christian worship", "church"),
    "k-pop": ("K-pop", "Korean pop"),
    "mandopop": ("Mandopop", "Chinese pop"),
    "western pop": ("Western pop",),
    "jazz": ("jazz", "jazzy"),
    "classical period": ("Viennese classical", "classical-period"),
    "romantic period": ("Romantic-era", "romantic period"),
    "modern": ("modernist", "twentieth-century"),
    "christmas": ("Christmas", "Christmas carol", "festive Christmas"),
    "hymn": ("hymn-like", "church hymn", "sacred"),
    "wedding": ("wedding", "bridal"),
    "boogie": ("boogie-woogie", "boogie"),
    "triple metre": ("waltz-time", "three-four", "lilting", "triple-metre"),
    "duple metre": ("march-time", "four-four", "two-beat", "duple-metre"),
    "syncopated": ("syncopated", "off-beat"),
    "swung": ("swung", "swinging", "shuffling"),
    "piano roll": ("piano roll",),
}
PHRASES = {
    "low register": ("in a low register", "low on the keyboard", "with deep bass notes"),
    "high register": ("in a high register", "high on the keyboard"),
    "quiet": ("played softly", "piano and pianissimo"),
    "loud": ("played loudly", "at full volume"),
    "wide dynamics": ("with wide dynamics", "with strong dynamic contrasts"),
    "steady dynamics": ("with even dynamics",),
    "wide range": ("across the whole keyboard", "with a wide range"),
    "narrow range": ("within a narrow range",),
    "chordal": ("in block chords", "with full chords"),
    "single line": ("with a single melodic line", "one note at a time"),
    "staccato": ("with short detached notes",),
    "legato": ("with long connected notes",),
    "pedalled": ("with sustain pedal", "with lots of pedal"),
    "dry": ("without pedal",),
    "major": ("in a major key", "in major", "in the major mode"),
    "minor": ("in a minor key", "in minor", "in the minor mode"),
    "fast": ("at a fast tempo", "with many quick notes"),
    "slow": ("at a slow tempo",),
    "dense": ("with many notes",),
    "sparse": ("with few notes",),
    "free rhythm": ("with rubato",),
    "even rhythm": ("with a steady rhythm",),
    "triple metre": ("in three-four time", "with three beats in a bar", "in waltz time"),
    "duple metre": ("in four-four time", "with two or four beats in a bar"),
    "syncopated": ("with syncopated rhythm", "with gentle syncopation"),
    "swung": ("with a swing feel",),
}
NOUNS = ("piano music", "piano piece", "piano", "music", "piece", "solo piano")
NOT_NOUNS = {"christmas", "blues", "wedding", "boogie"}
NOT_ADJECTIVES = {"wide range", "narrow range"}
GENERIC = ("piano music", "solo piano", "a piano piece")
CREATOR_PHRASES = ("by {}", "in the style of {}", "composed or played by {}", "{}")

MOODS = set(MOOD_QUADRANT) | OPEN_MOODS
STYLES = set(GENRES) | set(FORMS) | set(PERIOD_OF.values()) | set(DIFFICULTY.values()) | {"piano roll"}
STYLES |= {"triple metre", "duple metre", "syncopated", "swung"}


def kind_of(fact: str, creators: set[str]) -> str:
    """mood, style, key, creator or descriptor."""
    if fact in creators:
        return "creator"
    if fact in MOODS:
        return "mood"
    if fact in STYLES:
        return "style"
    return "key" if fact.endswith((" major", " minor")) else "descriptor"


KIND_WEIGHTS = {"mood": 3.0, "style": 3.0, "creator": 2.0, "descriptor": 1.0, "key": 0.25}


def choose_facts(true: set[str], creators: set[str], rng: random.Random) -> list[str]:
    """A few facts for one caption: one or two most of the time, up to six."""
    if not true:
        return []
    count = rng.choice((1, 1, 1, 2, 2, 3, 3, 4, 6))
    pool = sorted(true)
    weights = [KIND_WEIGHTS[kind_of(fact, creators)] for fact in pool]
    chosen = []
    while pool and len(chosen) < count:
        position = rng.choices(range(len(pool)), weights)[0]
        chosen.append(pool.pop(position))
        weights.pop(position)
    return chosen


def write_caption(facts: list[str], creators: set[str], rng: random.Random) -> str:
    """Writes facts in the style of a search query."""
    if not facts:
        return rng.choice(GENERIC)
    if rng.random() < 0.25:
        return ", ".join(_tag(fact, rng) for fact in facts)
    adjectives, nouns, phrases = [], [], []
    for fact in facts:
        kind = kind_of(fact, creators)
        if kind == "creator":
            phrases.append(rng.choice(CREATOR_PHRASES[:3]).format(fact))
        elif kind == "key":
            phrases.append(f"in {fact}")
        elif fact in FORMS and fact not in NOT_NOUNS and not nouns:
            nouns.append(fact)
        elif fact in NOT_ADJECTIVES or (fact in PHRASES and rng.random() < 0.5):
            phrases.append(rng.choice(PHRASES[fact]))
        else:
            adjectives.append((kind == "style", rng.choice(ADJECTIVES.get(fact, (fact,)))))
    rng.shuffle(adjectives)
    words = [word for _, word in sorted(adjectives, key=lambda pair: pair[0])]
    separator = rng.choice((", ", " ", " and ")) if len(words) == 2 else ", "
    noun = nouns[0] if nouns else rng.choice(NOUNS)
    caption = " ".join(part for part in (separator.join(words), noun, " ".join(phrases)) if part)
    style = rng.random()
    if style < 0.2:
        caption = f"{'an' if caption[0] in 'aeiouAEIOU' else 'a'} {caption}"
    elif style < 0.3:
        caption = f"This is {caption}."
    elif style < 0.35:
        caption = f"This is definitely {caption}"
    return caption


def _tag(fact: str, rng: random.Random) -> str:
    if fact in NOT_ADJECTIVES or fact not in ADJECTIVES:
        return fact
    return rng.choice(ADJECTIVES[fact])


def fact_wordings(vocabulary: "FactVocabulary", count: int = 12) -> list[list[str]]:
    """`count` short texts for every fact of a vocabulary: those that labels are searched by, and written ones."""
    wordings = []
    for fact in vocabulary.facts:
        rng = random.Random(fact)
        texts = [template.format(label=fact) for template in TEMPLATES]
        texts += [write_caption([fact], vocabulary.creators, rng) for _ in range(count - len(texts))]
        wordings.append(texts)
    return wordings


# The tags of PIAST by the facts that they stand for, and what its captions call them (Difficult/Advanced a mood).
PIAST_TAGS = {
    "pop-piano cover": ("Pop-Piano Cover", "genre"), "new-age": ("New-age", "genre"), "jazz": ("Jazz", "genre"),
    "ballad": ("Ballad", "genre"), "swing": ("Swing", "genre"), "classical": ("Classical", "genre"),
    "latin": ("Latin", "genre"), "ragtime": ("Ragtime", "genre"), "bossa nova": ("Bossa Nova", "genre"),
    "blues": ("Blues", "genre"), "funk": ("Funk", "genre"),
    "easy": ("Easy", "style"), "laid-back": ("Laid-back", "style"), "fast": ("Speedy", "style"),
    "very fast": ("Speedy", "style"), "difficult": ("Difficult/Advanced", "mood"),
    "calm": ("Relaxing/Calm", "mood"), "relaxing": ("Relaxing/Calm", "mood"), "peaceful": ("Relaxing/Calm", "mood"),
    "energetic": ("Upbeat/Energetic", "mood"), "upbeat": ("Upbeat/Energetic", "mood"),
    "intense": ("Intense/Grand", "mood"), "grand": ("Intense/Grand", "mood"), "powerful": ("Powerful", "mood"),
    "funny": ("Playful", "mood"), "melancholic": ("Sad", "mood"), "cheerful": ("Happy", "mood"),
}  # fmt: skip
PIAST_LEVELS = ("definitely", "also", "potentially")  # three, two or one of its annotators agree
TAG_WORDS = {"speedy": "fast", "advanced": "difficult", "pop piano cover": "pop-piano cover"}


def facts_of_tags(tags: list[str]) -> list[str]:
    """Tags as people write them -> facts: lower case, one word for one thing, `A/B` as two."""
    words = [word.strip() for tag in tags for word in tag.lower().split("/")]
    return list(dict.fromkeys(TAG_WORDS.get(word, word) for word in words if word))


def write_piast_caption(claims: list[tuple[str, str]]) -> str:
    """Writes facts in the grammar of PIAST's captions.

    Args:
        claims (`list[tuple[str, str]]`): how sure a fact is ("definitely", "also", "potentially"), and the fact. Facts
            that are neither a genre nor a style nor a mood cannot be said in this grammar and are left out.
    Returns:
        `str`: "This is definitely Jazz genre; also Laid-back style; potentially Happy mood of piano music.", or an
        empty string where nothing can be said.
    """
    clauses, said = [], set()
    for level in PIAST_LEVELS:
        for kind in ("genre", "style", "mood"):
            names = [_piast_tag(fact) for given, fact in claims if given == level]
            names = [name for name, of_kind in dict.fromkeys(filter(None, names)) if of_kind == kind]
            names = [name for name in names if name not in said]
            said.update(names)
            if names:
                clauses.append(f"{level} {', '.join(names)} {kind}")
    return f"This is {'; '.join(clauses)} of piano music." if clauses else ""


def _piast_tag(fact: str) -> tuple[str, str] | None:
    if fact in PIAST_TAGS:
        return PIAST_TAGS[fact]
    if fact in GENRES or fact in MOODS:
        return fact.title() if fact in GENRES else fact.capitalize(), "genre" if fact in GENRES else "mood"
    return None
