"""State of a run in addition to accelerate's own: tensors as safetensors, numbers as JSON.

Objects registered with accelerate would be pickled, and loading a pickle can run any code.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from .optimization import MovingAverage

WEIGHTS, AVERAGE, PROGRESS = "weights.safetensors", "average.safetensors", "progress.json"


@dataclass
class Progress:
    """Progress of a run, without weights and random numbers."""

    steps: int = 0
    seconds: float = 0.0
    stage_seconds: float = 0.0
    measured_steps: int = 0
    best_score: float | None = None


def keep_with_state(accelerator: Accelerator, model: nn.Module, average: MovingAverage, progress: Progress) -> None:
    """Lets `accelerator.save_state` save these three too, and `load_state` fill them again.

    `load_state` raises a `ValueError` or `OSError` if they are not in the folder.
    """

    def save(_, __, folder):
        if accelerator.is_main_process:
            folder = Path(folder)
            save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
            save_file(average.weights, folder / AVERAGE)
            numbers = {"progress": asdict(progress), "average_updates": average.updates}
            (folder / PROGRESS).write_text(json.dumps(numbers))

    def load(_, folder):
        folder = Path(folder)
        if not (folder / PROGRESS).exists():
            raise ValueError(f"{folder}: was saved by an earlier version; delete it to start the run again.")
        numbers = json.loads((folder / PROGRESS).read_text())
        model.load_state_dict(load_file(folder / WEIGHTS))
        for name, weight in load_file(folder / AVERAGE).items():
            average.weights[name].copy_(weight)
        average.updates = numbers["average_updates"]
        vars(progress).update(numbers["progress"])

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


__all__ = ["Progress", "keep_with_state"]
