"""`pianobind profile`: a taste profile from a play history."""

import argparse
import os
from pathlib import Path

from ..index.folder_index import Collection
from ..index.taste import Taste, read_history
from ..service.checkpoint import Checkpoint
from ..service.errors import UserError, check_folder_of, complain, user_errors


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("path", metavar="PATH", help="the music: a folder (through all levels), or a saved index")
    parser.add_argument(
        "history",
        metavar="HISTORY",
        help="a CSV file with the columns path, plays and last_played; the last two may be missing",
    )
    parser.add_argument(
        "--output", metavar="FILE", required=True, help="the profile, for `pianobind search --profile`; JSON"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the profile."""
    target = Path(args.output)
    if target.suffix.lower() != ".json":
        raise UserError(f"{target}: its extension is not .json; give it that one")
    check_folder_of(target)
    with user_errors(args.history):
        plays = read_history(args.history)
    checkpoint = Checkpoint(args.checkpoint, args.device, args.transcribe, args.dtype, args.solo_only)
    index, failures = Collection(args.path, checkpoint, by_words=True).open()
    place = {_key(path): number for number, path in enumerate(index.paths)}
    roots = ("", os.path.dirname(args.history), str(args.path))
    weights, missing = {}, []
    for play in plays:
        keys = (_key(os.path.join(root, play.path)) for root in roots)
        number = next((place[key] for key in keys if key in place), None)
        if number is None:
            missing.append(play.path)
        else:
            weights[number] = weights.get(number, 0.0) + play.weight
    if not weights:
        raise UserError(f"{args.history}: none of its files is in {args.path}, such as {missing[0]}; check the paths")
    if missing:
        complain(f"{args.history}: {len(missing)} of its files are not in {args.path}, such as {missing[0]}")
    chosen = sorted(weights)
    taste = Taste.learn(
        index.embeddings[chosen], [weights[number] for number in chosen], checkpoint.weights_fingerprint
    )
    with user_errors(target, writing=True):
        taste.save(target)
    print(f"{target}: the taste of {len(chosen)} pieces")
    for message in failures:
        complain(message)
    return 2 if failures else 0


def _key(path: str) -> str:
    """What the files of one piece have in common: take.mid and take.mp3."""
    return os.path.splitext(os.path.realpath(path))[0]


__all__ = ["add_arguments", "run"]
