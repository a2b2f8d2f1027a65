"""Writes a checkpoint's card from measured results: `python -m model_cards.render_model_card CHECKPOINT RESULTS`."""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from modeling_pianobind import PianoBindModel, PianoBindProcessor

TEMPLATE = Path(__file__).parent / "model_card.md.jinja"
STARTS = {
    "audio": "random weights",
    "midi": "random weights",
    "text": "all-MiniLM-L6-v2, adapted with LoRA and merged",
}
# name in the card, path in the results, what chance would give
FIGURES = (
    ("genre and style tags from MIDI, zero-shot, macro ROC-AUC", "midi.tagging.macro_roc_auc", "0.500"),
    ("without cues: flat velocity, no pedal, jittered onsets", "midi.tagging_without_cues.macro_roc_auc", "0.500"),
    ("the same tags from rendered audio, unheard instrument", "audio.tagging_audio.macro_roc_auc", "0.500"),
    ("EMOPIA quadrant, zero-shot, accuracy", "midi.emopia_zero_shot_published.accuracy", "0.250"),
    ("EMOPIA quadrant, linear probe, accuracy", "midi.emopia_probe_published.accuracy", "0.250"),
    ("Pianist8 artist, linear probe, accuracy", "midi.pianist8_probe_published.accuracy", "0.125"),
    ("caption to MIDI among 200, R@10", "midi.text_to_piece_200.recall@10", "0.050"),
    ("unheard rendered audio to its MIDI among 200, R@1", "audio.audio_to_midi_200.recall@1", "0.005"),
    ("unheard rendered audio to its MIDI among 500, R@1", "audio.audio_to_midi_500.recall@1", "0.002"),
    ("real recording to its transcription among all valid pieces, R@1", "audio.recordings.recall@1", "0.001"),
)  # fmt: skip


def look_up(results: dict, path: str):
    """`"midi.tagging.macro_roc_auc"` -> the number there; None where the protocol was not run."""
    for key in path.split("."):
        if not isinstance(results, dict) or key not in results:
            return None
        results = results[key]
    return results


class Figure(NamedTuple):
    """A measured number: its name in a card, its place in the results, its value, and what chance would give."""

    name: str
    path: str
    value: float
    chance: str


def figures_of(results: dict) -> list[Figure]:
    """The figures of a card, in its order; what was not measured is left out."""
    figures = [Figure(name, path, look_up(results, path), chance) for name, path, chance in FIGURES]
    return [figure for figure in figures if figure.value is not None]


def model_index(figures: list[Figure], dataset_id: str, split: str) -> list[EvalResult]:
    """What huggingface_hub writes the `model-index` of a card from."""
    return [
        EvalResult("retrieval", "open piano corpus", dataset_id, figure.name, figure.value, dataset_split=split)
        for figure in figures
    ]


def render(checkpoint: Path, results_file: Path) -> ModelCard:
    """The card of a checkpoint; every number in it comes from `results_file` or from the weights themselves."""
    results = json.loads(results_file.read_text())
    model, processor = PianoBindModel.from_pretrained(checkpoint), PianoBindProcessor.from_pretrained(checkpoint)
    measured = figures_of(results)
    data = ModelCardData(
        model_name=checkpoint.name,
        license="cc-by-nc-sa-4.0",
        language="en",
        library_name="transformers",
        pipeline_tag="feature-extraction",
        base_model="sentence-transformers/all-MiniLM-L6-v2",
        tags=["piano", "music", "midi", "audio", "retrieval", "contrastive"],
        eval_results=model_index(measured, "open-piano-corpus", "valid"),
    )
    towers = [
        {"name": name, "parameters": f"{sum(p.numel() for p in tower.parameters()):,}", "start": STARTS[name]}
        for name in ("audio", "midi", "text")
        if (tower := getattr(model, f"{name}_model")) is not None
    ]
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=checkpoint.name,
        towers=towers,
        dim=model.config.projection_dim,
        window_seconds=f"{processor.midi_processor.window_seconds:g}",
        hop_seconds=f"{processor.midi_processor.hop_seconds:g}",
        results_file=results_file.name,
        commit=results["commit"],
        figures=[figure._asdict() | {"value": f"{figure.value:.3f}"} for figure in measured],
        sources=results["sources"],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("results", type=Path)
    arguments = parser.parse_args()
    card = render(arguments.checkpoint, arguments.results)
    (arguments.checkpoint / "README.md").write_text(str(card))


if __name__ == "__main__":
    main()
