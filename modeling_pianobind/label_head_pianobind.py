"""The classifier of a `PianoBindForSequenceClassification` on numpy: embeddings that are there already -> labels."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .checkpoint_pianobind import CONFIG, COPY_AGAIN, HEAD, WEIGHTS, read_json, reason_of

if TYPE_CHECKING:
    from .classification_pianobind import PianoBindForSequenceClassification
    from .embedding_pianobind import EmbeddedFile

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


@dataclass(frozen=True)
class LabelHead:
    """What turns the embedding of a piece into labels.

    Attributes:
        labels (`list[str]`): one an output.
        problem_type (`str`): as in a config of transformers.
        weight (`np.ndarray` of shape `(labels, dim)`), bias (`(labels,)`): of the output.
        attention (`np.ndarray` of shape `(dim,)`, *optional*): windows are weighed by their product with it.
    """

    labels: list[str]
    problem_type: str
    weight: np.ndarray
    bias: np.ndarray
    attention: np.ndarray | None = None

    @classmethod
    def of(cls, model: "PianoBindForSequenceClassification") -> "LabelHead":
        """The head of a loaded model."""
        state = {name: value.detach().float().cpu().numpy() for name, value in model.classifier.state_dict().items()}
        config = model.config
        return cls._made(config.id2label, config.problem_type, {f"{HEAD}{name}": state[name] for name in state})

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "LabelHead":
        """Reads the head of a saved model, without its towers.

        Raises:
            ValueError: the folder holds no classifier, or it is damaged; one line that names it.
            OSError: a file cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        folder = Path(folder)
        config = read_json(folder / CONFIG)
        try:
            with safe_open(folder / WEIGHTS, framework="numpy") as file:
                names = [name for name in file.keys() if name.startswith(HEAD)]  # noqa: SIM118  (no dict)
                state = {name: file.get_tensor(name).astype(np.float32) for name in names}
        except SafetensorError as error:
            raise ValueError(f"{folder / WEIGHTS}: is damaged ({reason_of(error)}); {COPY_AGAIN}.") from error
        if f"{HEAD}output.weight" not in state:
            raise ValueError(f"{folder}: holds no classifier; make one with `python -m training.train_classifier`.")
        outputs = len(state[f"{HEAD}output.weight"])
        names = config.get("id2label") or {number: f"LABEL_{number}" for number in range(outputs)}
        if len(names) != outputs:
            raise ValueError(f"{folder / CONFIG}: names {len(names)} labels for {outputs} outputs; {COPY_AGAIN}.")
        return cls._made(names, config.get("problem_type"), state)

    @classmethod
    def _made(cls, id2label: dict, problem_type: str | None, state: dict[str, np.ndarray]) -> "LabelHead":
        labels = [str(id2label[number]) for number in sorted(id2label, key=int)]
        attention = state.get(f"{HEAD}attention.weight")
        return cls(
            labels,
            problem_type or (REGRESSION if len(labels) == 1 else SINGLE),
            state[f"{HEAD}output.weight"],
            state[f"{HEAD}output.bias"],
            None if attention is None else attention[0],
        )

    def pool(self, file: "EmbeddedFile") -> np.ndarray:
        """The embedding of an `EmbeddedFile` that the outputs read, `(dim,)`, unit length."""
        return file.embedding if self.attention is None else self.pool_windows(file.windows)

    def pool_windows(self, windows: np.ndarray) -> np.ndarray:
        """`(windows, dim)` unit rows -> their mean by attention, `(dim,)`, unit length."""
        windows = np.asarray(windows, np.float32)
        scores = windows @ self.attention * windows.shape[1] ** 0.5
        weights = np.exp(scores - scores.max())
        pooled = weights @ windows
        return (pooled / np.linalg.norm(pooled)).astype(np.float32)

    def scores(self, embedding: np.ndarray) -> np.ndarray:
        """`(labels,)`: probabilities that add up to 1; of several labels, one each; of regression, the values."""
        values = self.weight @ (np.asarray(embedding) * len(embedding) ** 0.5) + self.bias
        if self.problem_type == REGRESSION:
            return values
        if self.problem_type == MULTI:
            return 1 / (1 + np.exp(-values))
        chances = np.exp(values - values.max())
        return chances / chances.sum()

    def rank(self, embedding: np.ndarray, top_k: int) -> list[tuple[str, float]]:
        """Labels and their scores, best first; equal ones, and those of regression, keep their order."""
        scores = self.scores(embedding)
        order = range(len(scores)) if self.problem_type == REGRESSION else np.argsort(-scores, kind="stable")
        return [(self.labels[row], float(scores[row])) for row in list(order)[:top_k]]


__all__ = ["MULTI", "REGRESSION", "SINGLE", "LabelHead"]
