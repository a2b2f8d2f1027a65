"""Retrieval figures between all modalities on rows that a run does not train on."""

from itertools import combinations

import numpy as np
import torch

from modeling_pianobind.metric.ranking import embedding_retrieval_metrics

from ..data.arguments import StageArguments
from ..data.dataset import WindowSampler
from ..data.sources import TrainingCorpus
from .batches import BatchCollator, on_device
from .losses import caption_relations
from .objective import TrainingModel

BATCH_ROWS = 32
FIGURES = ("recall@1", "recall@10", "mrr", "median_rank")


def plain_examples(sampler: WindowSampler, corpus: TrainingCorpus, rows: int) -> list[dict]:
    """Examples of the first rows of each source, in turn, without augmentation; the same in every call."""
    columns = [
        [(part.corpus, int(piece)) for piece in pieces] for part in corpus.parts for pieces in part.pieces.values()
    ]
    turns = [column[turn] for turn in range(max(map(len, columns))) for column in columns if turn < len(column)]
    examples = []
    for where, piece in turns:
        if len(examples) == rows:
            break
        example = sampler.plain_example(where, piece)
        if example is not None:
            examples.append(example | {"number": len(examples)})
    return examples


@torch.no_grad()
def embed_examples(
    training_model: TrainingModel,
    examples: list[dict],
    collator: BatchCollator,
    stage: StageArguments,
    device: torch.device | str,
) -> dict:
    """Embeddings of all examples.

    Returns:
        For each of audio, midi and text: the examples' positions `(rows,)` and their embeddings `(rows, dim)`.
    """
    embeds_of = {}
    for first in range(0, len(examples), BATCH_ROWS):
        batch = collator(examples[first : first + BATCH_ROWS])
        blocks, known = on_device(batch, device, collator.processor.feature_extractor, strength=0.0)
        for name in ("audio", "midi", "text"):
            if name in blocks:
                embeds = training_model.outputs(name, blocks[name], stage)[name]
                rows, parts = embeds_of.setdefault(name, ([], []))
                rows.append(known["rows"][name].cpu().numpy() + first)
                parts.append(embeds.float().cpu().numpy())
    return {name: (np.concatenate(rows), np.concatenate(parts)) for name, (rows, parts) in embeds_of.items()}


def retrieval_scores(embeds_of: dict, examples: list[dict]) -> dict[str, float]:
    """Retrieval figures between the modalities.

    Relevant rows of a text: its own row, rows with the same text and, if it is written from facts, all rows for which
    these hold.

    Args:
        embeds_of: from `embed_examples`.
    Returns:
        `dict`: "text_to_midi recall@10" and the like, and `score`, the mean reciprocal rank over all directions.
    """
    scores, ranks = {}, []
    for first, second in combinations([name for name in ("text", "audio", "midi") if name in embeds_of], 2):
        (first_rows, first_embeds), (second_rows, second_embeds) = embeds_of[first], embeds_of[second]
        shared = np.intersect1d(first_rows, second_rows)
        if len(shared) < 2:
            continue
        first_embeds = first_embeds[np.searchsorted(first_rows, shared)]
        second_embeds = second_embeds[np.searchsorted(second_rows, shared)]
        fits = np.eye(len(shared), dtype=bool)
        if first == "text":
            fits |= _text_fits([examples[row] for row in shared])
        for name, queries, items, relevant in (
            (f"{first}_to_{second}", first_embeds, second_embeds, fits),
            (f"{second}_to_{first}", second_embeds, first_embeds, fits.T),
        ):
            right = [np.flatnonzero(row).tolist() for row in relevant]
            figures = embedding_retrieval_metrics(queries, items, right, bootstrap_samples=0)
            scores |= {f"{name} {figure}": round(float(figures[figure]), 4) for figure in FIGURES}
            ranks.append(figures["mrr"])
    if not ranks:
        raise ValueError("nothing to measure: no two rows of the split have the same two modalities.")
    return scores | {"score": round(float(np.mean(ranks)), 4), "rows": len(examples)}


def _text_fits(examples: list[dict]) -> np.ndarray:
    """`(texts, rows)` bool: the relevant rows of each text, without its own."""
    texts = np.array([example["caption"] for example in examples])
    facts = [
        torch.from_numpy(np.stack([example[key] for example in examples])) for key in ("claimed", "true", "false")
    ]
    holds = caption_relations(*facts)[0].T.numpy()
    given = np.array([example["given"] for example in examples])
    return (texts[:, None] == texts[None]) | (holds & ~given[:, None])


__all__ = ["embed_examples", "plain_examples", "retrieval_scores"]
