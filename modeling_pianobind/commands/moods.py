"""`pianobind describe --emotion` and `--difficulty`: numbers, a line over time, a picture."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..index.folder_index import Collection
from ..service.checkpoint import Checkpoint
from ..service.errors import UserError, check_folder_of, complain, user_errors
from ..service.piece_heads import QUADRANTS, DifficultyHead, EmotionHead
from .output import clock, csv_text

if TYPE_CHECKING:
    from ..embedding_pianobind import EmbeddedFile
    from ..moods import Emotion

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 60  # of a line over time, in characters
NAMES = ("valence", "arousal")
GRADE = "grade"


def add_mood_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `pianobind describe` for emotion and difficulty."""
    parser.add_argument(
        "--emotion", action="store_true", help="valence and arousal from -1 to 1, of a file over time as well"
    )
    parser.add_argument("--plot", metavar="FILE.png", help="with --emotion: draw both over time (needs matplotlib)")
    parser.add_argument(
        "--difficulty", action="store_true", help="the grade from 1 to 7, with an interval; learnt from few labels"
    )


def check_mood_arguments(args: argparse.Namespace, is_folder: bool) -> None:
    """Refuses options that do not go together, before anything is embedded."""
    asked = args.emotion or args.difficulty
    if asked and (args.labels is not None or args.classifier is not None):
        raise UserError("--emotion and --difficulty choose no words; leave out --labels and --classifier")
    if args.plot is None:
        return
    if not args.emotion or is_folder:
        raise UserError("--plot draws the emotion of one file over time; give a file and --emotion with it")
    if Path(args.plot).suffix.lower() != ".png":
        raise UserError(f"{args.plot}: its extension is not .png; choose that")
    check_folder_of(args.plot)


def tell_moods(args: argparse.Namespace, checkpoint: Checkpoint, is_folder: bool) -> int:
    """Prints the requested figures of a file, or of each piece of a folder."""
    heads = []
    with user_errors(checkpoint.name):
        for kind, asked in ((EmotionHead, args.emotion), (DifficultyHead, args.difficulty)):
            heads.append(kind.of_checkpoint(checkpoint.name, checkpoint.weights_fingerprint) if asked else None)
    failures = []
    if is_folder:
        index, failures = Collection(args.path, checkpoint, by_words=True).open()
        paths, embeds = index.paths, np.asarray(index.embeddings)
    else:
        file = checkpoint.embed_file(args.path)
        paths, embeds = [args.path], file.embedding[None]
    if args.csv or is_folder:
        columns, values = _columns(*heads, embeds)
        rows = [(path, *(f"{value:.2f}" for value in row)) for path, row in zip(paths, values, strict=True)]
        if args.csv:
            sys.stdout.write(csv_text(("path", *columns), rows))
        else:
            for path, *row in rows:
                print(f"{path}: {', '.join(f'{name} {value}' for name, value in zip(columns, row, strict=True))}")
    else:
        _tell_file(args, *heads, file)
    for message in failures:
        complain(message)
    return 2 if failures else 0


def _columns(
    emotion: EmotionHead | None, difficulty: DifficultyHead | None, embeds: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Names, and `(pieces, names)` values."""
    names, values = [], []
    if emotion is not None:
        names += [*NAMES, *QUADRANTS]
        values += [emotion.values(embeds), emotion.quadrants(embeds)]
    if difficulty is not None:
        names += [GRADE, f"{GRADE}_low", f"{GRADE}_high"]
        values.append(difficulty.grades(embeds))
    return names, np.concatenate(values, axis=1)


def _tell_file(
    args: argparse.Namespace,
    emotion_head: EmotionHead | None,
    difficulty_head: DifficultyHead | None,
    file: "EmbeddedFile",
) -> None:
    if emotion_head is not None:
        from ..moods import Emotion

        emotion = Emotion.of(emotion_head, file)
        lines = over_time(emotion.spans, emotion.curve)
        for name, value, line in zip(NAMES, (emotion.valence, emotion.arousal), lines, strict=True):
            print(f"{name} {value:+.2f}  {line}")
        chances = sorted(emotion.quadrants.items(), key=lambda pair: -pair[1])
        print(f"{', '.join(f'{name} {chance:.2f}' for name, chance in chances)}  {clock(0, emotion.spans.max())}")
        if args.plot is not None:
            with user_errors(args.plot, writing=True):
                draw(emotion, args.plot, os.path.basename(args.path))
            print(args.plot)
    if difficulty_head is not None:
        grade, low, high = difficulty_head.grades(file.embedding[None])[0]
        print(f"{GRADE} {grade:.1f} of 7 ({low:.1f} to {high:.1f} holds four of five)")


def over_time(spans: np.ndarray, curve: np.ndarray) -> list[str]:
    """`(windows, 2)` values from -1 to 1 -> two lines of blocks, a block a window but at most `WIDTH`."""
    values = resampled(spans, curve, WIDTH)
    places = np.clip((values + 1) / 2 * len(BLOCKS), 0, len(BLOCKS) - 1).astype(int)
    return ["".join(BLOCKS[place] for place in column) for column in places.T]


def resampled(spans: np.ndarray, curve: np.ndarray, max_points: int) -> np.ndarray:
    """`(windows, 2)` values -> `(points, 2)` at equal distances: the mean of the windows that sound at each."""
    count = max(1, min(max_points, len(np.unique(spans[:, 0]))))
    middles, values = spans.mean(axis=1), []
    for time in (np.arange(count) + 0.5) / count * spans.max():
        there = (spans[:, 0] <= time) & (time < spans[:, 1])
        there = there if there.any() else np.abs(middles - time) == np.abs(middles - time).min()
        values.append(curve[there].mean(axis=0))
    return np.array(values)


def draw(emotion: "Emotion", path: str | os.PathLike, title: str) -> None:
    """Writes a PNG of valence and arousal over time.

    Raises:
        UserError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('--plot needs matplotlib; install it by `pip install "pianobind[eval]"`') from error
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    times = emotion.spans.mean(axis=1) / 60
    order = np.argsort(times, kind="stable")
    for name, values in zip(NAMES, emotion.curve.T, strict=True):
        axes.plot(times[order], values[order], marker="o", markersize=3, label=name)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set(ylim=(-1.05, 1.05), xlim=(0, emotion.spans.max() / 60), xlabel="minutes", title=title)
    axes.legend(loc="upper right", frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


__all__ = ["add_mood_arguments", "check_mood_arguments", "draw", "over_time", "resampled", "tell_moods"]
