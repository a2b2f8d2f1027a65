"""The losses of training that compare more than the diagonal; the contrastive loss itself is the model's own."""

import torch
import torch.nn.functional as F
from torch import nn


def caption_relations(claimed: torch.Tensor, true: torch.Tensor, false: torch.Tensor):
    """Which piece fits which caption.

    Args:
        claimed (`torch.Tensor` of shape `(captions, facts)`): 1 for each fact that a caption claims.
        true, false (`torch.Tensor` of shape `(pieces, facts)`): 1 for each fact that holds, or does not, for a piece.
    Returns:
        Two bool tensors of shape `(pieces, captions)`: positives, where all claims hold; and ignored pairs, of which
        nobody knows. What is neither is wrong: at least one claim is false.
    """
    positives = true @ claimed.T >= claimed.sum(1)[None] - 0.5
    wrong = false @ claimed.T > 0.5
    return positives, ~(positives | wrong)


def same_song(songs: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`(songs, others)` bool: other windows and versions of one song are no negatives of each other."""
    return songs[:, None] == others[None]


class MaskedNoteHeads(nn.Module):
    """Predicts every field of masked notes from the MIDI tower's hidden states; used in training only."""

    def __init__(self, hidden_size: int, field_sizes):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(hidden_size, size) for size in field_sizes)
        self.register_buffer("mask_row", torch.tensor(field_sizes) - 1)

    def mask(self, midi_ids, midi_attention_mask, share: float = 0.25):
        """Replaces random notes by MASK; in half of the rows whole stretches, so that copying neighbours is no help.

        Returns:
            The changed ids and a bool tensor `(windows, notes)`: what was masked.
        """
        windows, notes = midi_ids.shape[:2]
        scattered = torch.rand(windows, notes, device=midi_ids.device) < share
        stretch = torch.rand(windows, (notes + 7) // 8, device=midi_ids.device) < share
        stretch = stretch.repeat_interleave(8, dim=1)[:, :notes]
        whole = torch.rand(windows, 1, device=midi_ids.device) < 0.5
        masked = torch.where(whole, stretch, scattered) & midi_attention_mask.bool()
        return torch.where(masked[..., None], self.mask_row, midi_ids), masked

    def forward(self, hidden, midi_ids, masked):
        """Mean cross-entropy over the fields of masked notes."""
        states, targets = hidden[masked], midi_ids[masked]
        losses = [F.cross_entropy(head(states).float(), targets[:, field]) for field, head in enumerate(self.heads)]
        return sum(losses) / len(losses)


class StruckKeysHead(nn.Module):
    """Hears which keys are struck in each token of an audio window; used in training only.

    Contrastive losses say so little about a single window that an audio tower with random weights hardly starts to
    learn from them; which keys are struck, and when, is told by the window's own notes.
    """

    rare = -4.0  # a key is struck in about one token of a hundred

    def __init__(self, hidden_size: int, keys: int = 88):
        super().__init__()
        self.head = nn.Linear(hidden_size, keys)
        nn.init.constant_(self.head.bias, self.rare)

    def targets(self, keys, onsets, midi_attention_mask, tokens: int, token_seconds: float):
        """`(windows, tokens, keys)` of 0 and 1.

        Args:
            keys, onsets (`torch.Tensor` of shape `(windows, notes)`): piano key and onset in seconds of each note.
            midi_attention_mask (`torch.Tensor` of shape `(windows, notes)`): 0 on padding.
        """
        token = (onsets / token_seconds).floor().long()
        inside = (midi_attention_mask != 0) & (token >= 0) & (token < tokens)
        count = self.head.out_features
        place = torch.where(inside, token * count + keys, tokens * count)  # the last place is thrown away
        struck = torch.zeros(len(keys), tokens * count + 1, device=keys.device).scatter_(1, place, 1.0)
        return struck[:, :-1].view(-1, tokens, count)

    def forward(self, hidden, targets, token_mask):
        """Binary cross-entropy, summed over the keys, mean over tokens; `hidden (windows, tokens, hidden_size)`."""
        losses = F.binary_cross_entropy_with_logits(self.head(hidden).float(), targets, reduction="none").sum(-1)
        heard = (token_mask != 0).float()
        return (losses * heard).sum() / heard.sum().clamp(min=1)


__all__ = ["MaskedNoteHeads", "StruckKeysHead", "caption_relations", "same_song"]
