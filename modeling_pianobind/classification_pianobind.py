"""PianoBindForSequenceClassification: labels of one's own on recordings, MIDI or both, of any length."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_pianobind import PianoBindConfig
from .label_head_pianobind import MULTI, REGRESSION, SINGLE, LabelHead
from .modeling_pianobind import PianoBindModel, mean_of_windows

IGNORED = -100  # a missing label of single-label classification; of the others it is NaN


class WindowAttention(nn.Linear):
    """One number a window; its weights begin with 0, so that attention begins as the plain mean."""


class ClassificationHead(nn.Module):
    """Pools the windows of a piece, and reads labels off the embedding."""

    def __init__(self, config: PianoBindConfig):
        super().__init__()
        self.scale = config.projection_dim**0.5  # a unit vector's numbers are small; these have a variance of 1
        self.attention = None
        if config.classifier_pooling == "attention":
            self.attention = WindowAttention(config.projection_dim, 1, bias=False)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.output = nn.Linear(config.projection_dim, config.num_labels)

    def forward(self, embeds: torch.Tensor) -> torch.Tensor:
        """`(batch, dim)` unit rows -> `(batch, labels)` logits."""
        return self.output(self.dropout(embeds.to(self.output.weight.dtype) * self.scale)).float()

    def pool(self, windows: torch.Tensor, piece: torch.Tensor, pieces: int) -> torch.Tensor:
        """Unit rows of windows `(windows, dim)` -> of pieces `(pieces, dim)`, by attention within each piece."""
        scores = self.attention(windows.to(self.attention.weight.dtype) * self.scale)[:, 0].float()
        highest = scores.detach().new_full((pieces,), -torch.inf).scatter_reduce(0, piece, scores.detach(), "amax")
        weights = (scores - highest[piece]).exp()
        return F.normalize(windows.new_zeros(pieces, windows.shape[1]).index_add(0, piece, windows * weights[:, None]))


class PianoBindForSequenceClassification(PianoBindModel):
    """The towers with a classifier on their embeddings.

    `config.num_labels`, `config.id2label` and `config.problem_type` are those of transformers: one of several labels,
    any of several labels, or numbers. `PianoBindForSequenceClassification.from_pretrained` of a checkpoint without a
    classifier makes a new one; `PianoBindModel.from_pretrained` of a classifier leaves it out.
    """

    def __init__(self, config: PianoBindConfig):
        super().__init__(config)
        self.classifier = ClassificationHead(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, WindowAttention):
            init.zeros_(module.weight)
        else:
            super()._init_weights(module)

    def forward(
        self,
        input_features: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
        midi_ids: torch.Tensor | None = None,
        midi_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Classifies pieces by their recording, their MIDI, or both.

        Args:
            input_features, audio_attention_mask: see `get_audio_features`.
            midi_ids, midi_attention_mask: see `get_midi_features`; row `i` of both is the same piece.
            labels (`torch.Tensor`, *optional*): `(batch,)` int64, -100 where unknown, of single-label classification;
                else `(batch, num_labels)` float, NaN where unknown.
            return_dict (`bool`, *optional*): False gives a tuple; the config says which by default.
        Returns:
            `SequenceClassifierOutput`: `logits` of shape `(batch, num_labels)`, and `loss` where there are labels.
        """
        given = []
        if input_features is not None:
            given.append(self.audio_windows(input_features, audio_attention_mask))
        if midi_ids is not None:
            given.append(self.midi_windows(midi_ids, midi_attention_mask))
        if not given:
            raise ValueError("nothing to classify: pass `input_features`, `midi_ids` or both.")
        logits = self.classifier(self._pooled(given))
        loss = None if labels is None else classification_loss(logits, labels, self.config.problem_type)
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        as_output = self.config.return_dict if return_dict is None else return_dict
        return output if as_output else output.to_tuple()

    def _pooled(self, given: list[tuple[torch.Tensor, torch.Tensor, int]]) -> torch.Tensor:
        """Windows of each modality, as `audio_windows` gives them -> `(pieces, dim)` unit rows."""
        pieces = given[0][2]
        if any(count != pieces for _, _, count in given):
            raise ValueError(f"{pieces} recordings and {given[1][2]} MIDI pieces do not belong together row by row.")
        if self.classifier.attention is not None:
            windows, piece = (torch.cat(parts) for parts in list(zip(*given, strict=True))[:2])
            return self.classifier.pool(windows, piece, pieces)
        means = [mean_of_windows(windows, piece, pieces) for windows, piece, _ in given]
        return means[0] if len(means) == 1 else F.normalize(sum(means), dim=-1)

    @property
    def label_head(self) -> LabelHead:
        """The classifier on numpy, for embeddings of files; see `embed_example`."""
        return LabelHead.of(self)


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, problem_type: str | None) -> torch.Tensor:
    """Mean loss over the labels that are known; 0 where none is.

    Args:
        logits (`torch.Tensor` of shape `(batch, num_labels)`).
        labels: see `PianoBindForSequenceClassification.forward`.
        problem_type (`str`, *optional*): by default regression for one output, and else what the labels' type says.
    """
    if problem_type is None:
        kinds = {True: REGRESSION, False: MULTI if labels.is_floating_point() else SINGLE}
        problem_type = kinds[logits.shape[1] == 1]
    if problem_type not in (MULTI, REGRESSION):
        total = F.cross_entropy(logits, labels.view(-1), ignore_index=IGNORED, reduction="sum")
        return total / (labels != IGNORED).sum().clamp(min=1)
    labels = labels.to(logits.dtype).view(logits.shape)
    known = ~labels.isnan()
    measure = F.binary_cross_entropy_with_logits if problem_type == MULTI else F.mse_loss
    return measure(logits[known], labels[known], reduction="sum") / known.sum().clamp(min=1)


__all__ = ["PianoBindForSequenceClassification", "classification_loss"]
