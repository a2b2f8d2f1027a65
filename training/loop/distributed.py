"""Rows and gradients across the processes of a run; with one process, everything stays as it is."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist


def process_count() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    """Rows of all processes one after the other; see `gather`."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.empty_like(count) for _ in range(process_count())]
        dist.all_gather(counts, count)
        counts = [int(count) for count in counts]
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        before = sum(counts[: dist.get_rank()])
        ctx.own = slice(before, before + len(rows))
        return torch.cat([part[:held] for part, held in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        # Every process computes the same loss from the same rows, and so the whole gradient of its own rows.
        # The factor makes up for the mean over processes that `average_gradients` takes.
        return gradient[ctx.own] * process_count()


def gather(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all processes in their order, with gradients.

    Args:
        rows (`torch.Tensor` of shape `(own rows, ...)`): as many as this process has, also none.
    Returns:
        `torch.Tensor` of shape `(all rows, ...)`. Its gradient is right where all processes go on to compute the same
        loss from it and then call `average_gradients`.
    """
    return _Gather.apply(rows) if process_count() > 1 else rows


def gather_all(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`gather` of each tensor; one that another process has and this one lacks counts as having no rows here."""
    if process_count() == 1:
        return tensors
    kinds = [None] * process_count()
    dist.all_gather_object(kinds, {name: (value.shape[1:], value.dtype) for name, value in tensors.items()})
    kinds = {name: kind for of_process in kinds for name, kind in of_process.items()}
    device = next(iter(tensors.values())).device
    empty = {name: torch.zeros(0, *shape, dtype=dtype, device=device) for name, (shape, dtype) in kinds.items()}
    return {name: gather(tensors.get(name, empty[name])) for name in sorted(kinds)}


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replaces each gradient by its mean over the processes; one that no process has stays None.

    Done here and not by DistributedDataParallel, which allows neither parameters that take part in some batches only
    nor several passes before a gradient is complete, as gradient caching needs.
    """
    if process_count() == 1:
        return
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    held = torch.tensor([parameter.grad is not None for parameter in parameters], device=parameters[0].device).float()
    dist.all_reduce(held)
    parameters = [parameter for parameter, holders in zip(parameters, held.tolist(), strict=True) if holders]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
    dist.all_reduce(flat)
    parts = (flat / process_count()).split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad.copy_(part.view_as(parameter))


__all__ = ["average_gradients", "gather", "gather_all", "process_count"]
