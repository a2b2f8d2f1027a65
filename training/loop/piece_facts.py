"""Probability of each fact for each piece: from labels where they exist, else from a classifier on embeddings."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..data.corpus import PackedCorpus
from ..data.descriptors import descriptor_facts, measure
from ..data.facts import FORMS, GENRES, OPEN_MOODS
from ..data.vocabulary import FactVocabulary

GENERATED_PROBABILITY = 0.85  # probability of a fact that was generated for the work
SURE = 0.98  # of a label
UNLIKELY = 0.3  # how much it counts that labels do not name a fact that they would probably name
FOLDS, EPOCHS, BATCH = 4, 12, 512


@dataclass
class PieceFacts:
    """Facts of pieces from labels, notes and generated texts, `(pieces, facts)` each.

    Attributes:
        true, false (`np.ndarray`): shares of a piece's windows for which a fact holds, or does not.
        generated (`np.ndarray`): 1 where a fact is known of the work from elsewhere.
    """

    true: np.ndarray
    false: np.ndarray
    generated: np.ndarray

    @classmethod
    def of(
        cls, corpus: PackedCorpus, pieces: list[int], windows: list[list], vocabulary: FactVocabulary
    ) -> "PieceFacts":
        """Facts of the rows `pieces`, whose windows are notes."""
        shape = (len(pieces), len(vocabulary.facts))
        true, false, generated = (np.zeros(shape, np.float32) for _ in range(3))
        for place, (piece, parts) in enumerate(zip(pieces, windows, strict=True)):
            row = corpus.rows[piece]
            for notes in parts:
                holds, fails = descriptor_facts(measure(notes, notes.seconds))
                true[place] += vocabulary.encode(holds) / len(parts)
                false[place] += vocabulary.encode(fails) / len(parts)
            holds, fails = vocabulary.labels(row)
            holds, fails = vocabulary.encode(holds), vocabulary.encode(fails)
            weak = vocabulary.encode(unlikely_facts(row, vocabulary) - vocabulary.generated(row))
            false[place] = np.maximum(false[place], UNLIKELY * weak)
            true[place] = np.where(fails > 0, 0, np.maximum(true[place], holds))
            false[place] = np.where(holds > 0, 0, np.maximum(false[place], fails))
            generated[place] = vocabulary.encode(vocabulary.generated(row))
        return cls(true, false, generated)

    def probabilities(self, embeddings: np.ndarray, songs: np.ndarray, seed: int = 0) -> np.ndarray:
        """`(pieces, facts)`: known labels, and for the rest a classifier that has not seen the piece's song.

        Args:
            embeddings (`np.ndarray` of shape `(pieces, dim)`); songs (`np.ndarray` of shape `(pieces,)`).
        """
        guessed = cross_fitted(embeddings, self.true, self.false, songs, seed)
        known = np.clip(self.true + self.false, 0, 1)
        stated = np.clip(self.true / np.maximum(known, 1e-6), 1 - SURE, SURE)
        likely = known * stated + (1 - known) * guessed
        return np.where((self.generated > 0) & (self.false == 0), np.maximum(likely, GENERATED_PROBABILITY), likely)


def unlikely_facts(row: dict, vocabulary: FactVocabulary) -> set[str]:
    """Facts that a row's labels leave open, but would probably name: other genres, dances, forms and moods."""
    holds, _ = vocabulary.labels(row)
    named = set(GENRES) if row.get("genre") else set()
    if row.get("tier") == "weak":  # listed by people who also use these words
        named |= OPEN_MOODS if row.get("mood") else set()
        named |= {"easy"} if row.get("genre") else set()
    named |= set(FORMS) if row.get("title") else set()
    return (named - holds) & vocabulary.number.keys()


def cross_fitted(
    embeddings: np.ndarray, true: np.ndarray, false: np.ndarray, songs: np.ndarray, seed: int
) -> np.ndarray:
    """Probabilities by networks that were each fitted to the other folds; all pieces of a song are in one fold."""
    generator = torch.Generator().manual_seed(seed)
    distinct, song = np.unique(songs, return_inverse=True)
    fold = torch.randint(FOLDS, (len(distinct),), generator=generator)[torch.from_numpy(song)]
    x, holds, fails = (torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in (embeddings, true, false))
    x = x * x.shape[1] ** 0.5
    result = torch.empty_like(holds)
    for number in range(FOLDS):
        others, own = (fold != number).nonzero()[:, 0], (fold == number).nonzero()[:, 0]
        network = _fitted(x[others], holds[others], fails[others], generator, seed + number)
        with torch.no_grad():
            result[own] = network(x[own]).sigmoid()
    return result.numpy()


def _fitted(
    x: torch.Tensor, holds: torch.Tensor, fails: torch.Tensor, generator: torch.Generator, seed: int
) -> torch.nn.Module:
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], 256), torch.nn.GELU(), torch.nn.Linear(256, holds.shape[1])
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    steps = EPOCHS * (len(x) // BATCH + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (min(BATCH, len(x)),), generator=generator)
        logits = network(x[rows])
        losses = holds[rows] * F.softplus(-logits) + fails[rows] * F.softplus(logits)  # calibrated: no class weights
        optimizer.zero_grad()
        (losses.sum() / (holds[rows] + fails[rows]).sum().clamp(min=1)).backward()
        optimizer.step()
        schedule.step()
    return network


__all__ = ["PieceFacts", "cross_fitted"]
