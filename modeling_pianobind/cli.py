"""The `pianobind` command: search, index, embed, describe, export, demo, app.

torch and transformers are imported only to embed files: `--help` and a search of a saved index start fast.
"""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np

from .app.command import add_arguments as add_app_arguments
from .app.command import run as run_app
from .duplicates_command import add_arguments as add_duplicates_arguments
from .duplicates_command import run as run_duplicates_of
from .index.embedding_index import EmbeddingIndex
from .index.folder_index import Collection, check_searchable, update_index
from .index.shards import check_shard_target, is_index, list_shards, merge, shard_folder
from .index.storage import check_target, write_embeddings
from .inputs_pianobind import explain, list_files
from .labels_pianobind import LABELS, label_embeddings, rank_labels
from .service.checkpoint import Checkpoint
from .service.errors import UserError, complain, user_errors
from .service.examples import DEMO_QUERIES, EXAMPLES, titles

EPILOG = (
    "exit status: 0 if all went well; 2 if the arguments or a file were wrong: each is one line on stderr that names "
    "the file, what is wrong and what to do, and the other files are still done."
)
CACHE_NOTE = (
    "A folder's embeddings are cached below $PIANOBIND_CACHE (default: ~/.cache/pianobind, or $XDG_CACHE_HOME), so "
    "the folder itself is never written to. Only files whose content changed are embedded again."
)
DEMO_SEARCHES, DEMO_HITS, DEMO_REASONS = 4, 3, 4


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message):
        raise UserError(f"{message}; see `{self.prog} --help`")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line `argv` (the process's by default) and returns its exit status."""
    for stream in (sys.stdout, sys.stderr):  # file names may hold unprintable characters
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        args = _parse(argv)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of libraries
            warnings.filterwarnings("always", module=r"modeling_pianobind\.")
            warnings.showwarning = lambda message, *rest, **more: complain(f"warning: {message}")
            status = args.run(args)
        sys.stdout.flush()
        return status
    except UserError as error:
        complain(error)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (such as `head`) has closed the pipe; without this the interpreter fails to flush stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parse(argv):
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    # Before Python 3.13 argparse does not find an optional QUERY after an option.
    if len(rest) == 1 and not rest[0].startswith("-") and getattr(args, "query", "") is None:
        args.query = rest.pop()
    if rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    return args


def _parser() -> Parser:
    from . import __version__

    parser = Parser(
        prog="pianobind", description="Search piano recordings and MIDI by words or by example.", epilog=EPILOG
    )
    parser.add_argument("--version", action="version", version=f"pianobind {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name, run, summary, epilog=EPILOG):
        subparser = commands.add_parser(name, help=summary, description=summary, epilog=epilog)
        subparser.add_argument(
            "--checkpoint", metavar="FOLDER|HUB_ID", help="the model (default: the one that comes with the package)"
        )
        subparser.add_argument(
            "--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps (default: cuda if there is one, else cpu)"
        )
        subparser.set_defaults(run=run)
        return subparser

    def computing(subparser, *more):
        subparser.add_argument(
            "--dtype",
            choices=("auto", "float32", "bfloat16", *more),
            default="float32",
            help="what the towers compute in; auto: bfloat16, faster and less exact, where the processor multiplies "
            "it (default: float32)",
        )

    def transcribing(subparser):
        subparser.add_argument(
            "--transcribe",
            action="store_true",
            help="let the MIDI tower see a transcription of each recording as well (extra [transcribe]; takes long)",
        )

    search = command(
        "search",
        run_search,
        "Find the pieces that fit a description or sound like an example.",
        f"{CACHE_NOTE} {EPILOG}",
    )
    search.add_argument("path", metavar="PATH", help="a folder (through all levels), or a saved index")
    search.add_argument("query", metavar="QUERY", nargs="?", help="a description, such as 'calm, slow, rainy'")
    search.add_argument(
        "--like",
        metavar="FILE",
        help="find what resembles this MIDI file or recording, its own piece first; a QUERY beside it steers it and "
        "weighs as much",
    )
    search.add_argument("--top-k", metavar="N", type=_count, default=10, help="how many hits (default: 10)")
    search.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    transcribing(search)
    computing(search)

    index = command("index", run_index, "Embed a folder and save the index.")
    index.add_argument("path", metavar="PATH", nargs="?", help="a folder (through all levels)")
    index.add_argument(
        "--output",
        metavar="FOLDER",
        required=True,
        help="where to save it; an index that is there is brought up to date",
    )
    index.add_argument(
        "--int8",
        action="store_true",
        help="add int8 codes, which a search of many pieces reads faster; the hits' scores stay the same",
    )
    computing(index, "int8")
    index.add_argument(
        "--shard",
        metavar="I/N",
        type=_shard,
        help="embed only the I-th of N shares; once all are there, the folder is one index (default: the process's "
        "own share under torchrun or accelerate launch)",
    )
    index.add_argument(
        "--merge",
        metavar="INDEX",
        nargs="+",
        help="instead of embedding, list these indices or shards as one; they stay where they are",
    )
    transcribing(index)

    embed = command("embed", run_embed, "Write the embeddings of a file or of each file of a folder.")
    embed.add_argument("path", metavar="PATH", help="a file, or a folder (through all levels)")
    embed.add_argument(
        "--output",
        metavar="FILE",
        required=True,
        help=".npz (arrays `paths`, `embeddings`) or .parquet (columns `path`, `embedding`)",
    )
    transcribing(embed)
    computing(embed)

    describe = command("describe", run_describe, "Say which words fit a file best (zero-shot).")
    describe.add_argument("path", metavar="FILE", help="a MIDI file or a recording")
    describe.add_argument("--labels", metavar="A,B,C", help="words to choose from, with commas between them")
    describe.add_argument("--top-k", metavar="N", type=_count, default=8, help="how many words (default: 8)")
    transcribing(describe)
    computing(describe)

    duplicates = command(
        "duplicates",
        run_duplicates,
        "List the files that are the same piece: copies, other performances, scores and performances.",
        f"{CACHE_NOTE} {EPILOG}",
    )
    add_duplicates_arguments(duplicates)
    transcribing(duplicates)

    export = command("export", run_export, "Write the model as ONNX files (extra [onnx]), checked against PyTorch.")
    export.add_argument("--onnx", metavar="FOLDER", required=True, help="where to write them")
    export.add_argument(
        "--int8", action="store_true", help="also int8 text and MIDI towers, and what they lose: cosines to float"
    )
    export.add_argument(
        "--pairs",
        metavar="FILE.jsonl",
        help='measure R@10 as well, on rows of {"text": ..., "file": ...}: words and the MIDI file that they describe',
    )

    command("demo", run_demo, "Search the small corpus that comes with the package.", f"{CACHE_NOTE} {EPILOG}")

    app = command("app", run_app, "Search, see and play a corpus on a page in the browser.", f"{CACHE_NOTE} {EPILOG}")
    add_app_arguments(app)
    transcribing(app)
    computing(app)
    return parser


def _count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _shard(text):
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, such as 1/4")
    return int(number), int(count)


def run_search(args) -> int:
    """Prints the hits of a search."""
    if args.query is None and args.like is None:
        raise UserError("there is nothing to search for; give a QUERY, --like FILE, or both")
    if args.query is not None and not args.query.strip():
        raise UserError("the query is empty; describe the music in at least one word")
    check_searchable(args.path)
    checkpoint = Checkpoint(args.checkpoint, args.device, args.transcribe, args.dtype)
    # Opens a saved index before the query is embedded, which may take long; a folder is embedded after the query.
    collection = Collection(args.path, checkpoint, by_words=args.like is None)
    words = None if args.query is None else checkpoint.embed_text([args.query])[0]
    example = checkpoint.embed_file(args.like) if args.like is not None else None
    index, failures = collection.open()
    with user_errors(args.path):
        by_words = example is None
        hits = index.search(words, args.top_k)[0] if by_words else index.search_like(example, args.top_k, words)
    if args.json:
        print(json.dumps([{"rank": rank} | _as_row(hit) for rank, hit in enumerate(hits, 1)], indent=1))
    else:
        for rank, hit in enumerate(hits, 1):
            print(f"{rank:4}  {hit.score:6.3f}  {_span(hit):>13}  {hit.path}")
    return _report(failures)


def _as_row(hit) -> dict:
    return {
        "score": hit.score,
        "path": hit.path,
        "start_seconds": hit.start_seconds,
        "end_seconds": hit.end_seconds,
    } | ({} if hit.start_measure is None else {"start_measure": hit.start_measure, "end_measure": hit.end_measure})


def run_index(args) -> int:
    """Saves the index of a folder, a share of it, or a list of such shares."""
    if (args.path is None) == (args.merge is None):
        raise UserError("give either the PATH of a folder, or --merge with the indices to be listed as one")
    output = folder = Path(args.output)
    if args.merge is not None:
        with user_errors(output):
            print(f"{output}: {merge(output, args.merge)} pieces in {len(args.merge)} indices")
        return 0
    launched = int(os.environ.get("WORLD_SIZE", 1)) > 1 and args.shard is None
    shard = (int(os.environ["RANK"]) + 1, int(os.environ["WORLD_SIZE"])) if launched else args.shard
    if args.dtype == "int8":
        complain("warning: `--dtype int8` is now called `--int8`.")
        args.dtype, args.int8 = "float32", True
    checkpoint = Checkpoint(args.checkpoint, args.device, args.transcribe, args.dtype)
    check_searchable(args.path)
    with user_errors(output, writing=True):  # fails before the work
        if shard is not None:
            check_shard_target(folder, shard[1])
            output = shard_folder(folder, *shard)
        check_target(output)
    previous = None
    if is_index(output):
        try:
            previous = EmbeddingIndex.load(output, verify=True)
        except (OSError, ValueError) as error:
            complain(f"warning: {explain(output, error)}")
    if previous is not None:
        with user_errors(output):
            previous.check_transcribed(args.transcribe, output)

    def save(index):
        with user_errors(output, writing=True):
            index.save(output, "int8" if args.int8 else "float32")

    index = update_index(os.path.abspath(args.path), previous, checkpoint, save, shard)
    save(index)
    print(f"{output}: {len(index)} pieces of {args.path}")
    if shard is not None:
        with user_errors(folder):
            if list_shards(folder, shard[1]):
                print(f"{folder}: all {shard[1]} shards are there")
    status = _report([failure.message for failure in index.failures])
    # A launcher kills all processes when one fails; a bad file must not stop the others.
    return 0 if launched else status


def run_embed(args) -> int:
    """Writes the embeddings of single files."""
    output = Path(args.output)
    if output.suffix.lower() not in (".npz", ".parquet"):
        raise UserError(f"{output}: its extension is neither .npz nor .parquet; choose one of them")
    if not output.parent.is_dir():
        raise UserError(f"{output}: its folder does not exist; make it first")
    if not os.path.exists(args.path):
        raise UserError(f"{args.path}: does not exist; check the path")
    with user_errors(args.path):
        paths = list_files(args.path) if os.path.isdir(args.path) else [args.path]
    if not paths:
        raise UserError(f"{args.path}: there is no MIDI file or recording in it; give a folder with music")
    checkpoint = Checkpoint(args.checkpoint, args.device, args.transcribe, args.dtype)
    embeds, failures = {}, []
    with user_errors(args.path):
        for position, file in checkpoint.embed_files(paths):
            if file.error is None:
                embeds[position] = file.embedding
            else:
                failures.append(explain(paths[position], file.error))
    if embeds:
        order = sorted(embeds)
        with user_errors(output, writing=True):
            write_embeddings(output, [paths[row] for row in order], np.stack([embeds[row] for row in order]))
        print(f"{output}: {len(embeds)} embeddings")
    return _report(sorted(failures))


def run_describe(args) -> int:
    """Prints the words that fit a file."""
    labels = None
    if args.labels is not None:
        labels = [label.strip() for label in args.labels.split(",") if label.strip()]
        if not labels:
            raise UserError("--labels is empty; give words with commas between them, such as calm,fast,jazz")
    checkpoint = Checkpoint(args.checkpoint, args.device, args.transcribe, args.dtype)
    embedding = checkpoint.embed_file(args.path).embedding
    for label, score in rank_labels(embedding, *label_embeddings(checkpoint.embed_text, labels), args.top_k):
        print(f"{score:6.3f}  {label}")
    return 0


def run_duplicates(args) -> int:
    """Prints groups of files that are the same piece."""
    return _report(run_duplicates_of(args))


def run_export(args) -> int:
    """Writes the towers as ONNX files and prints their differences to PyTorch."""
    if args.pairs is not None and not args.int8:
        raise UserError("--pairs are for measuring what int8 costs; give --int8 as well")
    checkpoint = Checkpoint(args.checkpoint, args.device)
    from .onnx_export import export_onnx, measure_int8, read_pairs

    texts, files = list(LABELS), sorted(EXAMPLES.glob("*.mid"))
    if args.pairs is not None:
        with user_errors(args.pairs):
            texts, files = read_pairs(args.pairs)
    with user_errors(args.onnx, writing=True):
        report = export_onnx(checkpoint.model, args.onnx, args.int8)
    for tower, written in report["towers"].items():
        difference = f"at most {written['largest_difference']:.0e} from PyTorch's"
        print(f"{written['bytes'] / 1e6:8.1f} MB  {tower}.onnx  {difference}")
    if args.int8 and set(report["int8"]) == {"text", "midi"}:
        with user_errors(args.onnx):
            loss = measure_int8(args.onnx, checkpoint.processor, texts, files, paired=args.pairs is not None)
        for tower, written in report["int8"].items():
            cosine = "cosine to float {mean:.4f}, at least {least:.4f}".format(**loss["cosine"][tower])
            print(f"{written['bytes'] / 1e6:8.1f} MB  {tower}.int8.onnx  {cosine}")
        if args.pairs is not None:
            recall = loss["recall@10"]
            print(f"{len(texts)} pairs: R@10 {recall['float']:.3f}, of int8 {recall['int8']:.3f}")
    return 0


def run_demo(args) -> int:
    """Searches the bundled corpus and prints the best labels of each hit."""
    folder, queries = EXAMPLES, DEMO_QUERIES[:DEMO_SEARCHES]
    check_searchable(folder)
    checkpoint = Checkpoint(args.checkpoint, args.device)
    index, failures = Collection(folder, checkpoint).open()
    names, labels = titles(folder), label_embeddings(checkpoint.embed_text)
    embeds = dict(zip(index.paths, index.embeddings, strict=True))
    print(f"{len(index)} piano pieces in {folder}")
    for query, hits in zip(queries, index.search(checkpoint.embed_text(queries), DEMO_HITS), strict=True):
        print(f'\n"{query}"')
        for rank, hit in enumerate(hits, 1):
            words = ", ".join(word for word, _ in rank_labels(embeds[hit.path], *labels, DEMO_REASONS))
            file = os.path.basename(hit.path)
            name = ", ".join(part for part in names.get(file, ()) if part) or file
            print(f"{rank:4}  {hit.score:6.3f}  {_span(hit):>13}  {name}\n{'':29}{words}")
    print('\nYour own music: pianobind search FOLDER "calm, slow, rainy"')
    return _report(failures)


def _span(hit) -> str:
    """A hit's window as m:ss-m:ss; of a score also its bars."""
    if hit.start_seconds is None:
        return ""
    bars = "" if hit.start_measure is None else f" bars {hit.start_measure}-{hit.end_measure}"
    clock = "-".join(f"{int(at) // 60}:{int(at) % 60:02}" for at in (hit.start_seconds, hit.end_seconds))
    return clock + bars


def _report(failures) -> int:
    """Prints a line for each failure; the exit status."""
    for message in failures:
        complain(message)
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
