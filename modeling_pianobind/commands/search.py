"""`pianobind search`: words, an example or both, names and filters; a prompt where no query is given."""

import argparse
import os
import sys
from contextlib import suppress

from ..index.filters import KINDS, Filters
from ..index.finder import Finder, SearchResult
from ..index.folder_index import Collection
from ..index.taste import Taste
from ..inputs_pianobind import EXTENSIONS
from ..service.checkpoint import Checkpoint
from ..service.errors import UserError, complain, user_errors
from .arguments import whole_number
from .examples import check_feedback, check_files, embeddings_of
from .output import FORMATS

PROMPT = "search> "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `pianobind search`."""
    parser.add_argument("path", metavar="PATH", help="a folder (through all levels), or a saved index")
    parser.add_argument(
        "query",
        metavar="QUERY",
        nargs="*",
        help="a description such as 'calm, slow, not sad', a title or a composer; without it and --like: a prompt",
    )
    parser.add_argument(
        "--like",
        metavar="FILE",
        help="find what resembles this MIDI file, score or recording, its own piece first; a further QUERY "
        "steers it and weighs as much",
    )
    add_feedback(parser)
    parser.add_argument(
        "--profile",
        metavar="FILE.json",
        help="go by a taste too, as `pianobind profile` learns it; hits stay as close to the QUERY, within 5 %%",
    )
    parser.add_argument("--top-k", metavar="N", type=whole_number, default=10, help="how many hits (default: 10)")
    parser.add_argument("--no-names", action="store_true", help="go by the sound alone, not by names and metadata")
    add_filters(parser)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_const", dest="shape", const="json", help="print a JSON list")
    shape.add_argument("--csv", action="store_const", dest="shape", const="csv", help="print CSV")
    shape.add_argument("--m3u8", action="store_const", dest="shape", const="m3u8", help="print a playlist")
    parser.add_argument("--excerpts", metavar="FOLDER", help="write the best window of each hit as MIDI or FLAC")
    parser.set_defaults(shape="table")


def add_feedback(parser: argparse.ArgumentParser) -> None:
    """Adds the options that move a search by examples."""
    for side, means in (("more", "wanted"), ("less", "not wanted")):
        parser.add_argument(
            f"--{side}",
            metavar="FILE",
            action="append",
            default=[],
            help=f"feedback: music such as this is {means}; may be given again",
        )


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Adds the filters of a search."""
    filters = parser.add_argument_group("filters, measured from the notes")
    filters.add_argument("--tempo", metavar="LOW-HIGH", help="beats a minute, such as 110-130, -80 or 140-")
    filters.add_argument("--key", metavar="KEY", help='such as "D minor" or "Bb major"')
    filters.add_argument("--minutes", metavar="LOW-HIGH", help="length, such as 2-5")
    filters.add_argument("--kind", choices=KINDS, help="only MIDI files, scores or recordings")


def run(args: argparse.Namespace) -> int:
    """Prints the hits of a search, or of each line that is typed."""
    query = " ".join(args.query) if args.query else None
    if query is not None and not query.strip():
        raise UserError("the query is empty; describe the music in at least one word")
    prompted = query is None and args.like is None and not (args.more or args.less)
    if prompted and not sys.stdin.isatty():
        raise UserError("there is nothing to search for; give a QUERY, --like FILE, or both")
    check_feedback(args.more, args.less)
    _check_order(args.path, args.query)
    try:
        filters = Filters.parse(args.tempo, args.key, args.minutes, args.kind, args.solo_only)
    except ValueError as error:
        raise UserError(error) from error
    check_files([*([args.like] if args.like else []), *args.more, *args.less], args.solo_only)
    checkpoint = Checkpoint(args.checkpoint, args.device, args.transcribe, args.dtype, args.solo_only)
    taste = None
    if args.profile is not None:
        with user_errors(args.profile):
            taste = Taste.load(args.profile, checkpoint.weights_fingerprint)
    # A saved index is opened before the query is embedded, which may take long; a folder is embedded after it.
    collection = Collection(args.path, checkpoint, by_words=args.like is None and not (args.more or args.less))
    if query is not None:
        checkpoint.embed_text([query])
    example = checkpoint.embed_file(args.like) if args.like is not None else None
    index, failures = collection.open()
    feedback = {side: embeddings_of(getattr(args, side), index, checkpoint) for side in ("more", "less")}
    with user_errors(args.path):
        folder = None if collection.saved is not None else args.path
        finder = Finder(index, checkpoint, folder, not args.no_names, filters)
        result = None if prompted else finder.find(query, example, args.top_k, taste=taste, **feedback)
    status = _prompt(finder, args, taste) if result is None else _answer(result, args)
    for message in failures:
        complain(message)
    return 2 if failures else status


def _answer(result: SearchResult, args: argparse.Namespace) -> int:
    """Prints the hits; returns the exit status."""
    sys.stdout.write(FORMATS[args.shape](result.hits))
    sys.stdout.flush()
    for note in result.notes:
        complain(note)
    if args.excerpts is None:
        return 0
    from .excerpts import write_excerpts

    with user_errors(args.excerpts, writing=True):
        written, failures = write_excerpts(result.hits, args.excerpts)
    complain(f"{args.excerpts}: {len(written)} excerpts")
    for message in failures:
        complain(message)
    return 2 if failures else 0


def _prompt(finder: Finder, args: argparse.Namespace, taste: Taste | None) -> int:
    """Answers each line that is typed; an empty one ends."""
    with suppress(ImportError):  # not on Windows
        import readline  # noqa: F401 - lines can be edited and called back
    print(f"{len(finder.index)} pieces; describe the music, an empty line ends", file=sys.stderr)
    status = 0
    while True:
        try:
            line = input(PROMPT).strip()
        except EOFError:
            return status
        if not line:
            return status
        try:
            status = _answer(finder.find(line, None, args.top_k, taste=taste), args)
        except (UserError, ValueError) as error:  # of this line; the next one may be better
            complain(error)


def _check_order(path: str, query: list[str]) -> None:
    """Refuses swapped PATH and QUERY with a hint."""
    if query and not os.path.exists(path) and os.path.isdir(query[-1]):
        raise UserError(f"{path}: does not exist; the folder comes first: pianobind search {query[-1]} {path!r}")
    if query and len(query) == 1 and os.path.isfile(query[0]) and query[0].lower().endswith(tuple(EXTENSIONS)):
        raise UserError(f"{query[0]}: is a file; search by its sound with --like {query[0]}")


__all__ = ["add_arguments", "add_filters", "run"]
