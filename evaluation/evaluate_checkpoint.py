"""Measures a checkpoint on a corpus: the one command behind every figure of the project.

    python -m evaluation.evaluate_checkpoint CHECKPOINT CORPUS --output results.json [--protocols tagging,emotion]

CORPUS is a packed corpus (training.data.corpus) or a folder of training.build_dataset. Protocols may be run singly:
their figures are added to the same file, as long as it is of the same weights, the same data and the same split.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from modeling_pianobind import PianoBindModel, PianoBindProcessor, embed_midi, embed_text
from modeling_pianobind.embedding_pianobind import embed_files
from modeling_pianobind.index.alignment import Example
from training.data.arguments import InstrumentArguments
from training.data.rendering import make_instruments

from .audio_protocols import audio_midi, mixed_ranking, recordings, robustness_audio, tagging_audio
from .baselines import sentence_embedder
from .bench import Bench, UnsuitableError
from .corpora import load_corpus
from .measurement import (
    add_bootstrap_argument,
    add_subject_arguments,
    code_commit,
    instrument_of,
    save_results,
    subject,
)
from .midi_protocols import (
    corpus_map,
    dance_and_form,
    emotion,
    probes,
    robustness_midi,
    tagging,
    tagging_without_cues,
)
from .query_protocols import free_queries, lexicon_held_out, works_held_out
from .score_protocols import duplicates, score_performance
from .scores import Bootstrap
from .text_protocols import paper, prompts, text_to_piece

PROTOCOLS = {
    protocol.__name__: protocol
    for protocol in (
        paper, text_to_piece, works_held_out, free_queries, lexicon_held_out, prompts, tagging, tagging_without_cues,
        dance_and_form, emotion, probes, robustness_midi, corpus_map,
        tagging_audio, audio_midi, mixed_ranking, recordings, robustness_audio, score_performance, duplicates,
    )
}  # fmt: skip
BATCH_WINDOWS = 64


def tower(model: PianoBindModel, name: str, embed: Callable) -> Callable:
    """An embedding function of a model; it raises if the model lacks the tower."""
    if getattr(model, f"{name}_model") is not None:
        return embed

    def refuse(*_, **__):
        raise UnsuitableError(f"the checkpoint has no {name} tower.")

    return refuse


def make_bench(given: argparse.Namespace, model: PianoBindModel, processor: PianoBindProcessor) -> Bench:
    """The bench of a command line."""
    rate = processor.feature_extractor.sampling_rate
    named = [instrument_of(text) for text in given.soundfont]
    return Bench(
        corpus=load_corpus(given.corpus),
        embed_text=tower(model, "text", partial(embed_text, model, processor)),
        embed_notes=tower(model, "midi", partial(embed_midi, model, processor, batch_size=BATCH_WINDOWS)),
        audio_examples=tower(model, "audio", partial(_examples, model, processor, "audio", sampling_rate=rate)),
        note_examples=tower(model, "midi", partial(_examples, model, processor, "midi")),
        sampling_rate=rate,
        split=given.split,
        instruments=dict(zip(map(_instrument_name, named), make_instruments(named), strict=True)),
        recordings=given.recordings,
        printed_scores=given.scores,
        sentence_embedder=sentence_embedder(given.minilm, given.device) if given.minilm else None,
        audio_pieces=given.audio_pieces,
        audio_seconds=given.audio_seconds,
        transcribe=given.transcribe,
        transcribed_pieces=given.transcribed_pieces,
        bootstrap=Bootstrap(given.bootstrap_samples, given.seed),
    )


def _examples(
    model: PianoBindModel, processor: PianoBindProcessor, modality: str, sources: list, **settings: Any
) -> list[Example]:
    files = dict(embed_files(model, processor, sources, modality, **settings))
    if failed := [file.error for file in files.values() if file.error is not None]:
        raise failed[0]
    return [
        Example(file.embedding, file.windows, file.spans, file.notes)
        for _, file in sorted(files.items(), key=itemgetter(0))
    ]


def _instrument_name(instrument: InstrumentArguments) -> str:
    return Path(instrument.path).name + (f", program {instrument.program}" if instrument.program else "")


def open_results(path: Path, measured: dict) -> dict:
    """What `path` holds already, or the frame of new results.

    Raises:
        ValueError: its figures are of other weights, other data or another split.
    """
    if not path.exists():
        return measured | {"protocols": {}}
    results = json.loads(path.read_text(encoding="utf-8"))
    kept = {
        "weights_sha256": "other weights",
        "corpus": "another corpus",
        "split": "another split",
        "dtype": "another dtype",
    }
    for what, words in kept.items():
        if results.get(what) != measured[what]:
            raise ValueError(f"{path}: holds figures of {words}; name another --output, or delete it.")
    return measured | {"protocols": results["protocols"]}


def evaluate(bench: Bench, names: list[str], output: Path, measured: dict, strict: bool) -> dict:
    """Runs protocols and adds each to the results as soon as it is done.

    Args:
        measured (`dict`): as `subject` gives it.
        strict (`bool`): raise if a protocol does not suit the data; otherwise print that and continue.
    Returns:
        `dict`: all results in `output`.
    """
    results = open_results(output, measured)
    made = {"code_commit": code_commit(), "seed": bench.bootstrap.seed, "bootstrap_samples": bench.bootstrap.samples}
    for name in names:
        try:
            result = PROTOCOLS[name](bench)
        except UnsuitableError as error:
            if strict:
                raise UnsuitableError(f"{name}: {error}") from error
            print(f"{name}: left out, {error}", file=sys.stderr)
            continue
        results["protocols"][name] = {"protocol": PROTOCOLS[name].__doc__.splitlines()[0], **made, **result}
        save_results(output, results)
        print(f"{name}: {summary(result['scores'])}")
    return results


def summary(scores: dict, prefix: str = "") -> str:
    """The main figures of a protocol on one line."""
    parts = []
    for name, value in scores.items():
        if isinstance(value, dict) and name not in ("per_tag", "per_query", "per_kind", "retrieval"):
            parts.append(summary(value, f"{prefix}{name} "))
        elif name in ("macro_roc_auc", "accuracy", "recall@1", "recall@10", "cosine", "fit@5", "right@10"):
            parts.append(f"{prefix}{name} {value:.3f}" if isinstance(value, float) else f"{prefix}{name} {value}")
    return ", ".join(filter(None, parts))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.evaluate_checkpoint", description=__doc__.split("\n")[0]
    )
    add_subject_arguments(parser, output="results JSON, new or to be added to")
    parser.add_argument(
        "--protocols", help=f"comma-separated; all that suit the data by default: {', '.join(PROTOCOLS)}"
    )
    parser.add_argument(
        "--soundfont", action="append", default=[], metavar="FILE[:PROGRAM]",
        help="instrument outside the training data; repeat it for more, against which robustness is measured",
    )  # fmt: skip
    parser.add_argument("--recordings", type=Path, help="folder below which the corpus's recordings lie")
    parser.add_argument("--scores", type=Path, help="folder with scores.jsonl, or of score_readers --keep")
    parser.add_argument("--transcribe", action="store_true", help="measure audio with transcription too; takes hours")
    parser.add_argument("--transcribed-pieces", type=int, default=200, help="of the rendered ones (default: 200)")
    parser.add_argument("--audio-pieces", type=int, default=1000, help="pieces that are rendered (default: 1000)")
    parser.add_argument("--audio-seconds", type=float, default=40.0, help="of each, from its middle (default: 40)")
    parser.add_argument("--minilm", help="folder or Hub id of all-MiniLM-L6-v2, for the baseline of that name")
    parser.add_argument("--seed", type=int, default=0, help="of draws, folds and bootstrap (default: 0)")
    add_bootstrap_argument(parser)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="the towers compute in")
    given = parser.parse_args(arguments)
    names = given.protocols.split(",") if given.protocols else list(PROTOCOLS)
    if unknown := [name for name in names if name not in PROTOCOLS]:
        parser.error(f"no protocol is called {', '.join(unknown)}; there are {', '.join(PROTOCOLS)}")
    try:
        model = PianoBindModel.from_pretrained(given.checkpoint, dtype=getattr(torch, given.dtype))
        model = model.to(given.device).eval()
        bench = make_bench(given, model, PianoBindProcessor.from_pretrained(given.checkpoint))
        measured = subject(given.checkpoint, given.corpus, bench.corpus, given.split, given.dtype)
        evaluate(bench, names, given.output, measured, strict=bool(given.protocols))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
