"""LoRA: an adapter of the text tower that is merged when saved, or a separate PEFT adapter."""

from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from modeling_pianobind import PianoBindModel

from ..data.arguments import TrainingArguments

TEXT_ADAPTER_MODULES = ["query", "key", "value", "dense"]
ADAPTER_NAME = "default"
LOGIT_SCALE = "logit_scale"


def add_text_adapter(model: PianoBindModel, rank: int) -> None:
    """Puts LoRA into the text tower; `merged_state` gives plain weights again."""
    adapter = LoraConfig(r=rank, lora_alpha=rank, target_modules=TEXT_ADAPTER_MODULES)
    inject_adapter_in_model(adapter, model.text_model)


def merged_state(model: PianoBindModel) -> dict[str, torch.Tensor]:
    """The weights with the text tower's adapter added to them, in half precision, by the names of a plain model."""
    state = {name: value for name, value in model.state_dict().items() if "lora_" not in name}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            key = f"{name}.base_layer.weight"
            state[key] = state[key] + module.get_delta_weight(ADAPTER_NAME)
    return {name.replace(".base_layer.", "."): value.half() for name, value in state.items()}


def add_adapter(model: PianoBindModel, arguments: TrainingArguments) -> None:
    """Puts a PEFT adapter on every linear layer of the named towers; their projections and the temperature train too.

    Raises:
        ValueError: the model lacks one of the towers.
    """
    for tower in arguments.lora_towers:
        if getattr(model, f"{tower}_model") is None:
            raise ValueError(
                f"`lora_towers` names {tower}, but {arguments.checkpoint} has no such tower; leave it out."
            )
    towers = tuple(f"{tower}_model." for tower in arguments.lora_towers)
    modules = model.named_modules()
    layers = [name for name, layer in modules if isinstance(layer, nn.Linear) and name.startswith(towers)]
    config = LoraConfig(
        r=arguments.lora_rank,
        lora_alpha=arguments.lora_alpha or 2 * arguments.lora_rank,
        target_modules=layers,
        modules_to_save=[*(f"{tower}_projection" for tower in arguments.lora_towers), LOGIT_SCALE],
        auto_mapping={"base_model_class": "PianoBindModel", "parent_library": PianoBindModel.__module__},
    )
    model.add_adapter(config)
    base = model.name_or_path
    if Path(base).is_dir():  # found from wherever the adapter is loaded; training.publish puts a Hub id in its place
        base = str(Path(base).resolve())
    model.peft_config[ADAPTER_NAME].base_model_name_or_path = base


__all__ = ["add_adapter", "add_text_adapter", "merged_state"]
