"""The `pianobind` command: search, index, embed, describe, duplicates, playlist, profile, map, export,
demo, app.

torch and transformers are imported only to embed files: `--help` and a search of a saved index start fast.
"""

import argparse
import difflib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from .app.command import add_arguments as add_app_arguments
from .app.command import run as run_app
from .commands import describe as describe_command
from .commands import duplicates as duplicates_command
from .commands import map as map_command
from .commands import playlist as playlist_command
from .commands import profile as profile_command
from .commands import search as search_command
from .commands.output import span
from .index.embedding_index import EmbeddingIndex
from .index.finder import Finder
from .index.folder_index import Collection, check_searchable, update_index
from .index.names import titles
from .index.shards import check_shard_target, is_index, list_shards, merge, shard_folder
from .index.storage import check_target, write_embeddings
from .inputs_pianobind import explain, list_files
from .labels_pianobind import LABELS, label_embeddings, rank_labels
from .service.calibration import FILE as CALIBRATION
from .service.calibration import Calibration, example_files
from .service.checkpoint import Checkpoint
from .service.errors import UserError, check_folder_of, complain, user_errors
from .service.examples import DEMO_QUERIES, EXAMPLES

EPILOG = (
    "exit status: 0 if all went well; 2 if the arguments or a file were wrong: each is one line on stderr that names "
    "the file, what is wrong and what to do, and the other files are still done."
)
CACHE_NOTE = (
    "A folder's embeddings are cached below $PIANOBIND_CACHE (default: ~/.cache/pianobind, or $XDG_CACHE_HOME), so "
    "the folder itself is never written to. Only files whose content changed are embedded again."
)
COMPLETION_NOTE = 'in bash: eval "$(pianobind completion bash)"'
DEMO_SEARCHES, DEMO_HITS, DEMO_REASONS = 4, 3, 4


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
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


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    # argparse does not accept words of QUERY after an option.
    if isinstance(getattr(args, "query", None), list) and not any(word.startswith("-") for word in rest):
        args.query, rest = args.query + rest, []
    if rest:
        known = [option for option in _options(parser, args.command) if option.startswith("--")]
        near = difflib.get_close_matches(rest[0].partition("=")[0], known, 1, 0.7)
        hint = f"did you mean {near[0]}?" if near else f"see `{parser.prog} {args.command} --help`"
        raise UserError(f"unknown arguments: {' '.join(rest)}; {hint}")
    return args


def _options(parser: argparse.ArgumentParser, command: str) -> list[str]:
    """The options of a command."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return list(commands.choices[command]._option_string_actions)


def _parser() -> Parser:
    from . import __version__

    parser = Parser(
        prog="pianobind", description="Search piano recordings and MIDI by words or by example.", epilog=EPILOG
    )
    parser.add_argument("--version", action="version", version=f"pianobind {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")

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

    def reading(subparser):
        subparser.add_argument(
            "--transcribe",
            action="store_true",
            help="also embed a transcription of each recording with the MIDI tower (extra [transcribe]; slow)",
        )
        subparser.add_argument(
            "--solo-only",
            action="store_true",
            help="refuse MIDI of several instruments and scores with voices; by default their piano part is taken",
        )

    search = command(
        "search",
        search_command.run,
        "Find the pieces that fit a description or sound like an example.",
        f"{CACHE_NOTE} {EPILOG}",
    )
    search_command.add_arguments(search)
    reading(search)
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
    reading(index)

    embed = command("embed", run_embed, "Write the embeddings of a file or of each file of a folder.")
    embed.add_argument("path", metavar="PATH", help="a file, or a folder (through all levels)")
    embed.add_argument(
        "--output",
        metavar="FILE",
        required=True,
        help=".npz (arrays `paths`, `embeddings`) or .parquet (columns `path`, `embedding`)",
    )
    reading(embed)
    computing(embed)

    describe = command(
        "describe", describe_command.run, "Say which words fit a file, or each piece of a folder, best (zero-shot)."
    )
    describe_command.add_arguments(describe)
    reading(describe)
    computing(describe)

    duplicates = command(
        "duplicates",
        duplicates_command.run,
        "List the files that are the same piece: copies, other performances, scores and performances.",
        f"{CACHE_NOTE} {EPILOG}",
    )
    duplicates_command.add_arguments(duplicates)
    reading(duplicates)
    computing(duplicates)

    playlist = command(
        "playlist",
        playlist_command.run,
        "Choose and order pieces that continue some examples, along a path of moods.",
        f"{CACHE_NOTE} {EPILOG}",
    )
    playlist_command.add_arguments(playlist)
    reading(playlist)
    computing(playlist)

    profile = command(
        "profile",
        profile_command.run,
        "Learn a taste from a play history, for `search --profile`.",
        f"{CACHE_NOTE} {EPILOG}",
    )
    profile_command.add_arguments(profile)
    reading(profile)
    computing(profile)

    corpus_map = command(
        "map",
        map_command.run,
        "Draw a corpus in two dimensions, on a page that plays it or as a picture (extra [map]).",
        f"{CACHE_NOTE} {EPILOG}",
    )
    map_command.add_arguments(corpus_map)
    reading(corpus_map)
    computing(corpus_map)

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

    calibrate = command("calibrate", run_calibrate, "Measure a checkpoint's score calibration and store it.")
    calibrate.add_argument(
        "--pieces", metavar="PATH", help="background pieces: a folder or saved index (default: the examples)"
    )

    completion = commands.add_parser(
        "completion", help="Print a script that completes `pianobind` in a shell.", epilog=COMPLETION_NOTE
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")
    completion.set_defaults(run=run_completion)

    command("demo", run_demo, "Search the small corpus that comes with the package.", f"{CACHE_NOTE} {EPILOG}")

    app = command("app", run_app, "Search, see and play a corpus on a page in the browser.", f"{CACHE_NOTE} {EPILOG}")
    add_app_arguments(app)
    reading(app)
    computing(app)
    return parser


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, such as 1/4")
    return int(number), int(count)


def run_index(args: argparse.Namespace) -> int:
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
    checkpoint = Checkpoint(args.checkpoint, args.device, args.transcribe, args.dtype, args.solo_only)
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


def run_embed(args: argparse.Namespace) -> int:
    """Writes the embeddings of single files."""
    output = Path(args.output)
    if output.suffix.lower() not in (".npz", ".parquet"):
        raise UserError(f"{output}: its extension is neither .npz nor .parquet; choose one of them")
    check_folder_of(output)
    if not os.path.exists(args.path):
        raise UserError(f"{args.path}: does not exist; check the path")
    refused: list[OSError] = []
    with user_errors(args.path):
        paths = list_files(args.path, refused) if os.path.isdir(args.path) else [args.path]
    if not paths:
        raise UserError(f"{args.path}: there is no MIDI file or recording in it; give a folder with music")
    checkpoint = Checkpoint(args.checkpoint, args.device, args.transcribe, args.dtype, args.solo_only)
    embeds, failures = {}, [explain(error.filename, error) for error in refused]
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


def run_calibrate(args: argparse.Namespace) -> int:
    """Measures a checkpoint's score calibration and stores it in its folder."""
    checkpoint = Checkpoint(args.checkpoint, args.device)
    if not os.path.isdir(checkpoint.name):
        raise UserError(
            f"{checkpoint.name}: is not a folder; download the checkpoint, or leave it: it is measured by use"
        )
    pieces = checkpoint.embed_background(example_files()) if args.pieces is None else None
    if pieces is None:
        index, _ = Collection(args.pieces, checkpoint).open()
        pieces = index.embeddings
    target = Path(checkpoint.name) / CALIBRATION
    with user_errors(target, writing=True):
        Calibration.measure(checkpoint.embed_text, pieces).save(target, checkpoint.weights_fingerprint)
    print(f"{target}: {len(pieces)} background pieces")
    return 0


def run_completion(args: argparse.Namespace) -> int:
    """Prints a script that completes the command in a shell."""
    import shtab

    print(shtab.complete(_parser(), shell=args.shell))  # nosec B604
    return 0


def run_export(args: argparse.Namespace) -> int:
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


def run_demo(args: argparse.Namespace) -> int:
    """Searches the bundled corpus and prints the best labels of each hit."""
    folder, queries = EXAMPLES, DEMO_QUERIES[:DEMO_SEARCHES]
    checkpoint = Checkpoint(args.checkpoint, args.device)
    index, failures = Collection(folder, checkpoint).open()
    names, labels = titles(folder), label_embeddings(checkpoint.embed_text)
    means = checkpoint.calibration.label_means(labels[1])
    embeds = dict(zip(index.paths, index.embeddings, strict=True))
    print(f"{len(index)} piano pieces in {folder}")
    finder = Finder(index, checkpoint, folder)
    for query in queries:
        print(f'\n"{query}"')
        hits = finder.find(query, top_k=DEMO_HITS).hits
        for rank, hit in enumerate(hits, 1):
            words = ", ".join(word for word, _ in rank_labels(embeds[hit.path], *labels, DEMO_REASONS, means))
            file = os.path.basename(hit.path)
            name = ", ".join(part for part in names.get(file, ()) if part) or file
            print(f"{rank:4}  {round(100 * hit.fit):3}%  {span(hit):>13}  {name}\n{'':27}{words}")
    print('\nYour own music: pianobind search FOLDER "calm, slow, rainy"')
    return _report(failures)


def _report(failures: Sequence[str]) -> int:
    """Prints a line for each failure; the exit status."""
    for message in failures:
        complain(message)
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
