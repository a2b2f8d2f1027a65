"""`pianobind describe`: the words that fit a file, or each piece of a folder."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterable

import numpy as np

from ..index.facts import FileFacts, key_name
from ..index.filters import piece_facts
from ..index.folder_index import Collection
from ..label_head_pianobind import LabelHead
from ..labels_pianobind import label_embeddings, rank_labels
from ..service.checkpoint import Checkpoint, check_readable
from ..service.errors import UserError, complain, user_errors
from .arguments import whole_number
from .moods import add_mood_arguments, check_mood_arguments, tell_moods
from .output import csv_text

COLUMNS = ("path", "words", "minutes", "tempo", "key")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `pianobind describe`."""
    parser.add_argument("path", metavar="PATH", help="a MIDI file, a score or a recording; or a folder or saved index")
    parser.add_argument("--labels", metavar="A,B,C", help="words to choose from, with commas between them")
    parser.add_argument(
        "--classifier", metavar="FOLDER", help="labels of your own: what `training.train_classifier` made"
    )
    add_mood_arguments(parser)
    parser.add_argument("--top-k", metavar="N", type=whole_number, default=8, help="how many words (default: 8)")
    parser.add_argument("--csv", action="store_true", help="print CSV: words, length, tempo and key of each piece")


def run(args: argparse.Namespace) -> int:
    """Prints the labels with the highest scores."""
    labels = None
    if args.labels is not None:
        labels = [label.strip() for label in args.labels.split(",") if label.strip()]
        if not labels:
            raise UserError("--labels is empty; give words with commas between them, such as calm,fast,jazz")
    is_folder = os.path.isdir(args.path)
    check_mood_arguments(args, is_folder)
    if not is_folder:
        with user_errors(args.path):
            check_readable(args.path, args.solo_only)
    head = None if args.classifier is None else _classifier(args)
    name = args.checkpoint if head is None else args.classifier
    checkpoint = Checkpoint(name, args.device, args.transcribe, args.dtype, args.solo_only)
    if head is not None and args.checkpoint is not None:
        _check_same_towers(args, checkpoint)
    if args.emotion or args.difficulty:
        return tell_moods(args, checkpoint, is_folder)
    if is_folder:
        return _describe_folder(args, checkpoint, labels, head)
    file = checkpoint.embed_file(args.path)
    if head is None:
        ranked = _ranker(checkpoint, labels, args.top_k)(file.embedding)
    else:
        ranked = head.rank(head.pool(file), args.top_k)
    if args.csv:
        from ..index.facts import read_facts

        facts, _ = read_facts(args.path, file.spans, file.reading)
        sys.stdout.write(csv_text(COLUMNS, [_row(args.path, ranked, facts)]))
    else:
        for label, score in ranked:
            print(f"{score:+6.3f}  {label}" if head is None else f"{score:6.3f}  {label}")
    return 0


def _classifier(args: argparse.Namespace) -> LabelHead:
    """Loads the classifier; it cannot be combined with `--labels`."""
    if args.labels is not None:
        raise UserError("--labels are words of your own, --classifier has its own; give one of the two")
    with user_errors(args.classifier):
        return LabelHead.load(args.classifier)


def _check_same_towers(args: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Refuses a classifier that was trained on another checkpoint than `--checkpoint`."""
    if Checkpoint(args.checkpoint, args.device).weights_fingerprint != checkpoint.weights_fingerprint:
        raise UserError(
            f"{args.classifier}: belongs to another checkpoint than {args.checkpoint}; leave out --checkpoint, or "
            "train the classifier again on that one"
        )


def _describe_folder(
    args: argparse.Namespace, checkpoint: Checkpoint, labels: list[str] | None, head: LabelHead | None
) -> int:
    index, failures = Collection(args.path, checkpoint, by_words=True).open()
    if head is None:
        rank = _ranker(checkpoint, labels, args.top_k)
    rows = []
    for shard in index.shards:
        facts = piece_facts(shard)[0] if len(shard) else ()
        for piece in range(len(shard)):
            if head is None:
                ranked = rank(shard.embeds[piece])
            elif head.attention is None:
                ranked = _rounded(head.rank(shard.embeds[piece], args.top_k))
            else:
                ranked = _rounded(head.rank(head.pool_windows(shard.example(piece).windows), args.top_k))
            rows.append(_row(shard.path(piece), ranked, facts[piece]))
    if args.csv:
        sys.stdout.write(csv_text(COLUMNS, rows))
    else:
        for path, words, *_ in rows:
            print(f"{path}: {words}")
    for message in failures:
        complain(message)
    return 2 if failures else 0


def _rounded(ranked: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Labels with their scores in words, for a line of several."""
    return [(f"{label} {score:.2f}", score) for label, score in ranked]


def _ranker(
    checkpoint: Checkpoint, labels: list[str] | None, top_k: int
) -> Callable[[np.ndarray], list[tuple[str, float]]]:
    labels, embeds = label_embeddings(checkpoint.embed_text, labels)
    means = checkpoint.calibration.label_means(embeds)
    return lambda embedding: rank_labels(np.asarray(embedding), labels, embeds, top_k, means)


def _row(path: str, ranked: list[tuple[str, float]], facts: Iterable[float]) -> tuple:
    facts = FileFacts(*map(float, facts))
    minutes = "" if math.isnan(facts.seconds) else f"{facts.seconds / 60:.2f}"
    tempo = "" if math.isnan(facts.tempo) else f"{facts.tempo:.0f}"
    return path, ", ".join(label for label, _ in ranked), minutes, tempo, key_name(facts.key)


__all__ = ["add_arguments", "run"]
