"""A column of labels -> a classifier: `python -m training.train_classifier FOLDER --labels labels.csv --output NAME`.

The towers stay as they are: the pieces are embedded once (and cached, as for `pianobind search`), and a linear layer
is fitted to the embeddings in seconds. It is measured by five folds of songs; what is saved has seen all pieces.
The output is a whole checkpoint: `pianobind describe FILE --classifier NAME` and `training.publish` take it.
"""

import argparse
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging

from model_cards.classifier_card import Measured, write_classifier_card
from modeling_pianobind import PianoBindForSequenceClassification
from modeling_pianobind.checkpoint_pianobind import FILES, WEIGHTS
from modeling_pianobind.index.folder_index import Collection
from modeling_pianobind.label_head_pianobind import MULTI, REGRESSION, SINGLE
from modeling_pianobind.service.checkpoint import Checkpoint
from modeling_pianobind.service.errors import UserError

from .common.atomic_folder import atomic_folder
from .data.label_table import Labels, as_classes, as_numbers, as_sets, read_labels, without_rare
from .loop.linear_heads import (
    LinearClassifier,
    LinearRegressor,
    LinearTagger,
    class_figures,
    held_out,
    interval,
    number_figures,
    scaled,
    tag_figures,
)

MIN_PIECES = 8


def train(given: argparse.Namespace, checkpoint: Checkpoint) -> list[str]:
    """Fits, measures and saves; returns a line for each thing that was left out.

    Raises:
        ValueError, OSError, UserError: a file or the table is wrong; nothing was written.
    """
    output = Path(given.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: already holds something; name another --output, or empty it.")
    index, failures = Collection(given.folder, checkpoint).open()
    labels = read_labels(given.labels, given.label_column, index.paths, given.folder)
    labels, targets, names, problem_type, make, figures = _task(given, labels)
    if len(targets) < MIN_PIECES:
        raise ValueError(f"{given.labels}: {len(targets)} labelled pieces are too few; label at least {MIN_PIECES}.")
    features = scaled(np.asarray(index.embeddings)[labels.pieces])
    guess = held_out(make, features, targets, labels.songs)
    model = make().fit(features, targets, labels.songs)
    scores = figures(targets, guess)
    measured = Measured(
        label_column=given.label_column,
        names=names,
        pieces=len(targets),
        songs=len(set(labels.songs)),
        counts=dict(Counter(labels.values)) if problem_type == SINGLE else {},
        figures=scores,
        intervals=interval(figures, targets, guess, labels.songs),
        chance=figures(targets, _chance(targets)),
        truth=targets,
        guess=guess,
        problem_type=problem_type,
    )
    with atomic_folder(output) as partial:
        save(partial, checkpoint, names, problem_type, *model.weights())
        write_classifier_card(partial, checkpoint.name, measured)
    for name, value in scores.items():
        low, high = measured.intervals[name]
        print(
            f"{name}: {value:.3f} (95 % of draws {low:.3f} to {high:.3f}; without hearing {measured.chance[name]:.3f})"
        )
    print(f"{output}: {len(targets)} pieces of {measured.songs} songs, {len(names)} outputs")
    return failures + labels.problems


def _task(given: argparse.Namespace, labels: Labels) -> tuple:
    """What is to be learnt: labels that are kept, targets, names of outputs, type of problem, model and figures."""
    if given.regression:
        numbers = as_numbers(labels, given.labels)
        return labels, numbers, [given.label_column], REGRESSION, LinearRegressor, number_figures
    if given.separator:
        return labels, *as_sets(labels, given.separator, given.labels), MULTI, LinearTagger, tag_figures
    labels = without_rare(labels, given.labels)
    return labels, *as_classes(labels), SINGLE, LinearClassifier, class_figures


def _chance(targets: np.ndarray) -> np.ndarray:
    """Predictions without any features: the most frequent class, or the mean."""
    if targets.ndim == 1:
        return np.full_like(targets, np.bincount(targets).argmax())
    return np.broadcast_to(targets.mean(axis=0), targets.shape)


def save(
    folder: Path, checkpoint: Checkpoint, names: list[str], problem_type: str, weight: np.ndarray, bias: np.ndarray
) -> None:
    """Writes the checkpoint with a classifier on it; its towers are the same to the last bit."""
    logging.set_verbosity_error()
    model = PianoBindForSequenceClassification.from_pretrained(
        checkpoint.name, dtype="auto", id2label=dict(enumerate(names)), problem_type=problem_type,
        label2id={name: number for number, name in enumerate(names)}, classifier_pooling="mean",
    )  # fmt: skip
    with torch.no_grad():
        model.classifier.output.weight.copy_(torch.from_numpy(np.asarray(weight)))
        model.classifier.output.bias.copy_(torch.from_numpy(np.asarray(bias)))
    model.save_pretrained(folder)
    if not Path(checkpoint.name).is_dir():
        checkpoint.processor.save_pretrained(folder)
        return
    kept = (name for name in FILES if name != WEIGHTS and not (folder / name).exists())
    for name in kept:  # unchanged, so that both share cached embeddings
        if (Path(checkpoint.name) / name).is_file():
            shutil.copyfile(Path(checkpoint.name) / name, folder / name)


def parse(command_line: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.train_classifier", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="music (through all levels), or a saved index of it")
    add("--labels", required=True, metavar="FILE.csv", help="a column of files and one of labels; `song` if versions")
    add("--label-column", default="label", metavar="NAME", help="the column to learn (default: label)")
    add("--output", required=True, metavar="FOLDER", help="where to write the checkpoint")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--separator", metavar="SIGN", help="pieces have several labels, with this sign between them")
    kind.add_argument("--regression", action="store_true", help="the labels are numbers")
    add("--checkpoint", metavar="FOLDER|HUB_ID", help="the model (default: the one that comes with the package)")
    add("--device", metavar="DEVICE", help="cpu, cuda ... (default: cuda if there is one, else cpu)")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="float32", help="what the towers compute in")
    add("--transcribe", action="store_true", help="let the MIDI tower see a transcription of each recording as well")
    return parser.parse_args(command_line)


def main(command_line: list[str] | None = None) -> int:
    given = parse(command_line)
    try:
        problems = train(given, Checkpoint(given.checkpoint, given.device, given.transcribe, given.dtype))
    except (UserError, ValueError, OSError) as error:
        missing = (
            f"{error.filename}: does not exist; check the path." if isinstance(error, FileNotFoundError) else error
        )
        print(f"train_classifier: {' '.join(str(missing).split())}", file=sys.stderr)
        return 2
    for problem in problems:
        print(f"train_classifier: {problem}", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
