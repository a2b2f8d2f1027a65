"""Card and confusion matrix of a classifier that `training.train_classifier` made."""

from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from huggingface_hub import ModelCard, ModelCardData

from .hub_card import TAGS

TEMPLATE = Path(__file__).parent / "classifier_card.md.jinja"
PICTURE = "confusion.png"
DPI = 110


@dataclass
class Measured:
    """A classifier's data and its figures on songs that it had not seen.

    Attributes:
        counts (`dict[str, int]`): pieces of each class.
        figures, chance (`dict[str, float]`): by the classifier, and without hearing the music.
        intervals (`dict[str, tuple]`): 95 % of each figure over draws of songs.
        truth, guess (`np.ndarray`): of each piece; numbers of classes `(pieces,)`, or `(pieces, outputs)`.
    """

    label_column: str
    names: list[str]
    pieces: int
    songs: int
    counts: dict[str, int]
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    chance: dict[str, float]
    truth: np.ndarray
    guess: np.ndarray
    problem_type: str


def write_classifier_card(folder: Path, base: str, measured: Measured) -> None:
    """Writes README.md, and for classes or numbers the picture that it shows."""
    own = Path(base) / "README.md"
    card = ModelCard.load(own, ignore_metadata_errors=True) if own.is_file() else None
    picture = draw(folder / PICTURE, measured)
    data = ModelCardData(
        model_name=folder.name.removesuffix(".partial"),
        license=card.data.license if card else None,
        base_model=base if not Path(base).exists() else None,
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=[*TAGS, "classification"],
    )
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    content = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        card_data=data.to_yaml(),
        name=data.model_name,
        base=Path(base).name,
        measured=measured,
        picture=PICTURE if picture else None,
    )
    (folder / "README.md").write_text(content, encoding="utf-8")


def draw(path: Path, measured: Measured) -> bool:
    """Draws the confusion matrix of classes, or guesses against truth of numbers; of several labels, nothing."""
    import matplotlib

    matplotlib.use("Agg")  # files only; no window is opened
    import matplotlib.pyplot as plt
    from sklearn.metrics import ConfusionMatrixDisplay

    if measured.problem_type == "multi_label_classification":
        return False
    size = 4.5 if measured.truth.ndim > 1 else 3.0 + 0.45 * len(measured.names)
    figure, axes = plt.subplots(figsize=(size, size), layout="constrained")
    if measured.truth.ndim > 1:
        axes.scatter(measured.truth, measured.guess, s=14, alpha=0.6)
        axes.axline((measured.truth.mean(),) * 2, slope=1, color="0.5", linestyle="--")
        axes.set(xlabel=f"{measured.label_column}, as labelled", ylabel="as guessed, from other songs")
    else:
        ConfusionMatrixDisplay.from_predictions(
            measured.truth, measured.guess, labels=range(len(measured.names)), display_labels=measured.names,
            xticks_rotation="vertical", colorbar=False, cmap="Blues", ax=axes,
        )  # fmt: skip
        axes.set(xlabel="as guessed, from other songs", ylabel=f"{measured.label_column}, as labelled")
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
    return True


__all__ = ["Measured", "write_classifier_card"]
