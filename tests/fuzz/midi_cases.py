"""MIDI files that are wrong in the ways that a parser of the format can be wrong about."""

import struct
from random import Random

from .byte_cases import damaged, number

TICKS = (0, 1, 10, 240, 480, 10_000, 2**14, 2**21, 2**27, 2**28 - 1)
DIVISIONS = (480, 480, 480, 96, 1, 0, 0x7FFF, 0x8000, 0xE728, 0xE250, 0xFFFF)
MANY_NOTES = 2**20


def midi_case(random: Random) -> bytes:
    """The content of a file: mostly of a sound structure, with some of its parts wrong."""
    kind = random.random()
    if kind < 0.002:
        tracks = [many_notes(random)]
    elif kind < 0.01:
        tracks = [track(random, most_events=3)] * random.choice((100, 300, 1000))
    else:
        tracks = [track(random) for _ in range(random.choice((1, 1, 1, 2, 3, 8)))]
    content = header(random, len(tracks)) + b"".join(chunk(random, one) for one in tracks)
    return damaged(random, content) if random.random() < 0.3 else content


def header(random: Random, tracks: int) -> bytes:
    count = tracks if random.random() < 0.96 else random.choice((0, 1, 2, 255, 65535))
    midi_type = random.choice((0, 1, 1, 1, 1, 1, 1, 2, 3, 65535)) if random.random() < 0.2 else 1
    division = random.choice(DIVISIONS) if random.random() < 0.2 else 480
    length = 6 if random.random() < 0.98 else int.from_bytes(number(random, 4), "big")
    return b"MThd" + struct.pack(">IHHH", length, midi_type, count, division)


def chunk(random: Random, events: bytes) -> bytes:
    """A track chunk; its name or length may lie."""
    length, chance = len(events), random.random()
    if chance < 0.02:
        length = int.from_bytes(number(random, 4), "big")
    elif chance < 0.04:
        length = max(0, length + random.choice((-100, -5, -1, 1, 5, 100)))
    name = b"MTrk" if random.random() < 0.97 else random.choice((b"MTrx", b"XFIH", b"\0\0\0\0", b"MThd"))
    return name + struct.pack(">I", length) + events


def many_notes(random: Random) -> bytes:
    """2^20 notes: as chords without end, one after the other, or never released."""
    step, status = random.choice((0, 1, 120)), b"\x00\x90\x3c\x40"
    pair = bytes([step, 60, 64, step, 60, 0]) if random.random() < 0.7 else bytes([step, 60, 64, step, 62, 64])
    return status + pair * (MANY_NOTES // (1 if pair[5] == 0 else 2)) + b"\x00\xff\x2f\x00"


def track(random: Random, most_events: int = 60) -> bytes:
    """Events of one track, mostly notes of a piano; of the other kinds, a few."""
    kinds = "n" * 12 + "foz" + "".join(random.choice("cccmmpbtsx") for _ in range(random.choice((0, 1, 1, 2, 4))))
    calm = random.random() < 0.7  # short times, so that the notes of a file lie within a few windows
    channel = 0 if random.random() < 0.9 else random.randrange(16)
    parts, status = [], None
    for _ in range(random.randint(0, most_events)):
        event = EVENTS[random.choice(kinds)](random, channel)
        if event[0] == status and status < 0xF0 and random.random() < 0.5:
            event = event[1:]  # running status
        elif event:
            status = event[0]
        parts.append(delta_time(random, calm) + event)
    if random.random() < 0.9:
        parts.append(b"\x00\xff\x2f\x00")
    return b"".join(parts)


def delta_time(random: Random, calm: bool) -> bytes:
    """A variable-length quantity; now and then longer than the four bytes that it may have."""
    if not calm and random.random() < 0.01:
        return random.choice((b"\xff" * 4 + b"\x7f", b"\x80" * 9 + b"\x00", b"\xff" * 12))
    return quantity(random.choice(TICKS[: 5 if calm else None]))


def quantity(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | (value & 0x7F))
    return bytes(reversed(groups))


def note_on(random, channel):
    return bytes([0x90 | channel, random.randrange(128), random.randrange(1, 128)])


def note_off(random, channel):
    return bytes([0x80 | channel, random.randrange(128), 64])


def same_key(random, channel):
    """One key again and again, released or not: the lengths of such notes are ambiguous, zero or negative."""
    return bytes([random.choice((0x80, 0x90)) | channel, 60, random.choice((0, 64))])


def zero_velocity(random, channel):
    return bytes([0x90 | channel, random.randrange(128), 0])


def control(random, channel):
    return bytes([0xB0 | channel, random.choice((64, 64, 64, 0, 7, 120, 123, 127)), random.choice((0, 63, 64, 127))])


def program(random, channel):
    return bytes([0xC0 | channel, random.choice((0, 0, 0, 0, 1, 7, 7, 8, 127))])


def bend(random, channel):
    return bytes([0xE0 | channel, random.randrange(128), random.randrange(128)])


def meta(random, channel):
    """A meta event whose size need not be its kind's, nor that of its content."""
    kind = random.choice((0x51, 0x51, 0x58, 0x59, 0x54, 0x2F, 0x00, 0x01, 0x03, 0x20, 0x21, 0x7F, 0x60))
    usual = {0x51: 3, 0x58: 4, 0x59: 2, 0x54: 5, 0x2F: 0, 0x00: 2, 0x20: 1, 0x21: 1}.get(kind, 8)
    size = usual if random.random() < 0.8 else random.choice((0, 1, 2, 3, 5, 40))
    stated = size if random.random() < 0.9 else random.choice((0, 1, 127, 128, 2**21, 2**28 - 1))
    return bytes([0xFF, kind]) + quantity(stated) + random.randbytes(size)


def tempo(random, channel):
    """From no time at all to the slowest that three bytes can say: 16.8 s a quarter note."""
    value = random.choice((0, 1, 1_000, 500_000, 2**24 - 1))
    return b"\xff\x51\x03" + value.to_bytes(3, "big")


def system(random, channel):
    stated = random.choice((0, 3, 3, 3, 200, 2**28 - 1))
    return bytes([random.choice((0xF0, 0xF7))]) + quantity(stated) + b"\x7e\x7f\xf7"


def unknown(random, channel):
    return bytes([random.choice((0xF1, 0xF2, 0xF4, 0xF8, 0xFE, 0xA0, 0xD0, 0x00, 0x7F)), random.getrandbits(8)])


EVENTS = {"n": note_on, "o": same_key, "f": note_off, "z": zero_velocity, "c": control, "p": program, "b": bend}
EVENTS |= {"m": meta, "t": tempo, "s": system, "x": unknown}
