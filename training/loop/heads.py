"""Heads that only training uses: they predict notes, statistics and facts from the towers' outputs."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from modeling_pianobind.note_statistics_pianobind import NoteStatistics

MEASURED_FACT_WEIGHT = 0.3  # weight of facts that the notes of a window state: they are many and easy


class FactHead(nn.Module):
    """Predicts the facts of an embedding: a sigmoid for each fact on the cosine with its text.

    A softmax compares a fact with the others of a batch; here each fact is judged by itself, so facts that hold
    together do not compete. Rare facts count as much as common ones, and their positives more than their negatives.
    Unknown labels are left out.
    """

    decay = 0.99  # of the running share of positives
    max_positive_weight = 8.0

    def __init__(self, is_label: torch.Tensor):
        super().__init__()
        facts = len(is_label)
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.full((facts,), -2.0))
        self.register_buffer("positive_share", torch.full((facts,), 0.1))
        self.register_buffer("is_label", is_label.float())
        self.register_buffer("fact_weight", torch.where(is_label, 1.0, MEASURED_FACT_WEIGHT))

    def forward(
        self, embeds: torch.Tensor, texts: torch.Tensor, true: torch.Tensor, false: torch.Tensor
    ) -> torch.Tensor:
        """Mean loss over the facts that are known of some row.

        Args:
            embeds (`torch.Tensor` of shape `(rows, dim)`), texts (`(facts, dim)`): unit rows.
            true, false (`torch.Tensor` of shape `(rows, facts)`): 1 for each fact that holds, or does not; a share
                where several windows differ.
        """
        logits = self.scale.clamp(max=math.log(40.0)).exp() * (embeds @ texts.T) + self.bias
        positives, negatives = true.sum(0), false.sum(0)
        if self.training:
            known = positives + negatives
            share = torch.where(known > 0, positives / known.clamp(min=1e-6), self.positive_share)
            self.positive_share.lerp_(share.clamp(0.002, 0.998), 1 - self.decay)
        weight = ((1 - self.positive_share) / self.positive_share).sqrt().clamp(max=self.max_positive_weight)
        losses = weight * true * F.softplus(-logits) + false * F.softplus(logits)
        per_fact = losses.sum(0) / (weight * positives + negatives).clamp(min=1e-3)
        counts = self.fact_weight * torch.where(positives > 0, 1.0, 0.2) * (positives + negatives > 0)
        return (per_fact * counts).sum() / counts.sum().clamp(min=1)


class MaskedNoteHeads(nn.Module):
    """Predicts every field of masked notes from the MIDI tower's hidden states; used in training only."""

    def __init__(self, hidden_size: int, field_sizes: Sequence[int], notes_per_token: int = 1):
        super().__init__()
        self.spread = None
        if notes_per_token > 1:  # from the state of a token to those of its notes
            self.spread = nn.Linear(hidden_size, notes_per_token * hidden_size)
        self.heads = nn.ModuleList(nn.Linear(hidden_size, size) for size in field_sizes)
        self.register_buffer("mask_row", torch.tensor(field_sizes) - 1)

    def replace(self, midi_ids: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """Puts MASK where `masked (windows, notes)` is true."""
        return torch.where(masked[..., None], self.mask_row, midi_ids)

    def forward(self, hidden: torch.Tensor, midi_ids: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, mean over the fields, summed over masked notes, and their count: shape `(2,)`."""
        if self.spread is not None:
            of_notes = F.gelu(self.spread(hidden)).unflatten(2, (-1, hidden.shape[2])).flatten(1, 2)
            hidden = of_notes[:, : midi_ids.shape[1]]
        states, targets = hidden[masked], midi_ids[masked]
        losses = [
            F.cross_entropy(head(states).float(), targets[:, place], reduction="sum")
            for place, head in enumerate(self.heads)
        ]
        return torch.stack([sum(losses) / len(losses), masked.sum().float()])


class StatisticsHead(nn.Module):
    """Predicts a window's statistics from its embedding; used in training only.

    Contrastive losses keep only what distinguishes a window from the others of a batch. Statistics that a linear layer
    can predict from an embedding stay available for other tasks, such as a probe for artists.
    """

    groups = 8  # of each field's values

    def __init__(self, projection_dim: int, statistics: NoteStatistics):
        super().__init__()
        grouping = []
        for size in statistics.field_sizes:
            group = torch.arange(size).clamp(max=size - 3) * self.groups // (size - 2)
            grouping.append(F.one_hot(group, self.groups).float())
        self.register_buffer("grouping", torch.block_diag(*grouping))
        others = statistics.norm.normalized_shape[0] - len(self.grouping)
        self.scale = nn.BatchNorm1d(self.grouping.shape[1] + others, affine=False, momentum=0.02)
        self.head = nn.Linear(projection_dim, self.scale.num_features)

    def forward(self, embeds: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
        """Squared error in standard deviations, summed over windows, and their count: shape `(2,)`.

        Args:
            embeds (`torch.Tensor` of shape `(windows, projection_dim)`): unit rows.
            statistics (`torch.Tensor` of shape `(windows, statistics)`): of `NoteStatistics.measure`.
        """
        fields = len(self.grouping)
        coarse = (statistics[:, :fields].square() @ self.grouping).sqrt()
        targets = self.scale(torch.cat([coarse, statistics[:, fields:]], 1)).clamp(-4, 4)
        error = F.mse_loss(self.head(embeds * embeds.shape[1] ** 0.5).float(), targets)
        return torch.stack([error * len(embeds), error.new_tensor(len(embeds))])


class OnsetHead(nn.Module):
    """Predicts onsets and sounding keys in each token of an audio window; used in training only.

    A contrastive loss has one target for each window, which is too little for an audio tower with random weights to
    start from; the onsets of the window's notes are many targets.

    Args:
        slots (`int`): equal parts of a token's time, each with its own onsets.
    """

    rare = -4.0  # initial logit of onsets: a key has one in about one token of a hundred
    held_weight = 0.3  # of held keys, with 1 for onsets: many more of their targets are true

    def __init__(self, hidden_size: int, slots: int = 1, keys: int = 88):
        super().__init__()
        self.slots, self.keys = slots, keys
        self.head = nn.Linear(hidden_size, (slots + 1) * keys)
        nn.init.constant_(self.head.bias, self.rare)

    def targets(
        self, keys: torch.Tensor, onsets: torch.Tensor, holds: torch.Tensor, tokens: int, token_seconds: float
    ) -> torch.Tensor:
        """`(windows, tokens, (slots + 1) * keys)` of 0 and 1: keys with an onset by slot, then sounding keys.

        Args:
            keys, onsets, holds (`torch.Tensor` of shape `(windows, notes)`): piano key, onset in seconds, and seconds
                for which each note sounds; an onset after the window, or NaN, is none.
        """
        onset_targets = self._marked((onsets / token_seconds * self.slots).floor(), keys, tokens * self.slots)
        first = (onsets / token_seconds).nan_to_num(-1e6)
        last = ((onsets + holds) / token_seconds).nan_to_num(-1e6).floor().long().clamp(-1, tokens - 1)
        first = first.floor().long().clamp(0, tokens)
        valid = (last >= first).float()
        size = (tokens + 1) * self.keys
        changes = torch.zeros(len(keys), size, device=keys.device)
        changes.scatter_add_(1, first * self.keys + keys, valid).scatter_add_(
            1, ((last + 1).clamp(min=0)) * self.keys + keys, -valid
        )
        held = (changes.view(len(keys), tokens + 1, self.keys).cumsum(1)[:, :tokens] > 0.5).float()
        return torch.cat([onset_targets.view(len(keys), tokens, self.slots * self.keys), held], dim=2)

    def _marked(self, place: torch.Tensor, keys: torch.Tensor, places: int) -> torch.Tensor:
        """`(windows, places * keys)`: 1 where a key belongs to a place; places out of range are left out."""
        place = place.nan_to_num(-1.0).long()
        inside = (place >= 0) & (place < places)
        index = torch.where(
            inside, place * self.keys + keys, places * self.keys
        )  # the last one collects what is out of range
        marked = torch.zeros(len(keys), places * self.keys + 1, device=keys.device)
        return marked.scatter_(1, index, 1.0)[:, :-1]

    def forward(self, hidden: torch.Tensor, targets: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy, summed over keys and unpadded tokens, and the count of these tokens: shape `(2,)`.

        Args:
            hidden (`torch.Tensor` of shape `(windows, tokens, hidden_size)`).
            targets: of `targets`; token_mask (`torch.Tensor` of shape `(windows, tokens)`): 0 on padding.
        """
        losses = F.binary_cross_entropy_with_logits(self.head(hidden).float(), targets, reduction="none")
        onset_losses, held_losses = losses.split([self.slots * self.keys, self.keys], dim=2)
        present = (token_mask != 0).float()
        return torch.stack(
            [((onset_losses.sum(-1) + self.held_weight * held_losses.sum(-1)) * present).sum(), present.sum()]
        )


__all__ = ["FactHead", "MaskedNoteHeads", "OnsetHead", "StatisticsHead"]
