"""The command `pianobind app`: arguments and start."""

import argparse
import os

from ..commands.arguments import positive_number
from ..gate_pianobind import Limits
from ..service.checkpoint import Checkpoint
from ..service.errors import UserError, complain, user_errors
from ..service.examples import EXAMPLES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `pianobind app`."""
    limits = Limits()
    parser.add_argument(
        "path", metavar="PATH", nargs="?", default=EXAMPLES, help="a folder or a saved index (default: the examples)"
    )
    parser.add_argument("--host", metavar="ADDRESS", help="0.0.0.0 lets others in (default: this machine only)")
    parser.add_argument("--port", type=int, metavar="N", help="default: the first free one from 7860 on")
    parser.add_argument(
        "--soundfont", metavar="FILE", help="an .sf3 soundfont that plays MIDI (default: the built-in piano)"
    )
    parser.add_argument(
        "--max-file-megabytes",
        type=positive_number,
        metavar="N",
        default=limits.file_megabytes,
        help="the largest upload; a MIDI file may have a tenth of it (default: %(default)g)",
    )
    parser.add_argument(
        "--max-minutes",
        type=positive_number,
        metavar="N",
        default=limits.minutes,
        help="the longest upload (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Serves the page until Ctrl-C."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UserError(f'the page needs gradio ({error}); pip install "pianobind[demo]"') from error
    from .library import Library
    from .page import launch
    from .synthesis import AdditivePiano, Soundfont

    with user_errors(args.soundfont):
        instrument = Soundfont(args.soundfont) if args.soundfont else AdditivePiano()
    checkpoint = Checkpoint(args.checkpoint, args.device, args.transcribe, args.dtype, args.solo_only)
    limits = Limits(file_megabytes=args.max_file_megabytes, minutes=args.max_minutes)
    library = Library(args.path, checkpoint, instrument, limits)
    for message in library.failures:
        complain(message)
    checkpoint.model  # noqa: B018 - loaded now, so that the first upload need not wait for it
    try:
        launch(library, args.host, args.port)
    except OSError as error:
        raise UserError(f"port {args.port or 7860}: cannot be listened on ({error}); choose another --port") from error
    except ValueError as error:  # gradio requests its own page at start, which a proxy may refuse
        reason = " ".join(str(error).split())
        raise UserError(f"the page cannot be reached from here ({reason}); check proxies, or give --host") from error
    return 0


__all__ = ["add_arguments", "run"]
