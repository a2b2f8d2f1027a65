"""Texts that nobody types, and some that people do."""

from random import Random

PIECES = (
    "calm", "rainy nocturne", "A", " ", "\n", "\t", "\0", "\x7f", "\x1b[31m", "\ufeff", "\u200b", "\u202e", "\u2028",
    "é", "e\u0301", "\u0301" * 50, "ß", "İ", "夜想曲", "ノクターン", "ночь", "ليلة", "रात", "🎹", "👩\u200d👩\u200d👧",
    "\U0010ffff", "\ufffe", "\ud800", "\udfff", "\udc80", "[MASK]", "[CLS]", "##s", "<s>", "</s>", "%s", "{0}",
    "$1", "'; DROP TABLE pieces; --", "<script>alert(1)</script>", "../../etc/passwd", "storm.mid", "0" * 500, "",
)  # fmt: skip
LARGE = 10_000_000


def text_case(random: Random) -> str:
    """A text of a few pieces, of a few thousand random characters, or of ten million."""
    chance = random.random()
    if chance < 0.01:
        piece = random.choice(PIECES) or " "
        return piece * (LARGE // len(piece)) + random.choice(PIECES)
    if chance < 0.2:
        return "".join(chr(random.randrange(0x110000)) for _ in range(random.choice((1, 10, 3000))))
    return random.choice(("", " ")).join(random.choice(PIECES) for _ in range(random.choice((0, 1, 2, 5, 200))))
