"""What the measurements share: arguments, what is measured, and the file of results."""

import argparse
import json
import re
import subprocess
from collections import Counter
from pathlib import Path

from modeling_pianobind.atomic_file import replace_file
from modeling_pianobind.index.storage import file_sha256
from training.data.arguments import InstrumentArguments
from training.data.corpus import PackedCorpus

from .corpora import corpus_sha256

RENDER_RATE = 44_100  # Hz
ROOT = Path(__file__).parent.parent


def add_subject_arguments(
    parser: argparse.ArgumentParser,
    checkpoint: str = "folder of a checkpoint",
    corpus: str = "folder of a packed corpus, or of a built dataset",
    output: str = "results JSON",
) -> None:
    """Adds what every measurement takes: `checkpoint`, `corpus`, `--output` and `--split`.

    Args:
        checkpoint, corpus, output (`str`): their help texts.
    """
    parser.add_argument("checkpoint", type=Path, help=checkpoint)
    parser.add_argument("corpus", type=Path, help=corpus)
    parser.add_argument("--output", type=Path, required=True, help=output)
    parser.add_argument("--split", default="valid", help="rows to measure on (default: valid)")


def add_bootstrap_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--bootstrap-samples`."""
    parser.add_argument("--bootstrap-samples", type=int, default=500, help="for intervals (default: 500; 0 for none)")


def instrument_of(text: str) -> InstrumentArguments:
    """`FILE` or `FILE:PROGRAM`."""
    path, _, program = text.rpartition(":")
    if not path or not program.isdigit():
        path, program = text, 0
    return InstrumentArguments(path, int(program), RENDER_RATE)


def subject(checkpoint: Path, corpus_folder: Path, corpus: PackedCorpus, split: str, dtype: str = "float32") -> dict:
    """Names and checksums of checkpoint and corpus, and the sources of the `train` rows."""
    trained = Counter((row["source"], row["licence"]) for row in corpus.rows if row["split"] == "train")
    return {
        "checkpoint": checkpoint.resolve().name,
        "weights_sha256": file_sha256(checkpoint / "model.safetensors"),
        "corpus": {"name": corpus_folder.resolve().name, "sha256": corpus_sha256(corpus), "rows": len(corpus)},
        "split": split,
        "dtype": dtype,
        "sources": [
            {"name": source, "pieces": pieces, "licence": licence}
            for (source, licence), pieces in sorted(trained.items())
        ],
    }


def code_commit() -> str:
    """The commit that runs, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]
    description = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return description or "unknown"


def save_results(path: Path, results: dict) -> None:
    """Writes results atomically; a list of numbers is on one line."""
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"\[[\s\d.,eE+-]*\]", lambda numbers: " ".join(numbers[0].split()), text)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text + "\n")


__all__ = [
    "add_bootstrap_argument",
    "add_subject_arguments",
    "code_commit",
    "instrument_of",
    "save_results",
    "subject",
]
