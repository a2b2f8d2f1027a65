"""`pianobind playlist`: pieces that continue some examples, as a table, CSV or a playlist file."""

import argparse
import math
import sys
from pathlib import Path

from ..atomic_file import replace_file
from ..index.facts import key_name
from ..index.folder_index import Collection
from ..index.playlist import Track, make_playlist
from ..service.checkpoint import Checkpoint
from ..service.errors import UserError, check_folder_of, complain, user_errors
from ..service.query import embed_query, parse_query
from .arguments import positive_number
from .examples import check_files, examples_of
from .output import csv_text, m3u8_text, minutes_seconds

COLUMNS = ("rank", "path", "seconds", "tempo", "key", "score")
SUFFIXES = {".m3u8": "m3u8", ".m3u": "m3u8", ".csv": "csv"}
SHORT = 0.8  # of the length that was asked for; below it a line says so


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("path", metavar="PATH", help="a folder (through all levels), or a saved index")
    parser.add_argument(
        "--like",
        metavar="FILE",
        action="append",
        default=[],
        help="music to continue, which is left out itself; may be given again",
    )
    parser.add_argument("--minutes", metavar="N", type=_minutes, default=40.0, help="length (default: 40)")
    parser.add_argument("--from", metavar="WORDS", dest="start", help='the mood it begins with, such as "calm"')
    parser.add_argument("--to", metavar="WORDS", dest="end", help='the mood it ends with, such as "bright"')
    parser.add_argument("--output", metavar="FILE", help="write a .m3u8 or .csv file")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--csv", action="store_const", dest="shape", const="csv", help="print CSV")
    shape.add_argument("--m3u8", action="store_const", dest="shape", const="m3u8", help="print a playlist")
    parser.set_defaults(shape="table")


def _minutes(text: str) -> float:
    return positive_number(text, "a number of minutes")


def run(args: argparse.Namespace) -> int:
    """Prints or writes the playlist."""
    words = {side: getattr(args, side) for side in ("start", "end")}
    for side, option in (("start", "--from"), ("end", "--to")):
        if words[side] is not None and not words[side].strip():
            raise UserError(f"{option} is empty; name a mood in at least one word")
    if not args.like and words == {"start": None, "end": None}:
        raise UserError("there is nothing to go by; give --like FILE, or --from and --to with words")
    target = None if args.output is None else Path(args.output)
    if target is not None and target.suffix.lower() not in SUFFIXES:
        raise UserError(f"{target}: its extension is neither .m3u8 nor .csv; choose one of them")
    if target is not None:
        check_folder_of(target)
    check_files(args.like, args.solo_only)
    checkpoint = Checkpoint(args.checkpoint, args.device, args.transcribe, args.dtype, args.solo_only)
    index, failures = Collection(args.path, checkpoint, by_words=not args.like).open()
    path = {
        side: None if text is None else embed_query(checkpoint.embed_text, parse_query(text))
        for side, text in words.items()
    }
    likes = examples_of(args.like, index, checkpoint)
    with user_errors(args.path):
        tracks = make_playlist(index, likes, 60 * args.minutes, **path)
    shape = args.shape if target is None else SUFFIXES[target.suffix.lower()]
    text, length = WRITERS[shape](tracks), sum(track.seconds for track in tracks)
    if target is None:
        sys.stdout.write(text)
    else:
        with user_errors(target, writing=True):
            replace_file(target, text.encode("utf-8", "surrogateescape"))
        print(f"{target}: {len(tracks)} pieces, {minutes_seconds(round(length))}")
    if length < SHORT * 60 * args.minutes:
        complain(f"{args.path}: {length / 60:.0f} of {args.minutes:g} minutes are filled; there is no more that fits")
    for message in failures:
        complain(message)
    return 2 if failures else 0


def _table(tracks: list[Track]) -> str:
    lines = []
    for rank, track in enumerate(tracks, 1):
        tempo = "" if math.isnan(track.tempo) else f"{track.tempo:.0f} bpm"
        length = minutes_seconds(round(track.seconds))
        lines.append(f"{rank:4}  {length:>6}  {tempo:>7}  {key_name(track.key):13}  {track.path}\n")
    return "".join(lines)


def _csv(tracks: list[Track]) -> str:
    return csv_text(
        COLUMNS,
        [
            (
                rank,
                track.path,
                round(track.seconds, 1),
                "" if math.isnan(track.tempo) else round(track.tempo),
                key_name(track.key),
                round(track.score, 3),
            )
            for rank, track in enumerate(tracks, 1)
        ],
    )


def _m3u8(tracks: list[Track]) -> str:
    return m3u8_text([(track.path, track.seconds, None) for track in tracks])


WRITERS = {"table": _table, "csv": _csv, "m3u8": _m3u8}

__all__ = ["add_arguments", "run"]
