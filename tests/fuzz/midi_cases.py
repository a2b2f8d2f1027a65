"""MIDI files that are wrong in the ways that a parser of the format can be wrong about.

Half of the cases are sound files of odd content, which have to be embedded: no release of any note, times of hours,
meta events of other sizes than usual, a thousand tracks, a million notes. The others lie about their structure. A part
of both is a piece of the bundled examples, after damage to its events.
"""

import struct
from functools import cache
from pathlib import Path
from random import Random

import modeling_pianobind

from .byte_cases import damaged, number

TICKS = (0, 1, 10, 240, 480, 10_000, 2**14, 2**21, 2**27, 2**28 - 1)
CALM_TICKS = 5  # of `TICKS`: the notes of a file then lie within a few windows
DIVISIONS = (480, 480, 480, 480, 220, 96, 24, 1024, 0x7FFF)
WRONG_DIVISIONS = (0, 1, 0x8000, 0xE728, 0xE250, 0xFFFF)
NOTES = (2**10, 2**12, 2**14, 2**16, 2**17)
MANY_NOTES = (2**18, 2**20)  # the second are more than a piece may have
EXAMPLE_EVENTS = 400  # of a track of an example; whole pieces would take a hundred times as long
END_OF_TRACK = b"\x00\xff\x2f\x00"


def midi_case(random: Random) -> bytes:
    """The content of a file, half of the time of a sound structure."""
    wrong, kind = random.random() < 0.5, random.random()
    # What costs seconds comes last, since hypothesis likes small numbers.
    if kind < 0.6:
        tracks = [track(random, wrong) for _ in range(random.choice((1, 1, 1, 2, 3, 8)))]
    elif kind < 0.985:
        tracks = example_tracks(random, wrong)
    elif kind < 0.995:
        tracks = [track(random, wrong, most_events=3)] * random.choice((100, 300, 1000))
    else:
        tracks = [many_notes(random, random.choice(MANY_NOTES if kind > 0.9995 else NOTES))]
    content = header(random, wrong, len(tracks)) + b"".join(chunk(random, wrong, events) for events in tracks)
    return damaged(random, content) if wrong and random.random() < 0.4 else content


def header(random: Random, wrong: bool, tracks: int) -> bytes:
    midi_type, division, length = random.choice((0, 1)) if tracks == 1 else 1, random.choice(DIVISIONS), 6
    if wrong and random.random() < 0.2:
        field = random.randrange(4)
        tracks = random.choice((0, 1, 2, 255, 65535)) if field == 0 else tracks
        midi_type = random.choice((0, 2, 3, 65535)) if field == 1 else midi_type
        division = random.choice(WRONG_DIVISIONS) if field == 2 else division
        length = int.from_bytes(number(random, 4), "big") if field == 3 else length
    return b"MThd" + struct.pack(">IHHH", length, midi_type, tracks, division)


def chunk(random: Random, wrong: bool, events: bytes) -> bytes:
    """A track chunk, at times after one of another kind; its name or length may lie."""
    name, length, before = b"MTrk", len(events), b""
    if random.random() < 0.02:
        size = random.choice((0, 1, 100))
        before = random.choice((b"XFIH", b"\0\0\0\0", b"MThd")) + struct.pack(">I", size) + random.randbytes(size)
    if wrong and random.random() < 0.1:
        kind = random.randrange(3)
        length = int.from_bytes(number(random, 4), "big") if kind == 0 else length
        length = max(0, length + random.choice((-100, -5, -1, 1, 5, 100))) if kind == 1 else length
        name = random.choice((b"MTrx", b"XFIH", b"\0\0\0\0", b"MThd")) if kind == 2 else name
    return before + name + struct.pack(">I", length) + events


def many_notes(random: Random, notes: int) -> bytes:
    """As chords without end, one after the other, or never released."""
    step, status = random.choice((0, 1, 120)), b"\x00\x90\x3c\x40"
    released = random.random() < 0.7
    pair = bytes([step, 60, 64, step, 60, 0]) if released else bytes([step, 60, 64, step, 62, 64])
    return status + pair * (notes // (1 if released else 2)) + END_OF_TRACK


def track(random: Random, wrong: bool, most_events: int = 60) -> bytes:
    """Events of one track, mostly notes of a piano; of the other kinds, a few."""
    others = SOUND_EVENTS + (WRONG_EVENTS if wrong and random.random() < 0.5 else "")
    kinds = "n" * 12 + "foz" + "".join(random.choice(others) for _ in range(random.choice((0, 1, 1, 2, 4))))
    channel = 0 if random.random() < 0.9 else random.choice((1, 8, 15, 9 if wrong else 14))
    ticks = TICKS[: random.choice((CALM_TICKS, CALM_TICKS, CALM_TICKS, 8, 10 if wrong else 7))]
    events = [
        (random.choice(ticks), EVENTS[random.choice(kinds)](random, channel))
        for _ in range(random.randint(0, most_events))
    ]
    if random.random() < 0.8:  # else, by chance, no note may have an end, and symusic knows of none
        events += [(0, bytes([0x90 | channel, 60, 64])), (240, bytes([0x80 | channel, 60, 64]))]
    return encoded(random, wrong, events)


def encoded(random: Random, wrong: bool, events: list[tuple[int, bytes]]) -> bytes:
    """Ticks and events as bytes, some with running status and, in a wrong file, with times of more than four bytes."""
    parts, status, running = [], None, random.choice((0, 0.5, 1))
    for ticks, event in events:
        if wrong and random.random() < 0.001:
            parts.append(random.choice((b"\xff" * 4 + b"\x7f", b"\x80" * 9 + b"\x00", b"\xff" * 12)))
        else:
            parts.append(quantity(ticks))
        keeps = event[0] == status and status < 0xF0 and random.random() < running
        parts.append(event[1:] if keeps else event)
        status = event[0]
    return b"".join(parts) + (END_OF_TRACK if not wrong or random.random() < 0.9 else b"")


def quantity(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | (value & 0x7F))
    return bytes(reversed(groups))


@cache
def examples() -> list[list[list[tuple[int, bytes]]]]:
    """The first ticks and events of the tracks of each bundled example."""
    folder = Path(modeling_pianobind.__file__).parent / "examples"
    return [_read_tracks(path.read_bytes()) for path in sorted(folder.glob("*.mid"))]


def _read_tracks(content: bytes) -> list[list[tuple[int, bytes]]]:
    tracks, at = [], 14
    while at < len(content):
        end = at + 8 + int.from_bytes(content[at + 4 : at + 8], "big")
        tracks.append(_read_events(content[at + 8 : end]))
        at = end
    return tracks


def _read_events(track: bytes) -> list[tuple[int, bytes]]:
    """Splits a sound track, whose events get their own status back."""
    events, at, status = [], 0, b""
    while at < len(track) and len(events) < EXAMPLE_EVENTS:
        ticks, at = _read_quantity(track, at)
        start = at
        if track[at] >= 0x80:
            status, at = track[at : at + 1], at + 1
        if status[0] in (0xF0, 0xF7, 0xFF):
            size, at = _read_quantity(track, at + (status == b"\xff"))
            end = at + size
            event = track[start:end]
        else:
            end = at + (1 if 0xC0 <= status[0] < 0xE0 else 2)
            event = status + track[at:end]
        at = end
        if event[:2] != b"\xff\x2f":
            events.append((ticks, event))
    return events


def _read_quantity(track: bytes, at: int) -> tuple[int, int]:
    value = track[at] & 0x7F
    while track[at] & 0x80:
        at += 1
        value = value << 7 | track[at] & 0x7F
    return value, at + 1


def example_tracks(random: Random, wrong: bool) -> list[bytes]:
    """A stretch of an example, with one to eight damages to the events of its tracks."""
    tracks = [list(events) for events in random.choice(examples())]
    for _ in range(random.randint(1, 8)):
        row = random.randrange(len(tracks))
        if tracks[row]:
            tracks[row] = random.choice(EVENT_DAMAGES)(random, wrong, tracks[row])
    return [encoded(random, wrong, events) for events in tracks]


def _stretch(random, events):
    """Start and end of up to 50 events, or of all."""
    start = random.randrange(len(events))
    return (0, len(events)) if random.random() < 0.2 else (start, start + random.choice((1, 1, 5, 50)))


def other_times(random, wrong, events):
    """The same time, even no time at all, between all events of a stretch."""
    start, end = _stretch(random, events)
    ticks = random.choice(TICKS if wrong else TICKS[:CALM_TICKS])
    return [*events[:start], *((ticks, event) for _, event in events[start:end]), *events[end:]]


def one_long_time(random, wrong, events):
    """Up to the longest that four bytes can say; within the day that a piece may last, if that is not to be wrong."""
    at = random.randrange(len(events))
    ticks = random.choice(TICKS if wrong else TICKS[:8])
    return [*events[:at], (ticks, events[at][1]), *events[at + 1 :]]


def no_release(random, wrong, events):
    """The ends of all notes are missing, so that they last until the next of their key, or for ever."""
    return [
        (ticks, event) for ticks, event in events if event[0] >> 4 != 8 and (event[0] >> 4 != 9 or event[2:] != b"\0")
    ]


def left_out(random, wrong, events):
    start, end = _stretch(random, events)
    return events[:start] + events[end:]


def twice(random, wrong, events):
    start, end = _stretch(random, events)
    return events[:end] + events[start:]


def shuffled(random, wrong, events):
    start, end = _stretch(random, events)
    middle = events[start:end]
    random.shuffle(middle)
    return events[:start] + middle + events[end:]


def other_data(random, wrong, events):
    """Another byte within an event: a key, a velocity, a controller's value, a meta event's kind, size or content."""
    at = random.randrange(len(events))
    ticks, event = events[at]
    place = random.randrange(0 if wrong else 1, len(event)) if wrong or event[0] < 0xF0 else len(event) - 1
    byte = random.getrandbits(8 if wrong else 7)
    return [*events[:at], (ticks, event[:place] + bytes([byte]) + event[place + 1 :]), *events[at + 1 :]]


def foreign_event(random, wrong, events):
    at = random.randrange(len(events))
    kind = random.choice(SOUND_EVENTS + (WRONG_EVENTS if wrong else "") + "foz")
    return [*events[:at], (0, EVENTS[kind](random, 0)), *events[at:]]


EVENT_DAMAGES = (
    other_times, one_long_time, no_release, left_out, twice, shuffled, other_data, other_data, foreign_event,
)  # fmt: skip


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
    return bytes([0xC0 | channel, random.choice((0, 1, 7))])


def bend(random, channel):
    return bytes([0xE0 | channel, random.randrange(128), random.randrange(128)])


def pressure(random, channel):
    return random.choice((bytes([0xA0 | channel, 60, 5]), bytes([0xD0 | channel, 5])))


def meta(random, channel):
    """A meta event whose size need not be its kind's; of the others, the end of a track comes rarely."""
    kind = random.choice((0x51, 0x51, 0x58, 0x59, 0x54, 0x00, 0x01, 0x03, 0x20, 0x21, 0x7F, 0x60))
    kind = 0x2F if random.random() < 0.02 else kind
    usual = {0x51: 3, 0x58: 4, 0x59: 2, 0x54: 5, 0x2F: 0, 0x00: 2, 0x20: 1, 0x21: 1}.get(kind, 8)
    size = usual if random.random() < 0.7 else random.choice((0, 1, 2, 3, 5, 40, 200))
    return bytes([0xFF, kind]) + quantity(size) + random.randbytes(size)


def lying_meta(random, channel):
    """A meta event that states another size than it has."""
    kind, stated = random.choice((0x51, 0x58, 0x01, 0x7F)), random.choice((0, 1, 127, 128, 2**21, 2**28 - 1))
    return bytes([0xFF, kind]) + quantity(stated) + random.randbytes(random.choice((0, 3, 40)))


def tempo(random, channel):
    """From no time at all to the slowest that three bytes can say: 16.8 s a quarter note."""
    value = random.choice((0, 1, 1_000, 500_000, 2**24 - 1))
    return b"\xff\x51\x03" + value.to_bytes(3, "big")


def system(random, channel):
    return bytes([random.choice((0xF0, 0xF7)), 3]) + b"\x7e\x7f\xf7"


def lying_system(random, channel):
    stated = random.choice((0, 2, 200, 2**28 - 1))
    return bytes([random.choice((0xF0, 0xF7))]) + quantity(stated) + b"\x7e\x7f\xf7"


def other_instrument(random, channel):
    return bytes([0xC0 | channel, random.choice((8, 40, 127))])


def unknown(random, channel):
    return bytes([random.choice((0xF1, 0xF2, 0xF4, 0xF8, 0xFE, 0x00, 0x7F)), random.getrandbits(8)])


EVENTS = {"n": note_on, "o": same_key, "f": note_off, "z": zero_velocity, "c": control, "p": program, "b": bend}
EVENTS |= {"m": meta, "t": tempo, "s": system, "a": pressure}
EVENTS |= {"M": lying_meta, "S": lying_system, "P": other_instrument, "x": unknown}
SOUND_EVENTS, WRONG_EVENTS = "cccmmmptbsa", "MSPx"
