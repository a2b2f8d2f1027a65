"""Draws results as PNG: `python -m model_cards.plots RESULTS --output FOLDER`.

A plot is drawn where its protocol was run: `tags.png` (tagging), `map.png` and `similarity.png` (corpus_map),
`robustness.png` (robustness_midi, robustness_audio).
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only; no window is opened

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .figures import look_up

DPI = 90
WIDTH_INCHES = 8.0
VIEWS = (("tagging", "MIDI"), ("tagging_without_cues", "MIDI without cues"), ("tagging_audio", "rendered audio"))
MARKERS = "osD^vP*X"


def plot_tags(protocols: dict) -> Figure | None:
    """ROC-AUC of each tag, best first, a bar for each view, with 95 % intervals where they were drawn."""
    views = [(words, per_tag) for name, words in VIEWS if (per_tag := look_up(protocols, f"{name}.scores.per_tag"))]
    if not views:
        return None
    every = set().union(*(per_tag for _, per_tag in views))
    tags = sorted(every, key=lambda tag: views[0][1].get(tag, {}).get("roc_auc", 0.0))
    figure, axes = plt.subplots(figsize=(WIDTH_INCHES, 1.2 + 0.34 * len(tags)), layout="constrained")
    height = 0.8 / len(views)
    for number, (words, per_tag) in enumerate(views):
        known = [place for place, tag in enumerate(tags) if tag in per_tag]
        values = np.array([per_tag[tags[place]]["roc_auc"] for place in known])
        intervals = [per_tag[tags[place]].get("roc_auc_interval") for place in known]
        errors = None
        if all(intervals):
            errors = np.abs(np.array(intervals).T - values)
        places = np.array(known) + (0.5 * (len(views) - 1) - number) * height
        axes.barh(places, values, height, xerr=errors, label=words, error_kw={"elinewidth": 0.8, "ecolor": "0.35"})
    axes.axvline(0.5, color="0.3", linestyle="--", linewidth=1, label="chance")
    axes.set(yticks=range(len(tags)), yticklabels=tags, xlim=(0, 1), ylim=(-0.6, len(tags) - 0.4))
    axes.set(xlabel="ROC-AUC of the tag as text", title="Zero-shot tags")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def plot_map(protocols: dict) -> Figure | None:
    """The t-SNE map of a corpus, coloured by genre, the most frequent genre first."""
    result = protocols.get("corpus_map")
    if not result:
        return None
    points, genres = result["points"], result["settings"]["genres"]
    x, y, owner = (np.array(points[name]) for name in ("x", "y", "genre"))
    colours = plt.get_cmap("tab10")
    figure, axes = plt.subplots(figsize=(WIDTH_INCHES, 6.2), layout="constrained")
    for number, genre in enumerate(genres):
        of_genre = owner == number
        marker = MARKERS[number % len(MARKERS)]
        axes.scatter(x[of_genre], y[of_genre], s=18, marker=marker, color=colours(number % 10), alpha=0.85,
                     linewidths=0, label=f"{genre} ({of_genre.sum()})")  # fmt: skip
    axes.set(xticks=[], yticks=[], title=f"{len(x)} pieces by genre (t-SNE of MIDI embeddings)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def plot_similarity(protocols: dict) -> Figure | None:
    """Mean cosine between the pieces of each two genres."""
    result = protocols.get("corpus_map")
    if not result:
        return None
    matrix, genres = np.array(result["scores"]["similarity"]), result["settings"]["genres"]
    figure, axes = plt.subplots(figsize=(WIDTH_INCHES, WIDTH_INCHES * 0.85), layout="constrained")
    image = axes.imshow(matrix, cmap="viridis")
    axes.set(title="Mean cosine between genres", yticks=range(len(genres)), yticklabels=genres)
    axes.set_xticks(range(len(genres)), genres, rotation=60, ha="right")
    middle = (matrix.max() + matrix.min()) / 2
    for (row, column), value in np.ndenumerate(matrix):
        colour = "black" if value > middle else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def plot_robustness(protocols: dict) -> Figure | None:
    """Cosine of a piece with itself after a change, against random pairs: 5 to 95 %, quartiles and median."""
    views = [(words, result) for name, words in (("robustness_midi", "MIDI"), ("robustness_audio", "rendered audio"))
             if (result := protocols.get(name))]  # fmt: skip
    if not views:
        return None
    sizes = [len(result["scores"]) + 1 for _, result in views]
    figure, panels = plt.subplots(
        len(views), 1, figsize=(WIDTH_INCHES, 1.2 * len(views) + 0.36 * sum(sizes)), layout="constrained",
        squeeze=False, sharex=True, height_ratios=sizes,
    )  # fmt: skip
    for axes, (words, result) in zip(panels[:, 0], views, strict=True):
        lines = [*result["scores"].items(), ("random pairs", result["baselines"]["random pairs"])]
        for place, (name, scores) in enumerate(reversed(lines)):
            low, first, median, third, high = scores["cosine_quantiles"]
            colour = "0.45" if name == "random pairs" else "C0"
            axes.plot([low, high], [place, place], color=colour, linewidth=1.2)
            axes.plot([first, third], [place, place], color=colour, linewidth=6, alpha=0.55, solid_capstyle="butt")
            axes.plot(median, place, "o", color=colour, markersize=5)
            if "recall@1" in scores:
                axes.annotate(f"R@1 {scores['recall@1']:.2f}", (1.02, place), xycoords=("axes fraction", "data"),
                              va="center", fontsize=8)  # fmt: skip
        axes.set(yticks=range(len(lines)), yticklabels=[name for name, _ in reversed(lines)], xlim=(None, 1.01))
        axes.set_title(f"{words}: {result['settings']['pieces']} pieces, each with itself, changed", fontsize=10)
        axes.grid(axis="x", color="0.9")
    panels[-1, 0].set_xlabel("cosine")
    return figure


PLOTS = {"tags": plot_tags, "map": plot_map, "similarity": plot_similarity, "robustness": plot_robustness}


def draw(results: dict, folder: Path) -> list[Path]:
    """Writes the plots that the results have figures for; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, plot in PLOTS.items():
        figure = plot(results["protocols"])
        if figure is not None:
            written.append(folder / f"{name}.png")
            figure.savefig(written[-1], dpi=DPI, metadata={"Software": None})
            plt.close(figure)
    return written


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m model_cards.plots", description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="JSON of evaluation.evaluate_checkpoint")
    parser.add_argument("--output", type=Path, required=True, help="folder for the PNG files")
    given = parser.parse_args(arguments)
    written = draw(json.loads(given.results.read_text(encoding="utf-8")), given.output)
    for path in written:
        print(path)
    if not written:
        print(f"error: {given.results}: none of its protocols is drawn; run tagging or corpus_map.", file=sys.stderr)
    return 0 if written else 2


if __name__ == "__main__":
    sys.exit(main())
