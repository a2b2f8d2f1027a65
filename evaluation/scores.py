"""Scores with 95 % intervals: embeddings and labels in, numbers out. Nothing here reads files or runs towers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from modeling_pianobind.index.alignment import Example, alignment
from modeling_pianobind.metric.ranking import macro_average_precision, macro_roc_auc, retrieval_metrics

PROBE_STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
PROBE_FOLDS = 5
TAILS = (0.025, 0.975)
AREAS = {"roc_auc": macro_roc_auc, "pr_auc": macro_average_precision}
COSINE_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: whole songs with replacement, since the pieces of a song are not independent."""

    samples: int = 500
    seed: int = 0

    def draws(self, songs: Sequence) -> Iterator[np.ndarray]:
        """Yields the positions of the pieces of each draw; `songs` holds the song of each piece."""
        members = {}
        for position, song in enumerate(songs):
            members.setdefault(song, []).append(position)
        members = [np.array(positions) for positions in members.values()]
        random = np.random.default_rng(self.seed)
        for _ in range(self.samples):
            yield np.concatenate([members[song] for song in random.integers(len(members), size=len(members))])

    def intervals(self, figures: Callable[[np.ndarray], dict], songs: Sequence) -> dict:
        """Figures of all pieces, and `<name>_interval` = [low, high] of each.

        Args:
            figures: positions of pieces, some of them repeatedly -> numbers by name; NaN where one is not defined.
            songs: the song of each piece.
        """
        scores = figures(np.arange(len(songs)))
        drawn = [figures(positions) for positions in self.draws(songs)]
        for name in list(scores) if drawn else ():
            scores[f"{name}_interval"] = np.nanquantile([draw[name] for draw in drawn], TAILS).tolist()
        return scores


def tag_scores(
    scores: np.ndarray, labels: np.ndarray, tags: list[str], songs: Sequence[str], bootstrap: Bootstrap
) -> dict:
    """Tagging and tag retrieval.

    Args:
        scores, labels (`np.ndarray` of shape `(pieces, tags)`): how well a tag fits a piece, and whether it has it.
        songs: the song of each piece.
    Returns:
        `dict`: macro ROC-AUC and PR-AUC; `retrieval`, in which tags are queries for pieces; `per_tag`.
    """

    def figures(positions):
        areas_by_name = {}
        for name in AREAS:
            areas = tag_areas(scores[positions], labels[positions], name)
            areas_by_name[f"macro_{name}"] = mean_of_defined(areas)
            areas_by_name |= {f"{name} {number}": float(area) for number, area in enumerate(areas)}
        return areas_by_name

    result = bootstrap.intervals(figures, songs)
    per_tag = {
        tag: {"pieces": int(labels[:, number].sum())}
        | {
            name + suffix: result[f"{name} {number}{suffix}"]
            for name in AREAS
            for suffix in ("", "_interval")
            if f"{name} {number}{suffix}" in result
        }
        for number, tag in enumerate(tags)
    }
    relevant = [np.flatnonzero(column) for column in labels.T]
    options = {"bootstrap_samples": bootstrap.samples, "seed": bootstrap.seed}
    return {name: value for name, value in result.items() if name.startswith("macro_")} | {
        "retrieval": retrieval_metrics(scores.T, relevant, **options),
        "per_tag": per_tag,
        "pieces": len(labels),
    }


def tag_areas(scores: np.ndarray, labels: np.ndarray, name: str) -> np.ndarray:
    """The area called `name` of each column; NaN where all pieces are of one class."""
    usable = labels.any(0) & ~labels.all(0)
    areas = np.full(labels.shape[1], np.nan)
    if usable.any():
        areas[usable] = AREAS[name](scores[:, usable], labels[:, usable]).per_column
    return areas


def mean_of_defined(values: np.ndarray) -> float:
    """The mean without NaN; NaN where nothing is left."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else np.nan


def macro_area(scores: np.ndarray, labels: np.ndarray) -> float:
    """Macro ROC-AUC over the columns that have both classes."""
    return mean_of_defined(tag_areas(scores, labels, "roc_auc"))


def accuracy_scores(guess: Sequence, truth: Sequence, songs: Sequence[str], bootstrap: Bootstrap) -> dict:
    """Accuracy, and the confusion of true classes (rows) with guessed ones (columns)."""
    guess, truth = np.asarray(guess), np.asarray(truth)
    right = guess == truth
    classes = sorted({*truth.tolist(), *guess.tolist()})
    return bootstrap.intervals(lambda positions: {"accuracy": float(right[positions].mean())}, songs) | {
        "pieces": len(truth),
        "classes": classes,
        "confusion": [[int(((truth == a) & (guess == b)).sum()) for b in classes] for a in classes],
    }


def linear_probe(
    train: np.ndarray,
    train_labels: Sequence,
    train_songs: Sequence[str],
    test: np.ndarray,
    test_labels: Sequence,
    test_songs: Sequence[str],
    bootstrap: Bootstrap,
) -> dict:
    """Logistic regression on frozen embeddings.

    Its strength is chosen by five folds of the training pieces, split by song.

    Args:
        train, test (`np.ndarray` of shape `(pieces, dim)`), with one label and one song a piece.
    """
    random = np.random.default_rng(bootstrap.seed)
    songs = sorted(set(train_songs))
    fold_of = dict(zip(songs, random.permutation(len(songs)) % PROBE_FOLDS, strict=True))
    folds = PredefinedSplit([fold_of[song] for song in train_songs])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    search = GridSearchCV(classifier, {"logisticregression__C": list(PROBE_STRENGTHS)}, cv=folds)
    search.fit(train, train_labels)
    return accuracy_scores(search.predict(test), test_labels, test_songs, bootstrap) | {
        "cross_validated": float(search.best_score_),
        "strength": float(search.best_params_["logisticregression__C"]),
        "train_pieces": len(train),
    }


def among_best(scores: np.ndarray, count: float) -> np.ndarray:
    """Membership of each column in the `count` best of its row: 0 to 1, with a sum of `count` a row.

    Equal scores have no order, so columns that tie at the border share what is left.
    """
    order = -np.sort(-scores, axis=1)
    border = order[:, [min(int(np.ceil(count)), scores.shape[1]) - 1]]
    above, tied = scores > border, scores == border
    return above + tied * (count - above.sum(1, keepdims=True)) / tied.sum(1, keepdims=True)


def share_of_best(scores: np.ndarray, fitting: np.ndarray, count: int) -> np.ndarray:
    """Share of the `count` best columns of each row that fits, `(rows,)`.

    Args:
        scores, fitting (`np.ndarray` of shape `(rows, columns)`): how good a column is, and how far it fits, 0 to 1.
    """
    count = min(count, scores.shape[1])
    return (among_best(scores, count) * fitting).sum(1) / count


def alignments(examples: list[Example], pieces: list[Example]) -> np.ndarray:
    """`(examples, pieces)`: alignment scores of the windows of examples and pieces."""
    return np.array([[alignment(example, piece) for piece in pieces] for example in tqdm(examples, desc="aligning")])


def paired_retrieval(
    scores: np.ndarray, among: int, bootstrap: Bootstrap, draws: int = 1, owned: Iterable[int] | None = None
) -> dict:
    """Retrieval of each row's column among `among` random ones; and the reverse, if each column has a row.

    Args:
        scores (`np.ndarray` of shape `(rows, columns)`).
        draws (`int`): random choices of columns; figures and the ends of their intervals are means over them.
        owned: the column of each row; by default row `i` seeks column `i`.
    """
    owner = {column: row for row, column in enumerate(range(len(scores)) if owned is None else owned)}
    draw_figures = []
    for draw in range(draws):
        chosen = np.random.default_rng(bootstrap.seed + draw).permutation(scores.shape[1])[:among].tolist()
        relevant = [number for number, column in enumerate(chosen) if column in owner]
        rows = [owner[chosen[number]] for number in relevant]
        options = {"bootstrap_samples": bootstrap.samples, "seed": bootstrap.seed, "reverse": len(rows) == len(chosen)}
        draw_figures.append(retrieval_metrics(scores[np.ix_(rows, chosen)], relevant, **options))
    return {name: np.mean([drawn[name] for drawn in draw_figures], axis=0).tolist() for name in draw_figures[0]}


def stability(originals: np.ndarray, changed: np.ndarray, songs: Sequence[str], bootstrap: Bootstrap) -> dict:
    """Robustness to a change: cosine to the original, and recall of the original."""
    cosines = (originals * changed).sum(1)
    options = {"top_k": (1,), "bootstrap_samples": bootstrap.samples, "seed": bootstrap.seed}
    ranking = retrieval_metrics(changed @ originals.T, range(len(originals)), **options)
    return bootstrap.intervals(lambda positions: {"cosine": float(cosines[positions].mean())}, songs) | {
        "cosine_quantiles": np.quantile(cosines, COSINE_QUANTILES).tolist(),
        **{name: value for name, value in ranking.items() if name.startswith("recall@1")},
    }


def random_pairs(embeddings: np.ndarray) -> dict:
    """The cosine of two pieces at random, for scale."""
    cosines = (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), k=1)]
    return {"cosine": float(cosines.mean()), "cosine_quantiles": np.quantile(cosines, COSINE_QUANTILES).tolist()}
