"""Embeddings of notes for evaluation: whole pieces in large batches, without writing files."""

import numpy as np
import torch

BATCH_NOTES = 60_000  # of a batch after padding


@torch.inference_mode()
def embed_notes(model, processor, pieces, most_windows: int | None = None) -> np.ndarray:
    """Embeds pieces that were already read.

    Args:
        pieces (`list[PianoNotes]`): one a piece.
        most_windows (`int`, *optional*): use at most this many windows of a piece, evenly spread.
    Returns:
        `np.ndarray` of shape `(pieces, dim)`, float32, unit rows.
    """
    windows, owner = [], []
    for place, notes in enumerate(pieces):
        cut, _ = processor.midi_processor.windows(notes)
        if most_windows and len(cut) > most_windows:
            cut = [cut[position] for position in np.linspace(0, len(cut) - 1, most_windows).round().astype(int)]
        windows += cut
        owner += [place] * len(cut)
    order = sorted(range(len(windows)), key=lambda window: len(windows[window]))
    totals = torch.zeros(len(pieces), model.config.projection_dim)
    while order:
        count = max(1, BATCH_NOTES // len(windows[order[-1]]))
        batch, order = order[-count:], order[:-count]
        ids, mask = processor.midi_processor.pad([windows[window] for window in batch])
        embeds = model.get_midi_features(ids.to(model.device), mask.to(model.device)).cpu()
        totals.index_add_(0, torch.tensor([owner[window] for window in batch]), embeds)
    return torch.nn.functional.normalize(totals, dim=1).numpy()
