"""Outputs and gradients of a batch; on request in chunks, so that memory does not grow with the batch."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch.utils.checkpoint import get_device_states, set_device_states

from ..data.arguments import StageArguments
from .objective import TrainingModel


def step_gradients(
    training_model: TrainingModel,
    blocks: dict[str, dict],
    batch: dict,
    stage: StageArguments,
    chunk: int = 0,
    backward: Callable[[torch.Tensor], None] = torch.Tensor.backward,
    autocast: Callable[[], AbstractContextManager] = contextlib.nullcontext,
) -> dict[str, torch.Tensor]:
    """Adds the gradients of a batch's weighted loss to those of the parameters.

    With `chunk`, the towers run twice: without gradients first, a few rows at a time; the loss then gives the gradient
    of every output, and the second run carries these back into the towers. Random numbers are the same in both runs.
    Statistics over a whole batch (BatchNorm, in towers of the original family) are taken over a chunk.

    Args:
        blocks: rows of each modality; see `TrainingModel`.
        chunk (`int`): rows of a block that are embedded at a time; 0 for all at once.
        backward: computes gradients, such as `Accelerator.backward`.
        autocast: context in which outputs and losses are computed.
    Returns:
        The losses by name, not weighted.
    Source: GradCache (arXiv 2101.06983, section 3.2); differs in that sums of losses on notes are outputs as well.
    """
    if not chunk:
        with autocast():
            outputs = {}
            for name, block in blocks.items():
                outputs |= training_model.outputs(name, block, stage)
            losses = training_model.losses(outputs, batch, stage)
            loss = weighted(losses, stage)
        backward(loss)
        return losses
    parts = [(name, part) for name, block in blocks.items() for part in _chunks(block, chunk)]
    made, states = [], []
    for name, part in parts:
        states.append((torch.get_rng_state(), *get_device_states(*part.values())))
        with torch.no_grad(), autocast():
            made.append(training_model.outputs(name, part, stage))
    after = torch.get_rng_state(), *get_device_states(*(value for _, part in parts for value in part.values()))
    leaves = {
        name: torch.cat([outputs[name] for outputs in made if name in outputs])
        for name in {n for outputs in made for n in outputs}
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    with autocast():
        losses = training_model.losses(leaves, batch, stage)
        loss = weighted(losses, stage)
    backward(loss)
    taken = dict.fromkeys(leaves, 0)
    for (name, part), state, outputs in zip(parts, states, made, strict=True):
        wanted = {}
        for key, value in outputs.items():
            if leaves[key].grad is not None:
                wanted[key] = leaves[key].grad[taken[key] : taken[key] + len(value)]
            taken[key] += len(value)
        _restore(*state)
        with autocast():
            again = training_model.outputs(name, part, stage)
        wanted = {key: gradient for key, gradient in wanted.items() if again[key].requires_grad}
        if wanted:
            torch.autograd.backward([again[key] for key in wanted], list(wanted.values()))
    _restore(*after)
    return losses


def weighted(losses: dict[str, torch.Tensor], stage: StageArguments) -> torch.Tensor:
    """The sum that a stage minimises.

    Raises:
        ValueError: there is no loss: no example of the batch has two things that the stage compares.
    """
    if not losses:
        raise ValueError(
            "nothing to learn from this batch: no two of audio, MIDI and text that the stage compares; see its weights"
        )
    return sum(stage.weight(name) * value for name, value in losses.items())


def _chunks(block: dict[str, torch.Tensor], rows: int) -> list[dict[str, torch.Tensor]]:
    count = len(next(iter(block.values())))
    return [{key: value[first : first + rows] for key, value in block.items()} for first in range(0, count, rows)]


def _restore(cpu_state: torch.Tensor, devices: list[int], device_states: list[torch.Tensor]) -> None:
    torch.set_rng_state(cpu_state)
    set_device_states(devices, device_states)


__all__ = ["step_gradients", "weighted"]
