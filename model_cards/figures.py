"""The figures of cards and README, and their paths in a results file."""

from typing import Any, NamedTuple

from huggingface_hub import EvalResult

# name in the card, protocol, place among its scores
FIGURES = (
    ("genre and style tags from MIDI, zero-shot, macro ROC-AUC", "tagging", "macro_roc_auc"),
    ("without cues: flat velocity, no pedal, jittered onsets", "tagging_without_cues", "macro_roc_auc"),
    ("the same tags from rendered audio, unheard instrument", "tagging_audio", "macro_roc_auc"),
    ("tags from rendered audio, pieces also transcribed", "tagging_audio", "transcribed.plain.macro_roc_auc"),
    ("tags of the same pieces by `--transcribe`", "tagging_audio", "transcribed.transcribed.macro_roc_auc"),
    ("dances and forms by title, zero-shot, macro ROC-AUC", "dance_and_form", "macro_roc_auc"),
    ("free queries: share of the first five that fit", "free_queries", "fit@5"),
    ("held-out queries of the lexicon: right tenth of the pieces among the first ten", "lexicon_held_out", "right@10"),
    ("EMOPIA quadrant, zero-shot, accuracy", "emotion", "emopia_published.accuracy"),
    ("EMOPIA quadrant, linear probe, accuracy", "probes", "emopia_published.accuracy"),
    ("Pianist8 artist, linear probe, accuracy", "probes", "pianist8_published.accuracy"),
    ("genre, linear probe, accuracy", "probes", "genre.accuracy"),
    ("caption to MIDI among 200, R@10", "text_to_piece", "recall@10"),
    ("the paper's protocol: caption to audio and MIDI among 199, R@10", "paper", "fused.recall@10"),
    ("unheard rendered audio to its MIDI among 200, R@1", "audio_midi", "among_200.recall@1"),
    ("rendered audio to its MIDI among 200 by `--like`, R@1", "audio_midi", "among_200_by_windows.recall@1"),
    ("unheard rendered audio to its MIDI among 500, R@1", "audio_midi", "among_500.recall@1"),
    ("rendered audio to its MIDI among 500 by `--like`, R@1", "audio_midi", "among_500_by_windows.recall@1"),
    ("rendered audio to its MIDI among 500 by `--transcribe`, R@1", "audio_midi", "among_500_transcribed.recall@1"),
    ("rendered audio to its MIDI among 500 by both, R@1", "audio_midi", "among_500_by_windows_transcribed.recall@1"),
    ("real recording to its transcription among all valid pieces, R@1", "recordings", "plain.recall@1"),
    ("real recording to its transcription by `--like`, R@1", "recordings", "plain_by_windows.recall@1"),
    ("real recording to its transcription by `--transcribe`, R@1", "recordings", "transcribed.recall@1"),
    ("real recording to its transcription by both, R@1", "recordings", "transcribed_by_windows.recall@1"),
)


# the figures that a user decides by, for the README
DECIDING = (
    "tagging.macro_roc_auc",
    "tagging_audio.macro_roc_auc",
    "text_to_piece.recall@10",
    "audio_midi.among_500_by_windows.recall@1",
    "free_queries.fit@5",
    "recordings.plain_by_windows.recall@1",
)


class Figure(NamedTuple):
    """A measured number: its name in a card, its path in the results, its value, and its context.

    `interval` is the 95 % interval, `chance` the chance level, `baseline` the best baseline and its name; each is
    empty where it was not measured.
    """

    name: str
    path: str
    value: float
    chance: str
    interval: str
    baseline: str


def look_up(results: dict, path: str) -> Any:
    """`"tagging.scores.macro_roc_auc"` -> the value at this path, or None."""
    for key in path.split("."):
        if not isinstance(results, dict) or key not in results:
            return None
        results = results[key]
    return results


def figures_of(results: dict) -> list[Figure]:
    """The figures of a card, in its order; what was not measured is left out."""
    figures = []
    for name, protocol, place in FIGURES:
        result = results["protocols"].get(protocol, {})
        value = look_up(result.get("scores", {}), place)
        if value is None:
            continue
        interval = look_up(result["scores"], f"{place}_interval")
        beside = {baseline: look_up(scores, place) for baseline, scores in result["baselines"].items()}
        chance = beside.pop("chance", None)
        best = max(((figure, baseline) for baseline, figure in beside.items() if figure is not None), default=None)
        figures.append(
            Figure(
                name,
                f"{protocol}.{place}",
                value,
                "" if chance is None else f"{chance:.3f}",
                "{:.3f} to {:.3f}".format(*interval) if interval else "",
                "{:.3f} ({})".format(*best) if best else "",
            )
        )
    return figures


def deciding_figures(figures: list[Figure]) -> list[Figure]:
    """The figures of the README; the card has all."""
    return [figure for figure in figures if figure.path in DECIDING]


def model_index(figures: list[Figure], dataset_id: str, split: str) -> list[EvalResult]:
    """What huggingface_hub writes the `model-index` of a card from."""
    return [
        EvalResult(
            task_type="retrieval",
            dataset_name="open piano corpus",
            dataset_type=dataset_id,
            dataset_split=split,
            metric_type=figure.path.rsplit(".", 1)[-1],
            metric_name=figure.name,
            metric_value=figure.value,
        )
        for figure in figures
    ]


def figure_table(figures: list[Figure]) -> str:
    """Markdown table of the figures: with 95 % intervals, chance and the best baseline, where any figure has them."""
    columns = {
        "protocol": [figure.name for figure in figures],
        "figure": [f"{figure.value:.3f}" for figure in figures],
        "95 % interval": [figure.interval for figure in figures],
        "chance": [figure.chance for figure in figures],
        "best baseline": [figure.baseline for figure in figures],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    rows = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
