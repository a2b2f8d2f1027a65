"""Facts of a piece from its labels: facts that hold, facts that do not, and unknown ones."""

import re

QUADRANT_MOODS = {1: ("happy", "energetic"), 2: ("tense", "intense"), 3: ("sad", "dark"), 4: ("calm", "relaxing")}

# mood -> emotion quadrant (Russell's circumplex: 1 = positive and excited, counted as EMOPIA does)
MOOD_QUADRANT = {
    "happy": 1, "energetic": 1, "cheerful": 1, "playful": 1, "cute": 1, "uplifting": 1, "bright": 1, "upbeat": 1,
    "tense": 2, "intense": 2, "angry": 2, "eerie": 2, "passionate": 2, "powerful": 2, "epic": 2, "grand": 2,
    "sad": 3, "dark": 3, "lonely": 3, "melancholic": 3, "gloomy": 3,
    "calm": 4, "relaxing": 4, "gentle": 4, "healing": 4, "warm": 4, "peaceful": 4, "dreamy": 4, "laid-back": 4,
}  # fmt: skip
# moods that may hold together with those of a quadrant: unknown
OPEN_MOODS = {"romantic", "lyrical", "nostalgic", "mysterious", "emotional", "epic", "passionate", "neutral"}
QUADRANT_ALSO = {
    1: ("bright", "cheerful", "upbeat"),
    2: ("angry", "powerful", "passionate"),
    3: ("melancholic", "gloomy", "emotional"),
    4: ("peaceful", "gentle", "laid-back"),
}
# moods that rule each other out; without these, a mood that no quadrant rules out would have no negatives at all
_LIVELY_MOODS = {"happy", "energetic", "cheerful", "playful", "cute", "bright", "upbeat", "uplifting"}
_RESTING_MOODS = {"calm", "relaxing", "gentle", "healing", "peaceful", "laid-back"}
_UNEASY_MOODS = {"tense", "angry", "eerie"}
_MOODS_RULED_OUT = {
    "romantic": _UNEASY_MOODS | {"playful", "cute", "epic", "powerful"},
    "lyrical": _UNEASY_MOODS | {"energetic", "intense", "playful", "cute", "epic", "powerful"},
    "nostalgic": _UNEASY_MOODS | {"energetic", "playful", "cute", "epic", "powerful", "upbeat"},
    "mysterious": _LIVELY_MOODS | {"warm", "healing", "romantic", "lyrical", "passionate"},
    "emotional": {"playful", "cute", "eerie", "laid-back", "relaxing"},
    "epic": _RESTING_MOODS | {"playful", "cute", "cheerful", "warm", "lonely", "dreamy"},
    "passionate": _RESTING_MOODS | {"playful", "cute", "lonely", "warm", "dreamy"},
}
OPPOSITE_MOODS = {mood: set(others) for mood, others in _MOODS_RULED_OUT.items()}
for _mood, _others in _MOODS_RULED_OUT.items():
    for _other in _others:
        OPPOSITE_MOODS.setdefault(_other, set()).add(_mood)

GENRES = (
    "classical", "ragtime", "jazz", "pop-piano cover", "new-age", "anime", "film", "game", "etude", "chinese folk",
    "children", "worship", "ballad", "contemporary", "easy listening", "dance", "latin", "bossa nova", "tango",
    "rock", "mandopop", "k-pop", "western pop", "blues", "swing",
)  # fmt: skip
# genres that may also hold for a piece of the named one; every genre that is not listed is taken not to
ALSO_POSSIBLE = {
    "classical": {"dance", "etude", "contemporary", "tango", "latin"},
    "ragtime": {"dance", "jazz", "blues", "swing"},
    "jazz": {"latin", "bossa nova", "blues", "swing", "ballad", "easy listening", "contemporary", "dance"},
    "pop-piano cover": {"mandopop", "k-pop", "western pop", "anime", "rock", "ballad", "film", "game", "worship",
                        "easy listening", "contemporary", "new-age", "latin"},
    "new-age": {"easy listening", "contemporary", "ballad", "film", "pop-piano cover"},
    "anime": {"pop-piano cover", "film", "game", "new-age", "ballad", "contemporary"},
    "film": {"new-age", "anime", "pop-piano cover", "contemporary", "easy listening", "ballad", "classical", "game"},
    "game": {"anime", "film", "new-age", "contemporary", "pop-piano cover", "rock"},
    "etude": {"classical", "children"},
    "chinese folk": {"dance", "children"},
    "children": {"etude", "chinese folk", "pop-piano cover", "classical"},
    "worship": {"contemporary", "ballad", "pop-piano cover", "rock"},
    "ballad": {"easy listening", "pop-piano cover", "worship", "new-age", "mandopop", "k-pop", "western pop"},
    "contemporary": set(GENRES) - {"ragtime", "etude", "children", "chinese folk"},
    "easy listening": {"ballad", "new-age", "pop-piano cover", "jazz", "contemporary", "film", "classical"},
    "dance": {"classical", "latin", "tango", "ragtime", "jazz"},
    "latin": {"jazz", "bossa nova", "tango", "dance"},
    "bossa nova": {"jazz", "latin"},
    "tango": {"latin", "dance", "classical"},
    "rock": {"pop-piano cover", "western pop", "game"},
    "mandopop": {"pop-piano cover", "ballad", "film"},
    "k-pop": {"pop-piano cover", "ballad"},
    "western pop": {"pop-piano cover", "ballad", "rock"},
}  # fmt: skip

FORMS = {
    "waltz": r"waltz|valse|walzer|圆舞曲",
    "march": r"\bmarch|marsch|进行曲",
    "nocturne": r"nocturne|notturno|(?<!小)夜曲",
    "mazurka": r"mazurka",
    "etude": r"[eé]tude|\bstud(y|ies)\b|练习曲",
    "prelude": r"pr[eé]lude|pr[aä]e?ludi|前奏曲",
    "fugue": r"fugue|fuga\b|赋格",
    "sonata": r"sonat[ae]|奏鸣曲",
    "minuet": r"minuet|menuett?|小步舞曲",
    "lullaby": r"lullaby|berceuse|wiegenlied|slumber.song|schlummer|cradle.song|摇篮曲|子守[唄歌]",
    "polonaise": r"polonaise",
    "scherzo": r"scherzo",
    "rhapsody": r"(?<!bohemian )rhapsod|(?<![米希]亚)狂想曲",
    "ballade": r"ballade",
    "impromptu": r"impromptu|即兴曲",
    "tango": r"tango|探戈",
    "blues": r"\bblues\b",
    "serenade": r"serenad|小夜曲",
    "variations": r"variation",
    "christmas": r"christmas|圣诞|jingle|noel\b|silent night|平安夜|クリスマス|weihnacht",
    "hymn": r"\bhymn|赞美诗|圣诗|\bpsalm|choral",
    "wedding": r"wedding|婚礼|婚纱|hochzeit|bridal|结婚",
    "boogie": r"boogie|布基",
    "polka": r"polka|波尔卡",
    "foxtrot": r"fox.?trot|one.?step|two.?step",
    "gavotte": r"gavott",
}
TRIPLE_FORMS = {"waltz", "mazurka", "minuet", "polonaise"}
DUPLE_FORMS = {"march", "tango", "polka", "foxtrot", "boogie", "gavotte"}
# follow from other facts, so a caption that lists what labels say leaves them out
DERIVED_FACTS = {"triple metre", "duple metre", "syncopated", "swung"}
TRIPLE_TIME, DUPLE_TIME = {"3/4", "3/8", "9/8", "3/2"}, {"4/4", "2/4", "2/2", "4/8"}
SYNCOPATED = {"ragtime", "latin", "bossa nova", "tango"}
NOT_SYNCOPATED = {"etude", "waltz", "minuet", "lullaby", "fugue"}
SWUNG = {"swing", "blues", "boogie"}
NOT_SWUNG = {"classical", "etude", "ragtime", "new-age", "worship", "bossa nova", "children", "mandopop"}

_NAMES = {
    "Hisaisi": "Joe Hisaishi", "久石让": "Joe Hisaishi", "Ryuici": "Ryuichi Sakamoto", "坂本龙一": "Ryuichi Sakamoto",
    "理查德·克莱德曼": "Richard Clayderman", "班得瑞": "Bandari", "拜厄": "Beyer", "哈农": "Hanon", "巴赫": "Bach",
    "汤普森": "Thompson", "莫扎特": "Mozart", "贝多芬": "Beethoven", "肖邦": "Chopin", "车尔尼": "Czerny",
    "周杰伦": "Jay Chou", "石进": "Shi Jin", "邓丽君": "Teresa Teng", "李闰珉": "Yiruma", "梶浦由记": "Yuki Kajiura",
    "初音ミク": "Hatsune Miku", "Mendelssohn-Bartholdy": "Mendelssohn", "Rachmaninov": "Rachmaninoff",
    "Burgmueller": "Burgmüller",
}  # fmt: skip
_PERIODS = {
    "baroque": "Bach Scarlatti Handel Händel Rameau Couperin",
    "classical period": "Haydn Mozart Clementi Beethoven Kuhlau",
    "romantic period": "Chopin Schubert Schumann Liszt Brahms Mendelssohn Grieg Tchaikovsky Wagner Balakirev"
    " Moszkowski Rubinstein Chaminade Raff Borodin Mussorgsky Saint-Saëns Glazunov Gounod Burgmüller Paderewski"
    " MacDowell Weber",
    "impressionist": "Debussy Ravel",
    "modern": "Prokofiev Stravinsky Bartok Bartók Scriabin Korngold",
}
PERIOD_OF = {name: period for period, names in _PERIODS.items() for name in names.split()}
DIFFICULTY = {1: "easy", 2: "easy", 5: "difficult", 6: "difficult", 7: "difficult"}
_PROFESSIONAL_SOURCES = ("asap", "jazz", "pianolatron")  # competitions, jazz pianists, artists' piano rolls
_PLAYED_BY_HAND = ("asap", "jazz", "emopia", "pop1k7", "pop909", "pianist8", "everyonepiano")  # no piano rolls
_PERFORMER_SOURCES = ("pop1k7", "jazz")  # the one who arranged it is also the one who plays


def creator_name(row: dict) -> str | None:
    """The composer or artist by the name that people search for, in Latin letters, or None."""
    name = row.get("arranger") if row["source"] in _PERFORMER_SOURCES else row.get("creator")
    if not name or row["source"] in ("vgmidi", "music_seeds"):
        return None
    if row["source"] in ("asap", "piano_midi_de", "pianolatron"):
        name = name.split(",")[0]
    name = _NAMES.get(name, name)
    return name if name.isascii() or name in PERIOD_OF else None


def label_facts(row: dict, creators: set[str]) -> tuple[set[str], set[str]]:
    """Labels of a row -> the facts that hold and the facts that do not.

    Args:
        row (`dict`): a corpus row.
        creators (`set[str]`): names with enough pieces to be told apart.
    """
    true, false = set(), set()
    _genre_facts(row, true, false)
    _mood_facts(row, true, false)
    title = f"{row.get('title') or ''}"
    forms = {form for form, pattern in FORMS.items() if re.search(pattern, title, re.IGNORECASE)}
    true |= forms
    if "classical" in true or forms:
        false |= set(FORMS) - forms
    _rhythm_facts(row, true, false)
    name = creator_name(row)
    if name in creators:
        true.add(name)
        false |= creators - {name}
    elif "classical" in false:
        false |= creators & set(PERIOD_OF)
    if name in PERIOD_OF:
        true |= {PERIOD_OF[name], "classical"}
        false |= set(_PERIODS) - {PERIOD_OF[name]}
    if row.get("difficulty"):
        true |= {DIFFICULTY[row["difficulty"]]} if row["difficulty"] in DIFFICULTY else set()
    if "easy" in row.get("style", ()) or true & {"children"}:
        true.add("easy")
    if row.get("source") in _PROFESSIONAL_SOURCES or "difficult" in true:
        false.add("easy")
    if "easy" in true:
        false.add("difficult")
    if row.get("text") and "piano roll" in row["text"]:
        true.add("piano roll")
    elif row.get("source") in _PLAYED_BY_HAND:
        false.add("piano roll")
    return true, false - true


def _rhythm_facts(row: dict, true: set[str], false: set[str]) -> None:
    """Metre by dance names or the time signature that a row may bring; syncopation and swing by style."""
    time = row.get("time_signature")
    triple, duple = true & TRIPLE_FORMS or time in TRIPLE_TIME, true & DUPLE_FORMS or time in DUPLE_TIME
    if bool(triple) != bool(duple):
        holds, fails = ("triple metre", "duple metre") if triple else ("duple metre", "triple metre")
        true.add(holds)
        false.add(fails)
    for fact, holds, fails in (("syncopated", SYNCOPATED, NOT_SYNCOPATED), ("swung", SWUNG, NOT_SWUNG)):
        if true & holds:
            true.add(fact)
        elif true & fails:
            false.add(fact)


def _genre_facts(row: dict, true: set[str], false: set[str]) -> None:
    genres = set(row.get("genre", ())) & set(GENRES)
    true |= genres
    if genres:
        possible = set.intersection(*(ALSO_POSSIBLE.get(genre, set()) | {genre} for genre in genres)) | genres
        if len(genres) > 1:
            possible |= set.union(*(ALSO_POSSIBLE.get(genre, set()) for genre in genres)) & {"ballad", "contemporary"}
        false |= set(GENRES) - possible
    if re.search(r"\bblues\b", row.get("title") or "", re.IGNORECASE) and "jazz" in genres:
        true.add("blues")


def _mood_facts(row: dict, true: set[str], false: set[str]) -> None:
    quadrant = row.get("emotion_quadrant")
    moods = set(QUADRANT_MOODS[quadrant]) if quadrant else set(row.get("mood", ())) - {"neutral"}
    true |= moods
    quadrants = {quadrant} if quadrant else {MOOD_QUADRANT[mood] for mood in moods if mood in MOOD_QUADRANT}
    if quadrant:
        true |= set(QUADRANT_ALSO[quadrant])
        false |= {mood for mood, q in MOOD_QUADRANT.items() if q != quadrant and mood not in OPEN_MOODS}
    elif len(quadrants) == 1:  # of weak labels only the opposite is ruled out
        opposite = {1: 3, 2: 4, 3: 1, 4: 2}[quadrants.pop()]
        false |= {mood for mood, q in MOOD_QUADRANT.items() if q == opposite and mood not in OPEN_MOODS}
    false |= set().union(*(OPPOSITE_MOODS.get(mood, ()) for mood in moods))
