"""Baselines: hand-made features with logistic regression, and search in captions written from these."""

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modeling_pianobind.notes_pianobind import PianoNotes
from training.data.captions import write_caption
from training.data.descriptors import descriptor_facts, measure

if TYPE_CHECKING:
    from .bench import Bench

VELOCITY_EDGES = np.linspace(0, 128, 9)
PITCH_EDGES = np.linspace(21, 109, 9)
DURATION_EDGES = np.geomspace(0.03, 4, 9)
GAP_EDGES = np.geomspace(0.01, 2, 9)
PEDAL_EDGES = np.array([0, 0.05, 0.2, 0.5, 1, 2, 10])
FEATURE_STRENGTH = 0.1  # inverse regularisation of every logistic regression on features
MIN_KNOWN = 20  # positive and negative pieces that a fact needs to be learnt, at least
WORDINGS = 5  # captions of one piece, so that they hold synonyms


def note_features(notes: PianoNotes) -> np.ndarray:
    """Numbers of a piece: measures, and histograms of scale degrees, keys, velocities, durations, gaps and pedal."""
    measures = measure(notes, notes.seconds)
    tonic = measures.pop("key"), measures.pop("minor_key")
    degrees = (notes.pitch - tonic[measures["major_margin"] < 0]) % 12
    parts = [
        np.array(list(measures.values())),
        np.bincount(degrees, weights=np.minimum(notes.duration, 2.0) + 1e-6, minlength=12),
        *(
            np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
            for values, edges in (
                (notes.pitch, PITCH_EDGES),
                (notes.velocity, VELOCITY_EDGES),
                (notes.duration, DURATION_EDGES),
                (np.diff(notes.onset), GAP_EDGES),
                (notes.pedal, PEDAL_EDGES),
            )
        ),
    ]
    return np.concatenate([parts[0], *(part / max(part.sum(), 1e-9) for part in parts[1:])])


def feature_matrix(pieces: Iterable[PianoNotes]) -> np.ndarray:
    """`(pieces, features)`."""
    return np.stack([note_features(notes) for notes in pieces])


def tag_probabilities(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """One logistic regression a column.

    Args:
        train (`np.ndarray` of shape `(train pieces, features)`).
        labels (`np.ndarray` of shape `(train pieces, tags)`): 1 has it, 0 has it not, NaN unknown.
        test (`np.ndarray` of shape `(pieces, features)`).
    Returns:
        `np.ndarray` of shape `(pieces, tags)`: chance of each tag; 0 for a tag with one class only in `train`.
    """
    probabilities = np.zeros((len(test), labels.shape[1]))
    for number, column in enumerate(labels.T):
        known = ~np.isnan(column)
        if len(set(column[known])) == 2:
            classifier = make_pipeline(StandardScaler(), LogisticRegression(C=FEATURE_STRENGTH, max_iter=2000))
            probabilities[:, number] = classifier.fit(train[known], column[known]).predict_proba(test)[:, 1]
    return probabilities


def generated_captions(bench: "Bench", pieces: list[PianoNotes], unseen: Iterable[int] = ()) -> list[str]:
    """Facts of a piece without any embedding: from its notes, and the labels that its features predict.

    Args:
        bench (`Bench`): whose `train` rows with human or provenance labels teach the prediction.
        pieces (`list[PianoNotes]`).
        unseen: corpus positions of `train` rows that must not teach it.
    Returns:
        `list[str]`: some captions of each piece, one after the other.
    """
    unseen = set(unseen)
    train = bench.corpus.select(lambda row: row["split"] == "train" and bench.signed_facts(row)[0])
    train = [place for place in train if place not in unseen]
    facts, predicted = [], np.zeros((len(pieces), 0))
    if train:
        known = [bench.signed_facts(row) for row in bench.rows_at(train)]
        every = sorted(set().union(*(true for true, _ in known)))
        labels = np.array([[1 if f in true else 0 if f in false else np.nan for f in every] for true, false in known])
        enough = ((labels == 1).sum(0) >= MIN_KNOWN) & ((labels == 0).sum(0) >= MIN_KNOWN)
        facts = [fact for fact, kept in zip(every, enough, strict=True) if kept]
        if facts:
            predicted = tag_probabilities(bench.features_at(train), labels[:, enough], feature_matrix(pieces))
    captions = []
    for number, (notes, chances) in enumerate(zip(pieces, predicted, strict=True)):
        said = sorted(descriptor_facts(measure(notes, notes.seconds))[0])
        said += [fact for fact, chance in zip(facts, chances, strict=True) if chance > 0.5]
        words = random.Random(number)
        captions.append(". ".join(write_caption(said, bench.creators, words) for _ in range(WORDINGS)))
    return captions


def word_scores(queries: list[str], documents: list[str]) -> np.ndarray:
    """BM25 of each query with each document, `(queries, documents)`; 0 where a query has no word that counts."""
    import bm25s

    queries, documents = (
        bm25s.tokenize(texts, return_ids=False, show_progress=False) for texts in (queries, documents)
    )
    index = bm25s.BM25()
    index.index(documents, show_progress=False)
    none = np.zeros(len(documents))
    return np.stack([index.get_scores(query) if query else none for query in queries])


def sentence_embedder(folder: str, device: str) -> Callable[[list[str]], np.ndarray]:
    """A function of texts -> `(texts, dim)` unit rows, by an encoder whose tokens are averaged, such as MiniLM."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).to(device).eval()

    @torch.inference_mode()
    def embed(texts):
        embeds = []
        for start in range(0, len(texts), 64):
            batch = tokenizer(texts[start : start + 64], padding=True, truncation=True, return_tensors="pt").to(device)
            hidden, mask = encoder(**batch).last_hidden_state, batch["attention_mask"][..., None]
            embeds.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).cpu())
        return torch.cat(embeds).numpy()

    return embed
