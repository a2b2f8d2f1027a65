"""`pianobind duplicates`: which files of a folder are the same piece, as lines, JSON or CSV."""

import argparse
import json
import sys

from ..index.duplicates import DEFAULT_CONFIDENCE, Group, find_duplicates
from ..index.folder_index import Collection
from ..service.checkpoint import Checkpoint
from ..service.errors import complain, user_errors
from .output import clock, csv_text

COLUMNS = (
    "group", "kind", "confidence", "first", "first_start", "first_end", "second", "second_start", "second_end"
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("path", metavar="PATH", help="a folder (through all levels), or a saved index")
    parser.add_argument(
        "--confidence",
        metavar="X",
        type=_confidence,
        default=DEFAULT_CONFIDENCE,
        help=f"0 to 1: leave out pairs below it (default: {DEFAULT_CONFIDENCE:g})",
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print a JSON list of groups with their pairs")
    shape.add_argument("--csv", action="store_true", help=f"print one line a pair: {', '.join(COLUMNS)}")


def _confidence(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def run(args: argparse.Namespace) -> int:
    """Prints the groups."""
    checkpoint = Checkpoint(args.checkpoint, args.device, args.transcribe, args.dtype, args.solo_only)
    index, failures = Collection(args.path, checkpoint).open()
    with user_errors(args.path):
        groups = find_duplicates(index, args.confidence)
    if args.json:
        print(
            json.dumps([{"paths": group.paths, "pairs": list(map(vars, group.pairs))} for group in groups], indent=1)
        )
    elif args.csv:
        sys.stdout.write(csv_text(COLUMNS, _rows(groups)))
    else:
        for group in groups:
            _print_group(group)
        grouped = sum(len(group.paths) for group in groups)
        print(f"{grouped} of {len(index.file_table.paths)} files in {len(groups)} groups")
    for message in failures:
        complain(message)
    return 2 if failures else 0


def _rows(groups: list[Group]) -> list[tuple]:
    none = ("", "")
    return [
        (number, pair.kind, pair.confidence, pair.first, *(pair.first_span or none), pair.second,
         *(pair.second_span or none))
        for number, group in enumerate(groups, 1)
        for pair in group.pairs
    ]  # fmt: skip


def _print_group(group: Group) -> None:
    print(group.paths[0])
    for path in group.paths[1:]:
        pair = max(
            (candidate for candidate in group.pairs if path in (candidate.first, candidate.second)),
            key=lambda candidate: candidate.confidence,
        )
        swapped = path == pair.first
        other = pair.second if swapped else pair.first
        spans = (pair.second_span, pair.first_span) if swapped else (pair.first_span, pair.second_span)
        where = "" if spans[0] is None else f"  {clock(*spans[1])} = {clock(*spans[0])}"
        beside = "" if other == group.paths[0] else f" of {other}"
        print(f"  {pair.confidence:5.2f}  {path}  {pair.kind}{beside}{where}")


__all__ = ["add_arguments", "run"]
