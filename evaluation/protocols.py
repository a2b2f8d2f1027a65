"""Evaluation protocols as functions: embeddings and labels in, scores out. Nothing here reads files or runs towers."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modeling_pianobind.labels_pianobind import EMOTION_PROMPTS, label_embeddings

from .piano_retrieval.ranking import macro_average_precision, macro_roc_auc, retrieval_metrics

FEWEST_POSITIVES = 5
PROBE_STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Rows of unit length."""
    return embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True).clip(1e-12)


def ensemble(embed_text, prompts) -> np.ndarray:
    """One unit embedding of several wordings, `(dim,)`."""
    return unit(embed_text(list(prompts)).mean(0))


def tags_of(row: dict) -> set[str]:
    """Genre and style tags of a corpus row."""
    return {*row.get("genre", ()), *row.get("style", ())}


def zero_shot_tagging(embeddings, rows, embed_text) -> dict:
    """Every genre and style tag as a text query against all pieces that carry any tag.

    Returns:
        `dict`: macro ROC-AUC and PR-AUC, and ROC-AUC for each tag with at least five pieces.
    """
    tagged = [place for place, row in enumerate(rows) if tags_of(row)]
    counts = {}
    for place in tagged:
        for tag in tags_of(rows[place]):
            counts[tag] = counts.get(tag, 0) + 1
    tags = sorted(tag for tag, count in counts.items() if count >= FEWEST_POSITIVES)
    labels = np.array([[tag in tags_of(rows[place]) for tag in tags] for place in tagged])
    _, queries = label_embeddings(embed_text, tags)
    scores = embeddings[tagged] @ queries.T
    areas, precisions = macro_roc_auc(scores, labels), macro_average_precision(scores, labels)
    return {
        "macro_roc_auc": areas.mean,
        "macro_pr_auc": precisions.mean,
        "per_tag_roc_auc": dict(zip(tags, (float(area) for area in areas.per_column), strict=True)),
        "pieces": len(tagged),
    }


def zero_shot_emotion(embeddings, rows, embed_text) -> dict:
    """Russell's four quadrants by text prompts, on the pieces that carry one; accuracy."""
    queries = np.stack([ensemble(embed_text, EMOTION_PROMPTS[quadrant]) for quadrant in (1, 2, 3, 4)])
    truth = np.array([row["emotion_quadrant"] for row in rows])
    guess = (embeddings @ queries.T).argmax(1) + 1
    return {
        "accuracy": float((guess == truth).mean()),
        "confusion": [[int(((truth == a) & (guess == b)).sum()) for b in (1, 2, 3, 4)] for a in (1, 2, 3, 4)],
        "pieces": len(rows),
    }


def linear_probe(train, train_labels, test, test_labels, groups, seed: int = 0) -> dict:
    """Logistic regression on frozen embeddings.

    Its strength is chosen by five folds of the training pieces, split by song.

    Args:
        train, test (`np.ndarray` of shape `(pieces, dim)`), train_labels, test_labels: one label a piece.
        groups: the song of each training piece.
    """
    random = np.random.default_rng(seed)
    songs = sorted(set(groups))
    fold_of = dict(zip(songs, random.permutation(len(songs)) % 5, strict=True))
    folds = PredefinedSplit([fold_of[song] for song in groups])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    search = GridSearchCV(classifier, {"logisticregression__C": list(PROBE_STRENGTHS)}, cv=folds)
    search.fit(train, train_labels)
    return {
        "accuracy": float(search.score(test, test_labels)),
        "cross_validated": float(search.best_score_),
        "strength": float(search.best_params_["logisticregression__C"]),
        "train_pieces": len(train),
        "test_pieces": len(test),
    }


def cross_modal(queries, items, pieces: int, seed: int = 0) -> dict:
    """Row `i` of `queries` against row `i` of `items`, among a random choice of `pieces` rows."""
    chosen = np.random.default_rng(seed).permutation(len(queries))[:pieces]
    scores = queries[chosen] @ items[chosen].T
    return retrieval_metrics(scores, range(len(chosen)), reverse=True)
