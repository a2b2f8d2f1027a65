"""Measures exported towers on a corpus: ONNX against PyTorch, and int8 against both.

    python -m evaluation.measure_onnx CHECKPOINT CORPUS --output evaluation/results/onnx-int8.json

Captions seek whole pieces as in the protocol `text_to_piece`, once with each kind of towers. Recordings are the first
pieces played by the built-in piano.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import soxr
import torch

from modeling_pianobind import PianoBindModel, PianoBindProcessor, embed_audio, embed_midi, embed_text
from modeling_pianobind.app.synthesis import SAMPLING_RATE, AdditivePiano
from modeling_pianobind.notes_pianobind import PianoNotes
from modeling_pianobind.onnx_export import OnnxModel, export_onnx
from training.data.corpus import PackedCorpus
from training.data.cutting import excerpt

from .bench import Bench
from .corpora import load_corpus
from .measurement import add_bootstrap_argument, add_subject_arguments, code_commit, save_results, subject
from .scores import Bootstrap, paired_retrieval
from .text_protocols import CANDIDATES, DRAWS

RECORDINGS, RECORDING_SECONDS = 20, 40.0
LOW_QUANTILE = 0.01


def compare(checkpoint: Path, corpus: PackedCorpus, split: str, folder: Path, bootstrap: Bootstrap) -> dict:
    """Exports a checkpoint and embeds a split's captions, pieces and recordings with each kind of towers.

    Args:
        checkpoint (`Path`): with all three towers.
        corpus (`PackedCorpus`), split (`str`): the rows with a caption are embedded.
        folder (`Path`): for the ONNX files.
    Returns:
        `dict`: the `export`'s report; of each kind of towers the figures of captions that seek their piece; of each
            tower the `largest_difference` of ONNX to PyTorch over all embeddings, and the cosines of int8 to float.
    Raises:
        ValueError: a tower cannot be exported.
    """
    model = PianoBindModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor = PianoBindProcessor.from_pretrained(checkpoint)
    report = export_onnx(model, folder, int8=True)
    rate = processor.feature_extractor.sampling_rate
    unused = dict.fromkeys(("embed_text", "embed_notes", "audio_examples", "note_examples"))
    bench = Bench(corpus, **unused, sampling_rate=rate, split=split, bootstrap=bootstrap)
    captions, pieces = [bench.caption(place) for place in bench.described], bench.notes_at(bench.described)
    recordings = [_played(notes, rate) for notes in pieces[:RECORDINGS]]

    def embeds_of(towers):
        return {
            "text": embed_text(towers, processor, captions),
            "midi": embed_midi(towers, processor, pieces),
            "audio": embed_audio(towers, processor, recordings, sampling_rate=rate),
        }

    embeds = {"pytorch": embeds_of(model), "onnx": embeds_of(OnnxModel(folder))}
    embeds["onnx_int8"] = embeds_of(OnnxModel(folder, int8=True))
    among = min(CANDIDATES, len(captions))
    return {
        "export": report,
        "embedded": {tower: len(rows) for tower, rows in embeds["pytorch"].items()},
        "text_to_piece": {
            name: paired_retrieval(rows["text"] @ rows["midi"].T, among, bootstrap, DRAWS)
            for name, rows in embeds.items()
        },
        "largest_difference": {
            tower: float(np.abs(rows - embeds["pytorch"][tower]).max()) for tower, rows in embeds["onnx"].items()
        },
        "int8_cosine": {
            tower: _cosines(embeds["onnx"][tower], embeds["onnx_int8"][tower]) for tower in report["int8"]
        },
    }


def _played(notes: PianoNotes, sampling_rate: int) -> np.ndarray:
    """The middle of a piece as a recording."""
    sound = AdditivePiano().render(excerpt(notes, RECORDING_SECONDS))
    return soxr.resample(sound.mean(axis=1), SAMPLING_RATE, sampling_rate)


def _cosines(first: np.ndarray, second: np.ndarray) -> dict:
    cosines = (first * second).sum(axis=1)
    return {
        "mean": float(cosines.mean()),
        "quantile_0.01": float(np.quantile(cosines, LOW_QUANTILE)),
        "least": float(cosines.min()),
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.measure_onnx", description=__doc__.split("\n")[0])
    add_subject_arguments(parser)
    add_bootstrap_argument(parser)
    given = parser.parse_args(arguments)
    try:
        corpus = load_corpus(given.corpus)
        measured = subject(given.checkpoint, given.corpus, corpus, given.split)
        with tempfile.TemporaryDirectory() as folder:
            results = compare(given.checkpoint, corpus, given.split, Path(folder), Bootstrap(given.bootstrap_samples))
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    del measured["sources"]
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    save_results(given.output, measured | {"code_commit": code_commit(), "versions": versions} | results)
    recall = {name: scores["recall@10"] for name, scores in results["text_to_piece"].items()}
    print(f"R@10 {recall}, difference {results['largest_difference']}, cosine of int8 {results['int8_cosine']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
