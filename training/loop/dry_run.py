"""Describes a run without training: shapes of the first batches, sizes of the towers, an estimate of time."""

import time
from collections.abc import Iterator

from .run import Run

TIMED_STEPS = 2  # after one that warms up


def dry_run(run: Run) -> str:
    """Describes a run; nothing is written, the weights stay."""
    lines = [*_towers(run), *_corpora(run)]
    total = 0.0
    for number, stage in enumerate(run.arguments.stages):
        lines.append(f"stage {number + 1}: {stage.steps} steps of {stage.batch_size}")
        batches, load_seconds = iter(run.loader(number)), []
        run.optimizer(stage)
        run.set_modes()
        step_seconds = []
        for _ in range(min(1 + TIMED_STEPS, stage.steps)):
            started = time.monotonic()
            batch = next(batches)
            load_seconds.append(time.monotonic() - started)
            started = time.monotonic()
            losses = run.gradients(batch, stage)
            step_seconds.append(time.monotonic() - started)
        run.model.zero_grad(set_to_none=True)
        for name, block in batch["blocks"].items():
            shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in block.items())
            lines.append(f"  {name}: {shapes}")
        lines.append("  losses: " + ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items()))
        seconds = max(min(step_seconds), min(load_seconds)) * stage.steps
        if stage.minutes:
            seconds = min(seconds, 60 * stage.minutes)
        total += seconds
        lines.append(f"  a step takes {min(step_seconds):.2f} s; about {seconds / 60:.1f} minutes")
    lines.append(f"about {total / 60:.1f} minutes in all, without measuring and saving; nothing was written")
    return "\n".join(lines)


def _towers(run: Run) -> Iterator[str]:
    counts = {}
    for name, parameter in run.model.named_parameters():
        part = name.removeprefix("model.").split(".")[0]
        total, trainable = counts.get(part, (0, 0))
        counts[part] = total + parameter.numel(), trainable + parameter.numel() * parameter.requires_grad
    counts["all"] = tuple(sum(count) for count in zip(*counts.values(), strict=True))
    for part, (total, trainable) in counts.items():
        yield f"{part}: {total:,} parameters, {trainable:,} of them train"


def _corpora(run: Run) -> Iterator[str]:
    slots = run.corpus.slots(run.arguments.stages[0].batch_size)
    for number, part in enumerate(run.corpus.parts):
        rows = sum(map(len, part.pieces.values()))
        yield f"corpus {number + 1}: {rows} rows, {slots.count(number)} of each batch"


__all__ = ["dry_run"]
