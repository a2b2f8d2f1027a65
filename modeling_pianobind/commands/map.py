"""`pianobind map`: a corpus in two dimensions, as one page that needs nothing else, or as a picture."""

import argparse
import base64
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from ..atomic_file import replace_file
from ..index.embedding_index import EmbeddingIndex
from ..index.folder_index import Collection
from ..index.layout import Layout, lay_out
from ..index.names import common_folder, display_names
from ..index.note_alignment import NoteLine
from ..inputs_pianobind import gives_notes
from ..labels_pianobind import label_embeddings
from ..service.checkpoint import Checkpoint
from ..service.errors import UserError, check_folder_of, complain, user_errors

SUFFIXES = (".html", ".png")
MAX_PIECES = 10_000  # t-SNE of more takes very long, and a page of more is slow
PLAYED_SECONDS, PLAYED_NOTES = 30.0, 400  # of a MIDI file, which browsers cannot play: the page has these notes
COLOURS = (
    "#4e79a7", "#e15759", "#59a14f", "#b07aa1", "#f28e2b", "#2aa198",
    "#9c755f", "#d37295", "#8cb04e", "#b6992d", "#6f7bd0", "#79706e",
)  # fmt: skip
TEMPLATE = Path(__file__).parent / "map.html"
PICTURE_INCHES, PICTURE_DPI = (12, 9), 150


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("path", metavar="PATH", help="a folder (through all levels), or a saved index")
    parser.add_argument("--output", metavar="FILE", required=True, help="a .html page or a .png picture")


def run(args: argparse.Namespace) -> int:
    """Writes the map."""
    target = Path(args.output)
    if target.suffix.lower() not in SUFFIXES:
        raise UserError(f"{target}: its extension is neither .html nor .png; choose one of them")
    check_folder_of(target)
    checkpoint = Checkpoint(args.checkpoint, args.device, args.transcribe, args.dtype, args.solo_only)
    collection = Collection(args.path, checkpoint, by_words=True)
    index, failures = collection.open()
    if not len(index):
        raise UserError(f"{args.path}: there is no piece in it that can be read; give another folder or index")
    chosen = np.linspace(0, len(index) - 1, min(len(index), MAX_PIECES)).astype(int)
    if len(chosen) < len(index):
        complain(f"{args.path}: {len(chosen)} of {len(index)} pieces are drawn")
    with user_errors(args.path):
        layout = lay_out(index.embeddings[chosen], *label_embeddings(checkpoint.embed_text))
        if target.suffix.lower() == ".png":
            content = picture(layout)
        else:
            folder = args.path if collection.saved is None else common_folder(index.paths)
            names = display_names([index.path(piece) for piece in chosen.tolist()], folder)
            content = page(index, chosen.tolist(), layout, target.parent, names).encode()
    with user_errors(target, writing=True):
        replace_file(target, content)
    print(f"{target}: {len(chosen)} pieces in {len(layout.names)} clusters")
    for message in failures:
        complain(message)
    return 2 if failures else 0


def page(
    index: EmbeddingIndex,
    pieces: list[int],
    layout: Layout,
    folder: str | os.PathLike,
    names: Sequence[tuple[str, str]],
) -> str:
    """The map as one HTML page without any reference to a network.

    Args:
        pieces (`list[int]`): places in `index.paths`, one for each row of the layout.
        folder: where the page will lie; addresses of files are relative to it.
        names (`list[tuple[str, str]]`): titles and subtitles of these pieces, as `display_names` gives them.
    """
    rows = []
    for row, piece in enumerate(pieces):
        path = index.path(piece)
        notes = NoteLine.of(index.example(piece).notes) if gives_notes(path) else None
        rows.append(
            {
                "x": round(float(layout.points[row, 0]), 4),
                "y": round(float(layout.points[row, 1]), 4),
                "cluster": int(layout.cluster[row]),
                "title": names[row][0],
                "detail": names[row][1],
                "words": layout.words[row],
                "file": address(path, folder),
                "notes": "" if notes is None else packed_notes(notes),
            }
        )
    data = {"pieces": rows, "clusters": layout.names, "colours": COLOURS}
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # ASCII, and no tag can end the script
    return TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/null", text)


def address(path: str, folder: str | os.PathLike) -> str:
    """The URL of a file as a page in a folder refers to it: relative where they lie on one disk."""
    try:
        relative = os.path.relpath(os.path.abspath(path), os.path.abspath(folder))
    except ValueError:
        return Path(os.path.abspath(path)).as_uri()
    # A first part with a colon would read as a scheme.
    return "./" + quote(os.fsencode(relative.replace(os.sep, "/")))


def packed_notes(notes: NoteLine) -> str:
    """The first notes of a piece in base64: for each a byte of pitch, and one of 10 ms since the note before."""
    if not len(notes):
        return ""
    onset = notes.onset - notes.onset[0]
    count = min(int(np.searchsorted(onset, PLAYED_SECONDS)), PLAYED_NOTES)
    steps = np.diff(np.rint(onset[:count] * 100), prepend=0).clip(0, 255)
    return base64.b64encode(np.stack([notes.pitch[:count], steps], axis=1).astype(np.uint8).tobytes()).decode()


def picture(layout: Layout) -> bytes:
    """The map as a PNG file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f'the picture needs matplotlib ({error}); pip install "pianobind[map]"') from error
    figure = Figure(figsize=PICTURE_INCHES, dpi=PICTURE_DPI, layout="constrained")
    axes = figure.subplots()
    size = float(np.clip(9_000 / len(layout.points), 4, 90))
    for number, name in enumerate(layout.names):
        own = layout.points[layout.cluster == number]
        colour = COLOURS[number % len(COLOURS)]
        axes.scatter(*own.T, s=size, color=colour, alpha=0.75, linewidths=0, label=f"{name} ({len(own)})")
        middle = np.median(own, axis=0)
        box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": colour, "alpha": 0.85}
        axes.annotate(name, middle, ha="center", va="center", fontsize=11, color="#222222", bbox=box)
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"{len(layout.points)} pieces by how they sound", loc="left", fontsize=14)
    for edge in axes.spines.values():
        edge.set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=10)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


__all__ = ["add_arguments", "address", "packed_notes", "page", "picture", "run"]
