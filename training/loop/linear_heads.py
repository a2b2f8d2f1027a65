"""Classifiers on frozen embeddings by scikit-learn: fitted in seconds, measured on songs that they have not seen."""

import warnings
from collections.abc import Callable
from typing import Self

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
)
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
PENALTIES = (10.0, 100.0, 1000.0, 10000.0)
FOLDS = 5
INNER_FOLDS = 3
SAMPLES = 500  # of songs, for an interval
TAILS = (0.025, 0.975)


def scaled(embeds: np.ndarray) -> np.ndarray:
    """Unit rows `(pieces, dim)`, with numbers of variance 1, as `LabelHead` multiplies them."""
    return np.asarray(embeds, np.float64) * embeds.shape[1] ** 0.5


class LinearClassifier:
    """One of several classes; rare ones count as much as common ones."""

    def fit(self, features: np.ndarray, classes: np.ndarray, songs: list[str] | None) -> Self:
        """Fits to `features (pieces, dim)` and `classes (pieces,)`; the strength is chosen by folds of songs."""
        estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
        grid = {"logisticregression__C": STRENGTHS}
        scoring = "balanced_accuracy"
        self.estimator = _fit_chosen(estimator, grid, scoring, StratifiedGroupKFold, features, classes, songs)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """`(pieces,)` classes."""
        return self.estimator.predict(features)

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight `(classes, dim)` and bias `(classes,)` of logits."""
        weight, bias = _folded(self.estimator)
        if len(weight) > 1:
            return weight, bias
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2


class LinearTagger:
    """Any of several labels: one classifier each."""

    def fit(self, features: np.ndarray, labels: np.ndarray, songs: list[str]) -> Self:
        """Fits to `labels (pieces, labels)` of 0 and 1."""
        self.columns = []
        for column in labels.T:
            one_sided = len(set(column)) < 2  # in a fold without a rare label
            made = DummyClassifier() if one_sided else LinearClassifier()
            self.columns.append(made.fit(features, column, None if one_sided else songs))
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """`(pieces, labels)` probabilities."""
        probabilities = []
        for column in self.columns:
            estimator = getattr(column, "estimator", column)
            chances = dict(zip(estimator.classes_, estimator.predict_proba(features).T, strict=True))
            probabilities.append(chances.get(1.0, np.zeros(len(features))))
        return np.stack(probabilities, axis=1)

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight `(labels, dim)` and bias `(labels,)` of logits."""
        folded = [_folded(column.estimator) for column in self.columns]
        return tuple(map(np.concatenate, zip(*folded, strict=True)))


class LinearRegressor:
    """Numbers."""

    def fit(self, features: np.ndarray, values: np.ndarray, songs: list[str]) -> Self:
        """Fits to `values (pieces, outputs)`; the strength is chosen by folds of songs."""
        estimator = make_pipeline(StandardScaler(), Ridge())
        grid = {"ridge__alpha": PENALTIES}
        scoring = "neg_mean_absolute_error"
        self.estimator = _fit_chosen(estimator, grid, scoring, GroupKFold, features, values, songs)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """`(pieces, outputs)`."""
        return self.estimator.predict(features).reshape(len(features), -1)

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight `(outputs, dim)` and bias `(outputs,)`."""
        return _folded(self.estimator)


def held_out(make: Callable, features: np.ndarray, targets: np.ndarray, songs: list[str]) -> np.ndarray:
    """Predictions of each piece by a model that saw none of its song, `(pieces,)` or `(pieces, outputs)`."""
    folds_class = StratifiedGroupKFold if targets.ndim == 1 else GroupKFold
    folds = folds_class(min(FOLDS, len(set(songs))), shuffle=True, random_state=0)
    predictions = np.zeros(targets.shape, targets.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class of fewer songs than folds
        parts = list(folds.split(features, targets if targets.ndim == 1 else None, groups=songs))
    for train, test in parts:
        model = make().fit(features[train], targets[train], [songs[place] for place in train])
        predictions[test] = model.predict(features[test])
    return predictions


def class_figures(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    """Accuracy, its mean over classes, and macro F1."""
    return {
        "accuracy": accuracy_score(truth, guess),
        "balanced accuracy": balanced_accuracy_score(truth, guess),
        "macro F1": f1_score(truth, guess, average="macro", zero_division=0),
    }


def tag_figures(truth: np.ndarray, chances: np.ndarray) -> dict[str, float]:
    """Macro ROC-AUC and average precision over the labels."""
    return {
        "macro ROC-AUC": roc_auc_score(truth, chances, average="macro"),
        "macro average precision": average_precision_score(truth, chances, average="macro"),
    }


def number_figures(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    """Mean absolute error, and the share of variance that is explained."""
    return {"mean absolute error": mean_absolute_error(truth, guess), "R2": r2_score(truth, guess)}


def interval(
    figures: Callable, truth: np.ndarray, guess: np.ndarray, songs: list[str]
) -> dict[str, tuple[float, float]]:
    """95 % of each figure when songs are drawn with replacement."""
    members, random, drawn = {}, np.random.default_rng(0), []
    for place, song in enumerate(songs):
        members.setdefault(song, []).append(place)
    members = [np.array(places) for places in members.values()]
    for _ in range(SAMPLES):
        places = np.concatenate([members[song] for song in random.integers(len(members), size=len(members))])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a draw without some class
            drawn.append(figures(truth[places], guess[places]))
    return {name: tuple(np.nanquantile([draw[name] for draw in drawn], TAILS).tolist()) for name in drawn[0]}


def _fit_chosen(
    estimator: Pipeline,
    grid: dict,
    scoring: str,
    folds_class: type,
    features: np.ndarray,
    targets: np.ndarray,
    songs: list[str],
) -> Pipeline:
    """Fits an estimator whose strength is chosen by folds of songs; without folds, the middle of the grid."""
    folds = min(INNER_FOLDS, len(set(songs)))
    if folds < INNER_FOLDS:
        ((name, values),) = grid.items()
        return estimator.set_params(**{name: values[len(values) // 2]}).fit(features, targets)
    search = GridSearchCV(estimator, {name: list(values) for name, values in grid.items()}, cv=folds_class(folds),
                          scoring=scoring)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fold without some class
        return search.fit(features, targets, groups=songs).best_estimator_


def _folded(estimator: Pipeline) -> tuple[np.ndarray, np.ndarray]:
    """Weight `(outputs, dim)` and bias `(outputs,)` of a linear model behind a `StandardScaler`, as of one layer."""
    scaler, linear = estimator[0], estimator[-1]
    weight = np.atleast_2d(linear.coef_) / scaler.scale_
    return weight, np.ravel(linear.intercept_) - weight @ scaler.mean_


__all__ = [
    "LinearClassifier",
    "LinearRegressor",
    "LinearTagger",
    "class_figures",
    "held_out",
    "interval",
    "number_figures",
    "scaled",
    "tag_figures",
]
