"""Fits a checkpoint's heads for emotion and difficulty: `python -m training.fit_heads CHECKPOINT CORPUS`.

`emotion.safetensors` (valence and arousal) and `difficulty.safetensors` (grades) belong to one set of weights, as
`calibration.safetensors` does. CORPUS is the packed open piano corpus. With `--instruments RUN.yaml`, the file of a
training run, emotion is learnt from the pieces as its instruments play them too. It takes a few minutes on one CPU
core.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from modeling_pianobind import PianoBindFeatureExtractor, PianoBindModel, PianoBindProcessor, embed_text
from modeling_pianobind.checkpoint_pianobind import model_fingerprint
from modeling_pianobind.labels_pianobind import EMOTION_PROMPTS
from modeling_pianobind.service.piece_heads import DifficultyHead, EmotionHead

from .data.arguments import TrainingArguments
from .data.corpus import PackedCorpus
from .data.head_pieces import (
    HeadPieces,
    RowEmbedder,
    difficulty_pieces,
    emotion_pieces,
    emotion_places,
    graded_pieces,
    means,
)
from .data.mel_rendering import MelInstrument, mel_instruments
from .data.rendering import make_instruments
from .loop.emotion_fit import LISTENERS, fit_emotion
from .loop.linear_heads import LinearRegressor, scaled

COVERED = 0.8  # share of graded pieces that an interval holds
GRADE_RIDGE = 1.0  # ridge, as a number of further pieces at the mean


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


def prompt_directions(model: PianoBindModel, processor: PianoBindProcessor) -> np.ndarray:
    """`(2, dim)`: from prompts of a low valence and arousal to those of a high one."""
    first, second, third, fourth = (
        embed_text(model, processor, list(prompts)).mean(axis=0) for prompts in EMOTION_PROMPTS.values()
    )
    return np.stack([first + fourth - second - third, first + second - third - fourth])


def instruments_of(run: Path, extractor: PianoBindFeatureExtractor) -> list[MelInstrument]:
    """The instruments of a run's YAML file, by the spectrograms of their notes.

    Raises:
        ValueError: the run has none, or does not say where spectrograms are kept.
    """
    arguments = TrainingArguments.from_yaml(run)
    if not arguments.instruments or not arguments.mel_rendering:
        raise ValueError(f"{run}: names no `instruments`, or no `mel_rendering` folder for them; add both.")
    return mel_instruments(
        arguments.instruments, make_instruments(arguments.instruments), extractor, arguments.mel_rendering
    )


def emotion_examples(corpus: PackedCorpus, embed: RowEmbedder) -> tuple[HeadPieces, HeadPieces]:
    """The pieces of `train`, and their windows; where there are instruments, then the same as these play them."""
    places = emotion_places(corpus, "train")
    pieces = emotion_pieces(corpus, places, embed)
    windows = pieces.windows(embed.windows(places))
    if embed.instruments:
        rendered = embed.rendered_windows(places)
        windows += pieces.windows(rendered)
        pieces += replace(pieces, embeds=means(rendered))
    return pieces, windows


def fit(
    checkpoint: Path, corpus: PackedCorpus, output: Path, cache: Path | None, run: Path | None, adversarial: float
) -> None:
    """Fits both heads and writes them; with an adversary, that of emotion alone."""
    model = PianoBindModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    fingerprint, processor = model_fingerprint(model), PianoBindProcessor.from_pretrained(checkpoint)
    instruments = [] if run is None else instruments_of(run, processor.feature_extractor)
    embed = RowEmbedder(corpus, model, processor, fingerprint, cache, instruments)
    pieces, windows = emotion_examples(corpus, embed)
    towards = None if adversarial else prompt_directions(model, processor)
    weight, bias, report = fit_emotion(pieces, windows, towards, adversarial)
    right = (report["chances"] > 0.5) == (pieces.targets == 1)
    listened = (pieces.sources < LISTENERS) & ~np.isnan(pieces.targets).any(axis=1)
    is_midi = np.arange(len(listened)) < len(listened) // (2 if instruments else 1)
    for view, chosen in (("MIDI", listened & is_midi), ("recordings", listened & ~is_midi)):
        if chosen.any():
            quadrant, (valence, arousal) = right[chosen].all(axis=1).mean(), right[chosen].mean(axis=0)
            print(f"{view}: quadrant {quadrant:.3f}, valence {valence:.3f}, arousal {arousal:.3f} are right for "
                  f"{chosen.sum()} pieces that people judged, held out")  # fmt: skip
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
    parser.add_argument("--instruments", type=Path, metavar="RUN.yaml", help="let a run's instruments play the pieces")
    parser.add_argument("--adversarial", type=float, default=0.0, metavar="WEIGHT",
                        help="an experiment: hide the source from the emotion head, by gradient reversal")  # fmt: skip
    given = parser.parse_args(command_line)
    try:
        corpus = PackedCorpus.load(given.corpus)
        output = given.output or given.checkpoint
        fit(given.checkpoint, corpus, output, given.embeddings, given.instruments, given.adversarial)
    except (ValueError, OSError) as error:
        print(f"fit_heads: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
