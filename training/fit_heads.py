"""Fits the small heads beside a checkpoint anew: `python -m training.fit_heads CHECKPOINT CORPUS`.

`emotion.safetensors` (valence and arousal) and `difficulty.safetensors` (grades) belong to one set of weights, as
`calibration.safetensors` does. CORPUS is the packed open piano corpus. It takes a few minutes on one CPU core.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from modeling_pianobind import PianoBindModel, PianoBindProcessor
from modeling_pianobind.checkpoint_pianobind import model_fingerprint
from modeling_pianobind.service.piece_heads import DifficultyHead, EmotionHead

from .data.corpus import PackedCorpus
from .data.head_pieces import (
    HeadPieces,
    RowEmbedder,
    difficulty_pieces,
    emotion_pieces,
    emotion_places,
    graded_pieces,
)
from .loop.emotion_fit import LISTENERS, fit_emotion
from .loop.linear_heads import LinearRegressor, scaled

COVERED = 0.8  # share of graded pieces that an interval holds
GRADE_RIDGE = 1.0  # pieces at the mean that count beside the graded ones


def fit_difficulty(levels: HeadPieces, graded: HeadPieces) -> tuple[DifficultyHead, float]:
    """A direction from easy to hard, learnt from levels, and its line to grades, drawn by the graded pieces.

    Returns:
        The head, and the rank correlation of directions and grades.
    """
    weight, bias = LinearRegressor().fit(scaled(levels.embeds), levels.targets[:, None], levels.songs).weights()
    weight, bias = weight[0] * levels.embeds.shape[1] ** 0.5, bias[0]
    level = (graded.embeds @ weight + bias)[:, None]
    guess = np.zeros(len(level))
    for place in range(len(level)):
        others = np.arange(len(level)) != place
        guess[place] = _line(level[others], graded.targets[others]).predict(level[[place]])[0]
    line = _line(level, graded.targets)
    errors = np.abs(guess - graded.targets)
    margin = np.quantile(errors, COVERED, method="higher")
    head = DifficultyHead(weight * line.coef_[0], bias * line.coef_[0] + line.intercept_, margin, errors.mean())
    return head, float(spearmanr(level[:, 0], graded.targets).statistic)


def _line(level: np.ndarray, grades: np.ndarray) -> Ridge:
    return Ridge(GRADE_RIDGE * level.var()).fit(level, grades)


def fit(checkpoint: Path, corpus: PackedCorpus, output: Path, cache: Path | None, adversarial: float) -> None:
    """Fits both heads and writes them; with an adversary, that of emotion alone."""
    model = PianoBindModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    fingerprint = model_fingerprint(model)
    embed = RowEmbedder(corpus, model, PianoBindProcessor.from_pretrained(checkpoint), fingerprint, cache)
    pieces = emotion_pieces(corpus, emotion_places(corpus, "train"), embed)
    weight, bias, report = fit_emotion(pieces, adversarial)
    right = (report["chances"] > 0.5) == (pieces.targets == 1)
    for place, name in enumerate(("valence", "arousal")):
        known = ~np.isnan(pieces.targets[:, place]) & (pieces.sources < LISTENERS)
        print(
            f"{name}: right for {right[known, place].mean():.3f} of {known.sum()} pieces that people heard, held out"
        )
    EmotionHead(weight, bias).save(output / EmotionHead.file, fingerprint)
    print(output / EmotionHead.file)
    if adversarial:
        return
    graded = graded_pieces(corpus, embed)
    head, order = fit_difficulty(difficulty_pieces(corpus, embed), graded)
    count = len(graded.places)
    print(f"grade: off by {float(head.error):.2f} on {count} pieces, each left out; rank correlation {order:.2f}")
    head.save(output / DifficultyHead.file, fingerprint)
    print(output / DifficultyHead.file)


def main(command_line: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.fit_heads", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="folder of a checkpoint")
    parser.add_argument("corpus", type=Path, help="the packed corpus (python -m training.data.corpus)")
    parser.add_argument("--output", type=Path, help="where to write (default: the checkpoint's folder)")
    parser.add_argument("--embeddings", type=Path, metavar="FILE", help="keep the pieces' embeddings for a next time")
    parser.add_argument("--adversarial", type=float, default=0.0, metavar="WEIGHT",
                        help="an experiment: hide the source from the emotion head, by gradient reversal")  # fmt: skip
    given = parser.parse_args(command_line)
    try:
        corpus = PackedCorpus.load(given.corpus)
        fit(given.checkpoint, corpus, given.output or given.checkpoint, given.embeddings, given.adversarial)
    except (ValueError, OSError) as error:
        print(f"fit_heads: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
