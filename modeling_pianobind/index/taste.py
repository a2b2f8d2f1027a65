"""A person's taste, learnt from what was played: searches go by words and taste, and keep to the words."""

import base64
import csv
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..atomic_file import replace_file
from .feedback import Background

FORMAT = 1
PATH_COLUMNS = ("path", "file", "file_name")
HALF_LIFE_DAYS = 180.0  # a play that is so much older than the last one counts half
MAX_PIECES = 256  # the weightiest ones are kept
SHARPNESS = 4.0  # of likeness to a played piece: one close piece says more than several distant ones
MAX_TASTE_WEIGHT, TASTE_STEPS = 2.0, 40  # of a standard deviation of the words
LOSS = 0.05  # of the mean cosine with the words, which the first hits may lose to taste


class Play(NamedTuple):
    """A row of a play history: a path as it is written there, and how much it counts."""

    path: str
    weight: float


def read_history(path: str | os.PathLike) -> list[Play]:
    """Reads a play history: CSV with the columns `path`, `plays` and `last_played`; the last two may be missing.

    A piece counts with the logarithm of its plays, and half for each `HALF_LIFE_DAYS` before the last play of all.

    Args:
        path: of the file; `last_played` is a date such as 2026-03-01, with a time if wished, or Unix seconds.
    Raises:
        ValueError: it is no such table, is empty, or a value cannot be read.
        OSError: it cannot be opened.
    """
    with open(path, encoding="utf-8-sig", newline="") as lines:
        try:
            rows = [
                {(name or "").strip().lower().replace(" ", "_"): value or "" for name, value in row.items() if name}
                for row in csv.DictReader(lines)
            ]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: is no CSV file ({error}); export the history as CSV.") from error
    if not rows:
        raise ValueError(f"{path}: the history is empty; a row needs a path, and may have plays and last_played.")
    column = next((name for name in PATH_COLUMNS if name in rows[0]), None)
    if column is None:
        raise ValueError(f"{path}: has no column `path`; its columns are {', '.join(rows[0]) or 'unnamed'}.")
    plays = [_plays(row.get("plays", ""), path, line) for line, row in enumerate(rows, 2)]
    times = [_time(row.get("last_played", ""), path, line) for line, row in enumerate(rows, 2)]
    last = max((time for time in times if not math.isnan(time)), default=0.0)
    history = [
        Play(row[column].strip(), math.log1p(count) * 0.5 ** (_days(last, time) / HALF_LIFE_DAYS))
        for row, count, time in zip(rows, plays, times, strict=True)
        if count and row[column].strip()
    ]
    if not history:
        raise ValueError(f"{path}: nothing in the history was ever played; give at least one row with plays.")
    return history


def _plays(text: str, path: str | os.PathLike, line: int) -> float:
    try:
        number = float(text) if text.strip() else 1.0
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{path}: line {line} has {text!r} plays; give a number of at least 0.")
    return number


def _time(text: str, path: str | os.PathLike, line: int) -> float:
    """Unix seconds; nan where nothing is said."""
    text = text.strip()
    if not text:
        return math.nan
    try:
        if text.replace(".", "", 1).isdecimal() and len(text) > 8:
            return float(text)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{path}: line {line} was last played {text!r}; write a date as 2026-03-01, or Unix seconds."
        ) from error


def _days(last: float, time: float) -> float:
    """Days before the last play; a half-life where it is not known."""
    return HALF_LIFE_DAYS if math.isnan(time) else (last - time) / 86_400


@dataclass(frozen=True)
class Taste:
    """What a person likes: played pieces, without their names.

    Attributes:
        fingerprint (`str`): of the weights that made the embeddings.
        embeds (`np.ndarray` of shape `(pieces, dim)`): unit rows.
        weights (`np.ndarray` of shape `(pieces,)`): how much each counts; their sum is 1.
    """

    fingerprint: str
    embeds: np.ndarray
    weights: np.ndarray

    @classmethod
    def learn(cls, embeds: np.ndarray, weights: Sequence[float], fingerprint: str = "") -> "Taste":
        """Learns a taste; of many pieces the weightiest are kept.

        Raises:
            ValueError: there is no piece, or none that counts.
        """
        weights = np.asarray(weights, np.float64)
        if not len(weights) or not weights.sum() > 0:
            raise ValueError("the history is empty; give at least one piece that was played.")
        kept = np.argsort(-weights, kind="stable")[:MAX_PIECES]
        return cls(fingerprint, np.asarray(embeds, np.float32)[kept], weights[kept] / weights[kept].sum())

    def scores(self, embeds: np.ndarray, background: Background) -> np.ndarray:
        """How well pieces suit the taste, `(n,)`, in standard deviations of these pieces.

        Someone may like several kinds of music, so likeness to some played pieces counts, not to their mean.

        Args:
            embeds (`np.ndarray` of shape `(n, dim)`): unit rows.
        """
        played, pieces = (background.directions(rows) for rows in (self.embeds, embeds))
        likeness = np.log(np.exp(SHARPNESS * pieces @ played.T) @ self.weights)
        return (likeness - likeness.mean()) / max(likeness.std(), 1e-9)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file in one step.

        Raises:
            OSError: it cannot be written.
        """
        content = {
            "pianobind_taste": FORMAT,
            "checkpoint": self.fingerprint,
            "dim": self.embeds.shape[1],
            "weights": np.round(self.weights, 6).tolist(),
            "embeddings_float16": base64.b64encode(self.embeds.astype("<f2").tobytes()).decode(),
        }
        replace_file(path, json.dumps(content) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike, fingerprint: str = "") -> "Taste":
        """Reads a profile.

        Args:
            fingerprint (`str`, *optional*): of the checkpoint that it must belong to.
        Raises:
            ValueError: it is no profile, is damaged, or belongs to another checkpoint.
            OSError: it cannot be opened.
        """
        content = Path(path).read_bytes()
        try:
            saved = json.loads(content)
            weights = np.array(saved["weights"], np.float64)
            stored = np.frombuffer(base64.b64decode(saved["embeddings_float16"], validate=True), "<f2")
            embeds = stored.astype(np.float32).reshape(len(weights), saved["dim"])
            norms = np.linalg.norm(embeds, axis=1)
            if saved["pianobind_taste"] != FORMAT or not (weights >= 0).all() or not (abs(norms - 1) < 0.01).all():
                raise ValueError("other values were expected")
            taste = cls.learn(embeds / norms[:, None], weights, str(saved["checkpoint"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: is no taste profile; make one with `pianobind profile`.") from error
        if fingerprint and taste.fingerprint != fingerprint:
            raise ValueError(f"{path}: another checkpoint made this profile; make it again with `pianobind profile`.")
        return taste


def blend(values: np.ndarray, cosines: np.ndarray, taste: np.ndarray, top_k: int, loss: float = LOSS) -> np.ndarray:
    """Orders pieces by words and taste, with as much taste as the words allow.

    Args:
        values (`np.ndarray` of shape `(n,)`): how well pieces fit the words, in standard deviations.
        cosines (`np.ndarray` of shape `(n,)`): with the words.
        taste (`np.ndarray` of shape `(n,)`): as `Taste.scores` gives it.
        top_k (`int`): the first ones are kept to the words.
        loss (`float`): how much of their mean cosine the first `top_k` may lose, as a share of it.
    Returns:
        `np.ndarray` of shape `(n,)`: places, best first.
    """
    plain = np.argsort(-values, kind="stable")
    mean = cosines[plain[:top_k]].mean()
    for weight in np.linspace(MAX_TASTE_WEIGHT, 0, TASTE_STEPS, endpoint=False):
        order = np.argsort(-(values + weight * taste), kind="stable")
        if cosines[order[:top_k]].mean() >= mean - loss * abs(mean):
            return order
    return plain


__all__ = ["LOSS", "Play", "Taste", "blend", "read_history"]
