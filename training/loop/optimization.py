"""Trainable weights, learning rates, and the moving average of weights."""

import contextlib
import math
import re
from collections.abc import Iterator

import torch
from torch import nn

from ..data.arguments import StageArguments, TrainingArguments
from .objective import TrainingModel


def freeze(training_model: TrainingModel, arguments: TrainingArguments, stage: StageArguments | None = None) -> None:
    """Unfreezes the weights that a stage trains; without a stage, those that any stage trains.

    Frozen towers stay with their projections. Of the text tower the adapter trains, or its weights where the run says
    so; with `lora_rank`, nothing but the adapter and the modules that are saved with it.
    """
    frozen = stage.frozen if stage else []
    layers = stage.frozen_layers if stage else {}
    for name, parameter in training_model.model.named_parameters():
        tower = name.split("_")[0]
        if arguments.lora_rank:
            trains = "lora_" in name or ".modules_to_save." in name
        else:
            trains = arguments.train_text_tower or "lora_" in name or not name.startswith("text_model.")
        lowest = tower in layers and _layer(name, tower) < layers[tower]
        parameter.requires_grad_(trains and tower not in frozen and not lowest)
    for name, loss in training_model.all_losses.items():
        loss.requires_grad_(any(trained.weight(name) > 0 for trained in ([stage] if stage else arguments.stages)))


def _layer(name: str, tower: str) -> float:
    """The layer of a tower's weight: -1 below the first one, infinite above the last or outside of the tower."""
    number = re.search(r"\.layers?\.(\d+)\.", name)
    if number:
        return int(number[1])
    return -1 if name.startswith(f"{tower}_model.") and "final_norm" not in name else math.inf


def parameter_groups(training_model: TrainingModel, stage: StageArguments, weight_decay: float) -> list[dict]:
    """Two learning rates (text tower, all else), weight decay on matrices only."""
    groups = {}
    for name, parameter in training_model.named_parameters():
        if not parameter.requires_grad:
            continue
        text = ".text_model." in name or "text_projection" in name
        decays = parameter.ndim > 1 and not text and "embeddings" not in name
        groups.setdefault((text, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": stage.text_learning_rate if text else stage.learning_rate,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (text, decays), parameters in groups.items()
    ]


def lr_factor(step: int, stage: StageArguments, progress: float) -> float:
    """Linear warm-up, then a cosine over `progress` (0 to 1) down to a fiftieth of the peak."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup_steps))
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


class MovingAverage:
    """The moving average of a model's trainable weights, in float32."""

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay, self.updates = model, decay, 0
        self.weights = {
            name: parameter.detach().float().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self) -> None:
        """Adds the present weights; the first updates count more, since the initial weights are far off."""
        decay = min(self.decay, (self.updates + 10) / (self.updates + 100))
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                self.weights[name].lerp_(parameter.detach().float(), 1 - decay)
        self.updates += 1

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the model has the averaged weights."""
        parameters = dict(self.model.named_parameters())
        own = {name: parameters[name].data for name in self.weights}
        for name, weight in self.weights.items():
            parameters[name].data = weight.to(own[name].dtype)
        try:
            yield
        finally:
            for name, data in own.items():
                parameters[name].data = data


__all__ = ["MovingAverage", "freeze", "lr_factor", "parameter_groups"]
