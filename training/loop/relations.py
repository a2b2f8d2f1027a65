"""Positive pairs of a batch, and pairs that are ignored because a label is unknown."""

import torch
import torch.nn.functional as F


def same_example(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The places at which two lists of examples `(rows,)` name the same one: two tensors `(pairs,)`."""
    return (first[:, None] == second[None]).nonzero(as_tuple=True)


def caption_relations(
    claimed: torch.Tensor, true: torch.Tensor, false: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positive and ignored pairs of pieces and captions.

    Args:
        claimed (`torch.Tensor` of shape `(captions, facts)`): 1 for each fact that a caption claims.
        true, false (`torch.Tensor` of shape `(pieces, facts)`): 1 for each fact that holds, or does not, for a piece.
    Returns:
        Two bool tensors of shape `(pieces, captions)`: positives, where all claims hold; and ignored pairs, where
        a claim is unknown. All other pairs are negatives: at least one claim is false.
    """
    positives = true @ claimed.T >= claimed.sum(1)[None] - 0.5
    wrong = false @ claimed.T > 0.5
    return positives, ~(positives | wrong)


def given_caption_relations(
    text_rows: torch.Tensor, words: torch.Tensor, claimed: torch.Tensor, true: torch.Tensor, song: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positive and ignored pairs, where captions are free text by people.

    Positives are the piece that a caption was written for, and pieces with the same caption. Versions of its song, and
    pieces that share all tags of its piece, are ignored. All other pairs are negatives.

    Args:
        text_rows (`torch.Tensor` of shape `(captions,)`): the piece of each caption.
        words (`torch.Tensor` of shape `(captions,)`): a number that equal captions share.
        claimed (`torch.Tensor` of shape `(captions, facts)`): what the labels of each caption's piece say.
        true (`torch.Tensor` of shape `(pieces, facts)`): 1 for each fact that holds for a piece.
        song (`torch.Tensor` of shape `(pieces,)`): the song of each piece.
    Returns:
        As `caption_relations`.
    """
    own = text_rows[None] == torch.arange(len(song), device=song.device)[:, None]  # (pieces, captions)
    same_words = (words[:, None] == words[None]).float()
    positives = own.float() @ same_words > 0.5
    tags = claimed.sum(1)[None]
    shares_tags = (true @ claimed.T >= tags - 0.5) & (tags > 0)
    return positives, (shares_tags | same_song(song, song[text_rows])) & ~positives


def same_song(songs: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """`(songs, others)` bool: other windows and versions of one song are not negatives of each other."""
    return songs[:, None] == others[None]


def mean_by_piece(embeds: torch.Tensor, piece: torch.Tensor, *flags: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Rows of one piece -> their mean as a unit row, and means of their flags; pieces with one row are left out."""
    pieces, place, counts = torch.unique(piece, return_inverse=True, return_counts=True)
    kept = counts > 1

    def mean(rows):
        return (rows.new_zeros(len(pieces), rows.shape[1]).index_add(0, place, rows) / counts[:, None])[kept]

    return F.normalize(mean(embeds), dim=-1), *map(mean, flags)


def text_relations(known: dict[str, torch.Tensor], text_rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`caption_relations` of captions made of facts, `given_caption_relations` of those that people wrote."""
    positives, ignored = caption_relations(known["claimed"], known["true"], known["false"])
    given = known["given"].bool()
    if not given.any():
        return positives, ignored
    own, shared = given_caption_relations(text_rows, known["words"], known["claimed"], known["true"], known["song"])
    return torch.where(given, own, positives), torch.where(given, shared, ignored)


__all__ = [
    "caption_relations",
    "given_caption_relations",
    "mean_by_piece",
    "same_example",
    "same_song",
    "text_relations",
]
