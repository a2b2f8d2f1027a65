"""Speed of a run: examples a second of a step alone, and with the loader.

    python -m training.loop.benchmark_loader CONFIG.yaml [--steps 20]

The bare step sees one batch again and again; then each step gets its own batch from the loader. The loader is fast
enough where the second rate is hardly below the first.
"""

import argparse
import time

import torch

from ..data.arguments import StageArguments, TrainingArguments
from .run import Run, make_accelerator

WARM_STEPS = 3


def measure_rates(run: Run, steps: int, stage_number: int = 0) -> dict[str, float]:
    """Examples a second: of steps on one batch, of steps with the loader, and the ratio of the two."""
    stage = run.arguments.stages[stage_number]
    stage.steps = max(stage.steps, 2 * WARM_STEPS + steps)
    optimizer = run.optimizer(stage)
    run.set_modes()
    batches = iter(run.loader(stage_number))
    batch = next(batches)

    def rate(next_batch, count):
        for _ in range(WARM_STEPS):
            _step(run, optimizer, next_batch(), stage)
        started = time.monotonic()
        for _ in range(count):
            _step(run, optimizer, next_batch(), stage)
        return count * stage.batch_size / (time.monotonic() - started)

    del batches  # its workers would use the processor meanwhile
    bare = rate(lambda: batch, steps)
    batches = iter(run.loader(stage_number))
    fed = rate(lambda: next(batches), steps)
    return {"bare_step": bare, "with_loader": fed, "ratio": fed / bare}


def _step(run: Run, optimizer: torch.optim.Optimizer, batch: dict, stage: StageArguments) -> None:
    run.gradients(batch, stage)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def main(command_line: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.loop.benchmark_loader", description=__doc__.splitlines()[0]
    )
    parser.add_argument("config", help="YAML file with the fields of TrainingArguments")
    parser.add_argument("--steps", type=int, default=20, help="that are timed (default: 20)")
    options = parser.parse_args(command_line)
    arguments = TrainingArguments.from_yaml(options.config)
    rates = measure_rates(Run(arguments, make_accelerator(arguments)), options.steps)
    print(f"bare step: {rates['bare_step']:.1f} examples a second")
    print(f"with the loader: {rates['with_loader']:.1f} examples a second")
    print(f"ratio: {rates['ratio']:.2f}")


if __name__ == "__main__":
    main()
