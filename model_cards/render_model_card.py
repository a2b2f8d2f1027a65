"""Renders a checkpoint's card from measured results.

python -m model_cards.render_model_card CHECKPOINT RESULTS [--plots FOLDER] [--readme README.md]
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from modeling_pianobind import PianoBindModel, PianoBindProcessor

from .figures import deciding_figures, figure_table, figures_of, look_up, model_index
from .hub_card import TAGS

TEMPLATE = Path(__file__).parent / "model_card.md.jinja"
CORPUS = "open-piano-corpus"
STARTS = {
    "audio": "random weights",
    "midi": "random weights",
    "text": "all-MiniLM-L6-v2, adapted with LoRA and merged",
}
CAPTIONS = {
    "tags": "Tags as text, on whole pieces and without cues",
    "map": "The corpus by genre (t-SNE)",
    "similarity": "Mean cosine between genres",
    "robustness": "A piece and itself, changed, against random pairs",
}


def render(checkpoint: Path, results_file: Path, plots: Path | None = None) -> ModelCard:
    """The card of a checkpoint; every number in it comes from `results_file` or from the weights themselves.

    Args:
        plots (`Path`, *optional*): folder of PNG files of `model_cards.plots`; the card links to them.
    """
    results = json.loads(results_file.read_text(encoding="utf-8"))
    if "protocols" not in results:
        raise ValueError(
            f"{results_file}: no results of evaluation.evaluate_checkpoint; measure the checkpoint again."
        )
    model, processor = PianoBindModel.from_pretrained(checkpoint), PianoBindProcessor.from_pretrained(checkpoint)
    figures = figures_of(results)
    bound = any(re.search(r"\bNC\b", source["licence"]) for source in results["sources"])
    data = ModelCardData(
        model_name=checkpoint.name,
        license="cc-by-nc-sa-4.0" if bound else "cc-by-sa-4.0",
        language="en",
        library_name="transformers",
        pipeline_tag="feature-extraction",
        base_model="sentence-transformers/all-MiniLM-L6-v2",
        tags=TAGS,
        eval_results=model_index(figures, CORPUS, results["split"]),
    )
    towers = [
        {"name": name, "parameters": f"{sum(p.numel() for p in tower.parameters()):,}", "start": STARTS[name]}
        for name in ("audio", "midi", "text")
        if (tower := getattr(model, f"{name}_model")) is not None
    ]
    protocols = results["protocols"]
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=checkpoint.name,
        towers=towers,
        dim=model.config.projection_dim,
        window_seconds=f"{processor.midi_processor.window_seconds:g}",
        hop_seconds=f"{processor.midi_processor.hop_seconds:g}",
        results_file=results_file.name,
        split=results["split"],
        commits=", ".join(sorted({protocol["code_commit"] for protocol in protocols.values()})),
        table=figure_table(figures),
        tags=tag_table(protocols),
        recordings=look_up(protocols, "recordings.scores.plain"),
        negation=look_up(protocols, "prompts.scores.negation"),
        plots=_plots(plots, checkpoint) if plots else [],
        sources=results["sources"],
        non_commercial=bound,
    )


def tag_table(protocols: dict) -> list[dict]:
    """Each tag's ROC-AUC in MIDI, without cues and in audio; None where a view has too few pieces of it."""
    views = {
        view: look_up(protocols, f"{protocol}.scores.per_tag") or {}
        for view, protocol in (("midi", "tagging"), ("twin", "tagging_without_cues"), ("audio", "tagging_audio"))
    }
    return [
        {"tag": tag} | {view: protocol.get(tag, {}).get("roc_auc") for view, protocol in views.items()}
        for tag in sorted(set().union(*views.values()))
    ]


def _plots(folder: Path, checkpoint: Path) -> list[dict]:
    """The plots of a folder in their order, as paths seen from the checkpoint."""
    known = [(folder / f"{name}.png", caption) for name, caption in CAPTIONS.items()]
    return [
        {"path": os.path.relpath(path, checkpoint), "caption": caption} for path, caption in known if path.exists()
    ]


def with_table(readme: str, table: str) -> str:
    """A README whose table of protocols is `table`.

    Raises:
        ValueError: it has no such table.
    """
    replaced, count = re.subn(r"(?m)^\| protocol \|.*\n(?:\|.*\n)+", lambda _: table + "\n", readme, count=1)
    if not count:
        raise ValueError("the README has no table that begins with `| protocol |`; put one where the figures belong.")
    return replaced


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m model_cards.render_model_card", description=__doc__.split("\n")[0]
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("results", type=Path, help="JSON of evaluation.evaluate_checkpoint")
    parser.add_argument("--plots", type=Path, help="folder of model_cards.plots; the card links to what is there")
    parser.add_argument("--readme", type=Path, help="also renew this file's table of protocols")
    given = parser.parse_args(arguments)
    try:
        card = render(given.checkpoint, given.results, given.plots)
        (given.checkpoint / "README.md").write_text(str(card), encoding="utf-8")
        if given.readme:
            figures = figures_of(json.loads(given.results.read_text(encoding="utf-8")))
            table = figure_table(deciding_figures(figures))
            given.readme.write_text(with_table(given.readme.read_text(encoding="utf-8"), table), encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
