"""Damage that needs no knowledge of a format: bytes that are flipped, cut off, doubled or from elsewhere.

All makers take a `random.Random`. Hypothesis hands in one whose choices it can shrink; a long run seeds its own.
"""

from collections.abc import Callable
from random import Random

NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    2**24 - 1,
    2**28,
    2**31 - 1,
    2**31,
    2**32 - 1,
)


def number(random: Random, size: int, order: str = "big") -> bytes:
    """A number of `size` bytes that programs trip over, or any."""
    value = random.choice(NUMBERS) if random.random() < 0.8 else random.getrandbits(8 * size)
    return (value % 2 ** (8 * size)).to_bytes(size, order)


def place(random: Random, content: bytes) -> int:
    """An offset into `content`, half of the time among the first bytes, where headers stand."""
    end = min(len(content), 64) if random.random() < 0.5 else len(content)
    return random.randrange(end) if end else 0


def flip(random, content):
    at = place(random, content)
    return content[:at] + bytes([random.getrandbits(8)]) + content[at + 1 :]


def overwrite(random, content):
    """Puts a telling number where there may be a size, a count or a rate."""
    value = number(random, random.choice((2, 3, 4, 8)), random.choice(("big", "little")))
    at = place(random, content)
    return content[:at] + value + content[at + len(value) :]


def cut(random, content):
    return content[: place(random, content)]


def double(random, content):
    """Repeats a stretch; twice as long at most."""
    start, end = sorted((place(random, content), place(random, content)))
    return content[:end] + content[start:end] + content[end:]


def drop(random, content):
    start, end = sorted((place(random, content), place(random, content)))
    return content[:start] + content[end:]


def insert(random, content):
    at = place(random, content)
    return content[:at] + random.randbytes(random.choice((1, 4, 100))) + content[at:]


DAMAGES: tuple[Callable[[Random, bytes], bytes], ...] = (flip, flip, overwrite, overwrite, cut, double, drop, insert)


def damaged(random: Random, content: bytes, most: int = 6) -> bytes:
    """`content` after one to `most` damages."""
    for _ in range(random.randint(1, most)):
        content = random.choice(DAMAGES)(random, content)
    return content
