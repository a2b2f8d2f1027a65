"""Objective of a run: the towers' outputs for a batch, and the losses on the outputs of all processes."""

import torch
from torch import nn

from modeling_pianobind import PianoBindModel

from ..data.arguments import StageArguments
from .distributed import gather, gather_all
from .losses import Comparison, Loss, make_losses

LENGTH_PARTS, LENGTH_STEP = 8, 32
# entries of a batch about its examples
KNOWN = ("song", "piece", "window", "work", "true", "false", "generated", "claimed", "given", "words", "label_facts")
FLAGS = ("true", "false", "generated", "claimed")


class TrainingModel(nn.Module):
    """The model with its losses (`training.loop.losses`).

    A batch holds blocks of rows by name, each a dict of tensors by the model's argument names: `midi`, `masked_note`,
    `view`, `audio`, `text` and `label`, whichever there are; and the labels of its examples.
    """

    def __init__(
        self,
        model: PianoBindModel,
        is_label: torch.Tensor | None = None,
        view_queue: int = 0,
        audio_midi_queue: int = 0,
    ):
        super().__init__()
        self.model = model
        self.all_losses = make_losses(model, is_label, view_queue, audio_midi_queue)

    def used_losses(self, stage: StageArguments) -> list[Loss]:
        """The losses that a stage gives a weight."""
        return [loss for loss in self.all_losses.values() if stage.weight(loss.name)]

    def needs(self, block: str, stage: StageArguments) -> bool:
        """Whether a loss of a stage needs a block of a batch."""
        return any(loss.needs(block, stage) for loss in self.used_losses(stage))

    def outputs(self, name: str, block: dict, stage: StageArguments) -> dict[str, torch.Tensor]:
        """Outputs of one block for the losses.

        Returns:
            Embeddings `(rows, dim)` by the block's name; sums and counts `(1, 2)` of losses that are made with it.
        """
        made_here = {loss.name: loss for loss in self.used_losses(stage) if loss.block == name}
        if name == "masked_note":
            return {key: loss.sums(self.model, **block)[None] for key, loss in made_here.items()}
        tower = {"label": "text", "view": "midi"}.get(name, name)
        # short texts of single facts tell the other towers apart, while the captions alone train the text tower
        with torch.set_grad_enabled(torch.is_grad_enabled() and tower not in stage.frozen and name != "label"):
            if tower == "text":
                return {name: self.model.get_text_features(**block)}
            if tower == "midi":
                outputs = {name: self.embed_midi_by_length(**block)}
                sums = {key: loss.sums(self.model, outputs[name], **block) for key, loss in made_here.items()}
            else:
                features, mask = block["input_features"], block["audio_attention_mask"]
                hidden = self.model.audio_model(features, mask)
                outputs = {name: self.model._project("audio", self.model.audio_model.pool(hidden, mask))}
                token_mask = self.model.audio_model.token_mask(mask)
                sums = {key: loss.sums(hidden, token_mask, block) for key, loss in made_here.items()}
        return outputs | {key: value[None] for key, value in sums.items()}

    def embed_midi_by_length(self, midi_ids: torch.Tensor, midi_attention_mask: torch.Tensor) -> torch.Tensor:
        """The same as `get_midi_features`, in a few parts of like length, so that little padding is computed.

        Lengths are rounded up to `LENGTH_STEP` notes: every new shape of a product costs milliseconds of preparation.
        """
        lengths = midi_attention_mask.sum(1)
        missing = -midi_ids.shape[1] % LENGTH_STEP
        midi_ids = nn.functional.pad(midi_ids, (0, 0, 0, missing))
        midi_attention_mask = nn.functional.pad(midi_attention_mask, (0, missing))
        order = lengths.argsort()
        parts = [
            self.model.get_midi_features(midi_ids[rows, :longest], midi_attention_mask[rows, :longest])
            for rows in order.tensor_split(min(LENGTH_PARTS, len(order)))
            for longest in [-(-int(lengths[rows].max()) // LENGTH_STEP) * LENGTH_STEP]
        ]
        return torch.cat(parts)[order.argsort()]

    def losses(self, outputs: dict[str, torch.Tensor], batch: dict, stage: StageArguments) -> dict[str, torch.Tensor]:
        """The losses by name, not weighted yet; all processes compute them from the rows of all.

        Args:
            outputs: of every block of this process's batch.
            batch: `rows` gives each embedding's example, the other entries are labels of the examples.
        """
        outputs = dict(gather_all(outputs))
        known = gather_all({name: batch[name] for name in KNOWN if name in batch})
        known |= {name: known[name].float() for name in FLAGS if name in known}
        first = _rows_before(batch)
        rows = gather_all({name: rows + first for name, rows in batch["rows"].items()})
        sums = {name: outputs.pop(name) for name in list(outputs) if name not in rows and name != "label"}
        if stage.compares_whole_bank:
            outputs["midi"] = self.all_losses["audio_midi"].bank[0][known["window"]]
            rows["midi"] = torch.arange(len(known["song"]), device=known["song"].device)
        compared = Comparison(self.model, stage, outputs, sums, rows, known)
        losses = {loss.name: loss(compared) for loss in self.used_losses(stage)}
        return {name: loss for name, loss in losses.items() if loss is not None}


def _rows_before(batch: dict) -> int:
    """How many examples the processes before this one have."""
    counts = gather(torch.tensor([len(batch["song"])], device=batch["song"].device))
    rank = torch.distributed.get_rank() if len(counts) > 1 else 0
    return int(counts[:rank].sum())


__all__ = ["TrainingModel"]
