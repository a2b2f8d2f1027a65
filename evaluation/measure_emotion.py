"""Measures a checkpoint's heads: emotion by MIDI, by rendered audio and without cues; and difficulty.

    python -m evaluation.measure_emotion CHECKPOINT CORPUS --soundfont UNHEARD.sf3 --output results.json

CORPUS is the packed open piano corpus. `--compare NAME=FOLDER` measures another emotion head as well, such as one of
`training.fit_heads --adversarial`. Chance, hand-made features and zero-shot prompts are given for comparison.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from modeling_pianobind import PianoBindModel, PianoBindProcessor, embed_audio, embed_text
from modeling_pianobind.checkpoint_pianobind import model_fingerprint
from modeling_pianobind.embedding_pianobind import unit_rows
from modeling_pianobind.labels_pianobind import EMOTION_PROMPTS
from modeling_pianobind.notes_pianobind import PianoNotes
from modeling_pianobind.service.piece_heads import DifficultyHead, EmotionHead
from training.data.arguments import InstrumentArguments
from training.data.corpus import PackedCorpus
from training.data.cutting import excerpt
from training.data.emotion_labels import SOURCES, emotion_of
from training.data.head_pieces import SECONDS, RowEmbedder, embed_middles, emotion_places, graded_pieces
from training.data.rendering import make_instruments

from .baselines import feature_matrix
from .changes import in_a_room, without_cues
from .corpora import load_corpus
from .measurement import add_subject_arguments, code_commit, instrument_of, save_results, subject
from .scores import Bootstrap

LISTENED = SOURCES[:2]
BINS = np.linspace(0, 1, 6)
FEATURE_STRENGTH = 0.1
AFFECTS = ("valence", "arousal")


def figures(chances: np.ndarray, truth: np.ndarray, songs: Sequence[str], bootstrap: Bootstrap) -> dict:
    """Shares of pieces whose quadrant, valence and arousal are right, with intervals over songs.

    Args:
        chances, truth (`np.ndarray` of shape `(pieces, 2)`): chance of a high valence and arousal; 1 high, 0 low.
    """
    right = (chances > 0.5) == (truth == 1)

    def shares(positions):
        quadrant = float(right[positions].all(axis=1).mean())
        return {"quadrant": quadrant} | {
            name: float(share) for name, share in zip(AFFECTS, right[positions].mean(axis=0), strict=True)
        }

    return bootstrap.intervals(shares, songs) | {"pieces": len(truth)}


def reliability(chances: np.ndarray, truth: np.ndarray) -> dict:
    """Stated chances against the share that holds, in five bins, for both affects; and their mean difference."""
    by_affect = {}
    for name, stated, holds in zip(AFFECTS, chances.T, truth.T, strict=True):
        place = np.clip(np.digitize(stated, BINS) - 1, 0, len(BINS) - 2)
        bins = [
            {"stated": float(stated[place == number].mean()), "holds": float(holds[place == number].mean()),
             "pieces": int((place == number).sum())}
            for number in range(len(BINS) - 1) if (place == number).any()
        ]  # fmt: skip
        error = sum(abs(row["stated"] - row["holds"]) * row["pieces"] for row in bins) / len(holds)
        by_affect[name] = {"bins": bins, "calibration_error": float(error)}
    return by_affect


def zero_shot(embeds: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Quadrants by prompts, as chances of 0 and 1 `(pieces, 2)`."""
    guess = (embeds @ queries.T).argmax(1) + 1
    return np.stack([np.isin(guess, (1, 4)), np.isin(guess, (1, 2))], axis=1).astype(float)


def hand_made(features: np.ndarray, truth: np.ndarray, notes: list[PianoNotes]) -> np.ndarray:
    """Chances `(pieces, 2)` by logistic regressions on features of the notes, taught by the same listeners."""
    measured, chances = feature_matrix(notes), []
    for column in truth.T:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=FEATURE_STRENGTH, max_iter=2000))
        chances.append(model.fit(features, column).predict_proba(measured)[:, 1])
    return np.stack(chances, axis=1)


def embed_renderings(
    model: PianoBindModel,
    processor: PianoBindProcessor,
    instrument: InstrumentArguments,
    notes: list[PianoNotes],
    places: list[int],
) -> np.ndarray:
    """`(pieces, dim)` unit rows of pieces as an instrument plays them in a room."""
    rate, embeds = processor.feature_extractor.sampling_rate, []
    (player,) = make_instruments([instrument])
    for piece_notes, place in zip(tqdm(notes, desc="rendering"), places, strict=True):
        audio = in_a_room(player.render(piece_notes, rate), rate, seed=place)
        embeds.append(embed_audio(model, processor, [audio], sampling_rate=rate, dtype="auto"))
    return np.concatenate(embeds)


def listened(corpus: PackedCorpus, split: str) -> list[int]:
    """Rows whose quadrant listeners gave."""
    return [place for place in emotion_places(corpus, split) if corpus.rows[place]["source"] in LISTENED]


def measure(
    given: argparse.Namespace, corpus: PackedCorpus, embed: RowEmbedder, heads: dict[str, EmotionHead]
) -> dict:
    """All figures of emotion."""
    bootstrap, model, processor = Bootstrap(), embed.model, embed.processor
    places = listened(corpus, given.split)
    rows = [corpus.rows[place] for place in places]
    truth = np.array([emotion_of(row) for row in rows])
    songs = np.array([row.get("song") or row["id"] for row in rows])
    sources = np.array([row["source"] for row in rows])
    published = np.array([row.get("official_split") == given.split for row in rows])
    sets = {f"{SOURCES[0]}_published": published} | {source: sources == source for source in LISTENED}
    notes = [excerpt(corpus.notes(place), SECONDS) for place in places]
    twins = [without_cues(piece_notes, place) for piece_notes, place in zip(notes, places, strict=True)]
    every = np.arange(len(places))
    views = {"midi": (every, embed(places)), "without_cues": (every, embed_middles(model, processor, twins))}
    if given.soundfont:
        rendered = np.sort(np.random.default_rng(bootstrap.seed).permutation(every)[: given.audio_pieces])
        views["midi_of_audio"] = rendered, views["midi"][1][rendered]  # for comparison on the same pieces
        chosen = [notes[row] for row in rendered], [places[row] for row in rendered]
        views["audio"] = rendered, embed_renderings(model, processor, instrument_of(given.soundfont), *chosen)
    queries = unit_rows(
        np.stack([embed_text(model, processor, list(prompts)).mean(0) for prompts in EMOTION_PROMPTS.values()])
    )
    train = listened(corpus, "train")
    taught = np.array([emotion_of(corpus.rows[place]) for place in train])
    features = feature_matrix([excerpt(corpus.notes(place), SECONDS) for place in train])
    measured = {"midi": notes, "without_cues": twins}

    def over_sets(chances, rows=every):
        by_set = {}
        for name, members in sets.items():
            if (chosen := members[rows]).any():
                by_set[name] = figures(chances[chosen], truth[rows][chosen], songs[rows][chosen], bootstrap)
        return by_set

    scores, baselines = {}, {"always the same": over_sets(np.tile(taught.mean(0), (len(truth), 1)))}
    for view, (rows, embeds) in views.items():
        scores[view] = {name: over_sets(head.chances(embeds), rows) for name, head in heads.items()}
        baselines[view] = {"zero-shot prompts": over_sets(zero_shot(embeds, queries), rows)}
        if view in measured:
            baselines[view]["hand-made features"] = over_sets(hand_made(features, taught, measured[view]))
    own = next(iter(heads.values()))
    return {
        "scores": scores,
        "baselines": {"chance": {"quadrant": 0.25, "valence": 0.5, "arousal": 0.5}} | baselines,
        "reliability": {
            view: reliability(own.chances(embeds), truth[rows])
            for view, (rows, embeds) in views.items()
            if view != "midi_of_audio"
        },
    }


def difficulty(corpus: PackedCorpus, embed: RowEmbedder, head: DifficultyHead) -> dict:
    """Figures of the graded pieces, which the head was also fitted to: their grades, and their order."""
    pieces = graded_pieces(corpus, embed)
    grades = head.grades(pieces.embeds)
    notes = [excerpt(corpus.notes(place), SECONDS) for place in pieces.places]
    density = np.array([len(piece_notes) / max(piece_notes.seconds, 1.0) for piece_notes in notes])
    return {
        "protocol": "All graded pieces. The direction was learnt from easy versions and virtuosic works of `train`, "
        "the line to grades from these pieces, each left out in turn; the margin is the 80 % quantile of the errors.",
        "pieces": len(grades),
        "rank_correlation": rank_correlation(grades[:, 0], pieces.targets),
        "mean_absolute_error": head.error.item(),
        "margin": head.margin.item(),
        "baselines": {
            "rank_correlation of notes a second": rank_correlation(density, pieces.targets),
            "mean absolute error of the mean grade": float(np.abs(pieces.targets - pieces.targets.mean()).mean()),
        },
    }


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def draw_reliability(by_view: dict, path: Path) -> None:
    """Writes the reliability of both affects as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(by_view), 4), layout="constrained")
    for axes, (view, affects) in zip(np.atleast_1d(figure.subplots(1, len(by_view))), by_view.items(), strict=True):
        axes.axline((0, 0), slope=1, color="0.6", linestyle="--", linewidth=1)
        for name, values in affects.items():
            stated, holds = ([row[key] for row in values["bins"]] for key in ("stated", "holds"))
            axes.plot(stated, holds, marker="o", label=f"{name}, off by {values['calibration_error']:.2f}")
        axes.set(
            xlim=(0, 1), ylim=(0, 1), xlabel="stated chance that it is high", ylabel="share of pieces", title=view
        )
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.measure_emotion", description=__doc__.split("\n")[0])
    add_subject_arguments(parser, checkpoint="folder of a checkpoint with its heads")
    parser.add_argument("--soundfont", metavar="FILE[:PROGRAM]", help="instrument that training did not use")
    parser.add_argument("--audio-pieces", type=int, metavar="N", help="how many are rendered (default: all)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw how reliable the chances are")
    parser.add_argument("--embeddings", type=Path, metavar="FILE", help="what `training.fit_heads` kept")
    parser.add_argument("--compare", action="append", default=[], metavar="NAME=FOLDER", help="another emotion head")
    given = parser.parse_args(arguments)
    try:
        model = PianoBindModel.from_pretrained(given.checkpoint, dtype=torch.float32).eval()
        processor = PianoBindProcessor.from_pretrained(given.checkpoint)
        fingerprint = model_fingerprint(model)
        heads = {"head": EmotionHead.of_checkpoint(given.checkpoint, fingerprint)}
        for name, _, folder in (option.partition("=") for option in given.compare):
            heads[name] = EmotionHead.of_checkpoint(folder, fingerprint)
        graded = DifficultyHead.of_checkpoint(given.checkpoint, fingerprint)
        corpus = load_corpus(given.corpus)
        embed = RowEmbedder(corpus, model, processor, fingerprint, given.embeddings)
        results = subject(given.checkpoint, given.corpus, corpus, given.split) | {"code_commit": code_commit()}
        results["emotion"] = measure(given, corpus, embed, heads)
        results["difficulty"] = difficulty(corpus, embed, graded)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    save_results(given.output, results)
    if given.plot:
        draw_reliability(results["emotion"]["reliability"], given.plot)
    for view, of_heads in results["emotion"]["scores"].items():
        for name, of_sets in of_heads.items():
            for source, shares in of_sets.items():
                values = ", ".join(f"{key} {shares[key]:.3f}" for key in ("quadrant", *AFFECTS))
                print(f"{view}, {name}, {source} ({shares['pieces']} pieces): {values}")
    print(f"grade: {results['difficulty']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
