"""Retrieval figures of checkpoints on a dataset.

    python -m training.loop.measure_retrieval DATASET CHECKPOINT ...

Prints a table of every direction between text, MIDI and recordings that the rows of the split allow; `default` is the
package's own checkpoint, and a folder of an adapter serves as well.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from modeling_pianobind import PianoBindModel, PianoBindProcessor, default_checkpoint

from ..data.arguments import StageArguments
from ..data.dataset import WindowSampler
from ..data.sources import TrainingCorpus
from .batches import BatchCollator
from .objective import TrainingModel
from .run import DEFAULT
from .validation import FIGURES, embed_examples, plain_examples, retrieval_scores

WRITTEN_BY_RUNS = ("checkpoint", "best")


def measure(checkpoint: str, corpus: TrainingCorpus, rows: int) -> dict[str, float]:
    """`retrieval_scores` of a checkpoint, or an adapter, on the middle window of each row."""
    checkpoint = default_checkpoint() if checkpoint == DEFAULT else checkpoint
    processor = PianoBindProcessor.from_pretrained(checkpoint)
    model = TrainingModel(PianoBindModel.from_pretrained(checkpoint, dtype=torch.float32)).eval()
    sampler = WindowSampler(corpus=corpus, processor=processor, hears_recordings=model.model.audio_model is not None)
    examples = plain_examples(sampler, corpus, rows)
    collator = BatchCollator(processor=processor, vocabulary=corpus.vocabulary)
    return retrieval_scores(embed_examples(model, examples, collator, StageArguments(steps=1), "cpu"), examples)


def table(scores: dict[str, dict[str, float]]) -> str:
    """Markdown: a line for each direction, a column for each figure of each checkpoint."""
    first = next(iter(scores.values()))
    names = [Path(name).parent.name if Path(name).name in WRITTEN_BY_RUNS else Path(name).name for name in scores]
    lines = [f"| {first['rows']} pieces | " + " | ".join(f"{figure}, {name}" for figure in FIGURES for name in names)]
    lines += ["|---" * (1 + len(FIGURES) * len(scores))]
    for direction in dict.fromkeys(key.split()[0] for key in first if "_to_" in key):
        values = [figures[f"{direction} {figure}"] for figure in FIGURES for figures in scores.values()]
        lines.append(f"| {direction.replace('_', ' ')} | " + " | ".join(f"{value:g}" for value in values))
    return "\n".join(f"{line} |" for line in lines)


def main(command_line: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.loop.measure_retrieval", description=__doc__.splitlines()[0]
    )
    parser.add_argument("dataset", help="what the `corpus` of a run may be")
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="folder, Hub id, adapter, or `default`")
    parser.add_argument("--split", default="test")
    parser.add_argument("--rows", type=int, default=1000, help="at most so many (default: 1000)")
    parser.add_argument("--output", type=Path, help="write all figures as JSON")
    given = parser.parse_args(command_line)
    try:
        corpus = TrainingCorpus.open(given.dataset, split=given.split)
        scores = {checkpoint: measure(checkpoint, corpus, given.rows) for checkpoint in given.checkpoints}
    except (ValueError, OSError) as error:
        print(f"measure_retrieval: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(table(scores))
    if given.output:
        given.output.write_text(json.dumps(scores, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
