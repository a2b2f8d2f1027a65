"""Speed and memory of the package, each figure with a reference value.

    python -m evaluation.benchmark_speed --midi-folder FOLDER [--checkpoint FOLDER] [--hours 10] [--output speed.json]

Every figure is a ratio or a rate on the machine at hand; run it while nothing else runs. `--index-rows 1000000` adds
exact search at that size (faiss-cpu beside it if it is installed), `--long` growth up to 100,000 files.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from modeling_pianobind import default_checkpoint

from .process_memory import memory_kilobytes

if TYPE_CHECKING:
    from modeling_pianobind import PianoBindModel, PianoBindProcessor

IMPORT_AND_LOAD = (
    "import sys, torch, transformers; from safetensors.torch import load_file; load_file(sys.argv[1])"  # what any
    # program that uses the checkpoint has to do at least
)
BATCH_SIZE = 16
INDEX_PIECES, INDEX_WINDOWS = 1_000, 15  # windows a piece: two and a half minutes of music
SAMPLING_RATE, RECORDING_RATE = 16_000, 44_100
RECORDINGS, RECORDING_SECONDS = 6, 120  # of each format
SEARCH_DIM, SEARCH_BLOCK = 512, 10_000
GROWTH_FILES = (1_000, 10_000, 100_000)


@dataclass
class Figure:
    """One line of the table; `target` is the reference of `value`, `detail` its inputs."""

    name: str
    value: float
    unit: str
    target: str
    met: bool
    detail: str


def best_seconds(run: Callable[[], object], rounds: int = 3) -> float:
    """The shortest of some runs: disturbances only lengthen a run."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def midi_rows(processor: "PianoBindProcessor", paths: list[str]) -> Figure:
    """MIDI file -> note rows, one file after the other on one core."""
    midi = processor.midi_processor
    seconds = best_seconds(lambda: [midi.rows(midi.read(path)) for path in paths], rounds=5)
    rate = len(paths) / seconds
    return Figure("MIDI file to rows", rate, "files/s", ">= 2000", rate >= 2000, f"{len(paths)} files, one core")


def midi_folder(model: "PianoBindModel", processor: "PianoBindProcessor", paths: list[str]) -> Figure:
    """Embedding MIDI files, against the bare tower on the same windows in batches that are ready."""
    from modeling_pianobind import embed_midi

    midi = processor.midi_processor
    windows = sorted((rows for path in paths for rows in midi.windows(midi.read(path))[0]), key=len)
    batches = [midi.pad(windows[start : start + BATCH_SIZE]) for start in range(0, len(windows), BATCH_SIZE)]
    return _folder("MIDI", model, processor, paths, embed_midi, model.get_midi_features, batches)


def audio_folder(model: "PianoBindModel", processor: "PianoBindProcessor") -> Figure:
    """Embedding recordings in all formats, against the bare tower on the same windows in batches that are ready."""
    from modeling_pianobind import embed_audio

    extractor = processor.feature_extractor
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{number}.{ending}" for number in range(RECORDINGS) for ending in ("wav", "flac", "mp3", "ogg")]
        paths = [write_recording(Path(folder) / name, RECORDING_SECONDS / 3600, RECORDING_RATE) for name in names]
        windows = [window for path in paths for window in extractor.windows(path)]
        starts = range(0, len(windows), BATCH_SIZE)
        batches = [extractor.batch(windows[start : start + BATCH_SIZE]) for start in starts]
        return _folder("Audio", model, processor, paths, embed_audio, model.get_audio_features, batches)


def _folder(
    kind: str,
    model: "PianoBindModel",
    processor: "PianoBindProcessor",
    paths: list,
    embed: Callable,
    tower: Callable,
    batches: list[tuple],
) -> Figure:
    """The tower leaves one core to the threads that decode, alone as well as in the whole."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))

    def bare():
        with torch.inference_mode():
            for features, mask in batches:
                tower(features.to(model.device), mask.to(model.device)).cpu()

    def whole():
        embed(model, processor, paths, batch_size=BATCH_SIZE)

    rounds = [(best_seconds(bare, 1), best_seconds(whole, 1)) for _ in range(3)]  # in turn, as the machine drifts
    bare_seconds, whole_seconds = (min(column) for column in zip(*rounds, strict=True))
    torch.set_num_threads(threads)
    ratio, windows = bare_seconds / whole_seconds, sum(len(features) for features, _ in batches)
    detail = f"{len(paths)} files, {windows} windows: {whole_seconds:.2f} s, tower alone {bare_seconds:.2f} s"
    return Figure(f"{kind} folder, speed relative to the bare tower", ratio, "x", ">= 0.8", ratio >= 0.8, detail)


def search_index(model: "PianoBindModel", checkpoint: str) -> Figure:
    """`pianobind search` on a saved index, against importing the libraries and reading the weights."""
    from modeling_pianobind import EmbeddingIndex
    from modeling_pianobind.checkpoint_pianobind import model_fingerprint
    from modeling_pianobind.index.table import FileTable

    random = np.random.default_rng(0)
    spans = np.arange(INDEX_WINDOWS)[:, None] * 10.0 + [0.0, 20.0]
    dim = model.config.projection_dim
    rows = []
    for piece in range(INDEX_PIECES):
        windows = random.normal(size=(INDEX_WINDOWS, dim)).astype(np.float16)
        embed = windows.mean(0).astype(np.float32)
        rows.append((f"{piece:04}.mid", f"{piece:04}", "", embed / np.linalg.norm(embed), windows, spans))
    with tempfile.TemporaryDirectory() as folder:
        EmbeddingIndex(model_fingerprint(model), FileTable.from_rows(rows)).save(Path(folder) / "index")
        search = ["-m", "modeling_pianobind.cli", "search", f"{folder}/index", "calm, slow, rainy"]
        commands = {
            "search": [sys.executable, *search, "--checkpoint", checkpoint],
            "load": [sys.executable, "-c", IMPORT_AND_LOAD, str(Path(checkpoint) / "model.safetensors")],
        }
        seconds = {name: [] for name in commands}
        for _ in range(6):  # the first fills the disk cache
            for name, command in commands.items():
                run = lambda command=command: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: E731
                seconds[name].append(best_seconds(run, 1))
    search_seconds, load_seconds = (statistics.median(seconds[name][1:]) for name in ("search", "load"))
    ratio = search_seconds / load_seconds
    detail = f"{INDEX_PIECES} pieces: {search_seconds:.2f} s, imports and weights {load_seconds:.2f} s"
    return Figure("Search, time relative to imports and weights", ratio, "x", "<= 1.3", ratio <= 1.3, detail)


def long_recording(checkpoint: str, hours: float) -> Figure:
    """Memory for a recording of many hours beyond the loaded model, in a separate process."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_recording(Path(folder) / "long.flac", hours)
        command = [sys.executable, "-m", "evaluation.benchmark_speed", "--checkpoint", checkpoint]
        done = subprocess.run([*command, "--measure-memory", str(path)], check=True, stdout=subprocess.PIPE, text=True)
        loaded, peak, seconds = map(float, done.stdout.split())
    extra = (peak - loaded) / 1e6
    detail = f"{hours:g} h in {seconds:.0f} s; {peak / 1e6:.2f} GB in all, the model {loaded / 1e6:.2f} GB"
    return Figure("Long recording, memory above the model", extra, "GB", "< 1", extra < 1, detail)


def package_import() -> Figure:
    """Import time of the package's public names, after torch and transformers."""
    program = (
        "import time, torch, transformers; from transformers import AutoModel, AutoProcessor, PreTrainedModel\n"
        "start = time.perf_counter(); from modeling_pianobind import *; print(time.perf_counter() - start)"
    )
    run = lambda: subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)  # noqa: E731
    seconds = statistics.median(float(run().stdout) for _ in range(3))
    return Figure("Import, beyond torch and transformers", seconds, "s", "< 0.3", seconds < 0.3, "all public names")


def exact_search(rows: int) -> list[Figure]:
    """Search of random unit vectors, the hardest case for int8; set OMP_NUM_THREADS=1 for one thread."""
    from modeling_pianobind import EmbeddingIndex
    from modeling_pianobind.index.table import FileTable

    random = np.random.default_rng(0)
    embeds = np.empty((rows, SEARCH_DIM), np.float32)
    for start in range(0, rows, SEARCH_BLOCK):
        block = embeds[start : start + SEARCH_BLOCK]
        block[:] = random.normal(size=block.shape)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    queries = random.normal(size=(64, SEARCH_DIM)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    names = [f"{row:08}" for row in range(rows)]
    windows, spans = np.zeros((0, SEARCH_DIM), np.float16), np.zeros((0, 2))
    none = np.zeros(rows + 1, np.int64)
    table = FileTable(names, names, [""] * rows, embeds, windows, spans, none, note_bounds=none)
    index = EmbeddingIndex(table=table)
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "int8"):
            index.save(Path(folder) / dtype, dtype=dtype)
        del index
        opening = best_seconds(lambda: EmbeddingIndex.load(Path(folder) / "int8"))
        exact, int8 = (EmbeddingIndex.load(Path(folder) / dtype) for dtype in ("float32", "int8"))
        single, many = queries[:1], queries

        def plain():
            scores = many @ embeds.T
            np.argpartition(scores, -10, axis=1)[:, -10:]

        seconds = {
            "one": best_seconds(lambda: exact.search(single), 7),
            "int8": best_seconds(lambda: int8.search(single), 7),
            "many": best_seconds(lambda: exact.search(many)),
            "plain": best_seconds(plain),
            "faiss": _faiss_seconds(embeds, single),
        }
        hit_paths = [[{hit.path for hit in hits} for hits in each.search(many)] for each in (exact, int8)]
    recall = statistics.mean(len(right & got) / 10 for right, got in zip(*hit_paths, strict=True))
    size = f"{len(embeds)} x {SEARCH_DIM}"
    figures = []
    for name, what, against, limit in (
        ("One query, time relative to faiss Flat", "one", "faiss", 1.1),
        ("One query in int8, relative to faiss Flat", "int8", "faiss", 0.5),
        ("64 queries, relative to product and top-k", "many", "plain", 1.2),
    ):
        if seconds[against] is not None:
            detail = f"{size}: {1e3 * seconds[what]:.1f} ms, {against} {1e3 * seconds[against]:.1f} ms"
            ratio = seconds[what] / seconds[against]
            figures.append(Figure(name, ratio, "x", f"<= {limit}", ratio <= limit, detail))
    figures.append(Figure("R@10 of int8 against float32", recall, "", ">= 0.97", recall >= 0.97, size))
    figures.append(Figure("Opening an index", opening, "s", "< 0.2", opening < 0.2, f"{size}, float32 and int8"))
    return figures


def _faiss_seconds(embeds: np.ndarray, query: np.ndarray) -> float | None:
    """Time of faiss for one query; None if it is not installed."""
    try:
        import faiss
    except ImportError:
        print("faiss-cpu is not installed; the figures relative to it are left out", file=sys.stderr)
        return None
    flat = faiss.IndexFlatIP(embeds.shape[1])
    flat.add(embeds)
    return best_seconds(lambda: flat.search(query, 10), 7)


def growth(checkpoint: str, path: str) -> Figure:
    """`pianobind index` of copies of one MIDI file: time a file and memory, at each size in a process of its own.

    Each copy ends in different bytes, which MIDI readers ignore, so that all contents differ.
    """
    content, seconds, memory = Path(path).read_bytes(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for size in GROWTH_FILES:
            music = Path(folder) / f"{size}"
            music.mkdir()
            for row in range(size):
                chunk = b"XXXX" + (8).to_bytes(4, "big") + row.to_bytes(8, "big")
                (music / f"{row:06}.mid").write_bytes(content + chunk)
            program = (
                "import sys; from evaluation.process_memory import memory_kilobytes; "
                "from modeling_pianobind import cli; cli.main(sys.argv[1:]); "
                "print(memory_kilobytes(field='VmHWM'), file=sys.stderr)"
            )
            command = [sys.executable, "-c", program, "index", str(music), "--output", f"{folder}/index-{size}"]
            start = time.perf_counter()
            done = subprocess.run([*command, "--checkpoint", checkpoint], check=True, capture_output=True, text=True)
            seconds.append((time.perf_counter() - start) / size)
            memory.append(int(done.stderr.split()[-1]) / 1e6)
    ratio = seconds[-1] / seconds[0]
    detail = ", ".join(
        f"{size}: {1e3 * each:.1f} ms a file, {peak:.2f} GB"
        for size, each, peak in zip(GROWTH_FILES, seconds, memory, strict=True)
    )
    return Figure("Growth, time a file of most to fewest", ratio, "x", "<= 1.1", ratio <= 1.1, detail)


def write_recording(path: Path, hours: float, sampling_rate: int = SAMPLING_RATE) -> Path:
    """Writes decaying tones, a minute at a time."""
    random = np.random.default_rng(0)
    time_axis = np.arange(sampling_rate // 2) / sampling_rate
    with soundfile.SoundFile(path, "w", sampling_rate, 1) as file:
        for _ in range(round(hours * 60)):
            frequencies = 440.0 * 2 ** ((random.integers(40, 90, size=120) - 69) / 12)
            tones = np.sin(2 * np.pi * frequencies[:, None] * time_axis) * np.exp(-6 * time_axis)
            for tone in tones:  # one by one: libsndfile's Vorbis encoder crashes on a minute at once
                file.write(0.3 * tone)
    return path


def measure_memory(checkpoint: str, path: str) -> None:
    """Prints the peak memory in kB with the model loaded and after embedding, and the seconds that embedding took."""
    from modeling_pianobind import embed_audio

    model, processor = load(checkpoint)
    loaded = memory_kilobytes(field="VmHWM")
    start = time.perf_counter()
    embed_audio(model, processor, path, batch_size=BATCH_SIZE)
    print(loaded, memory_kilobytes(field="VmHWM"), time.perf_counter() - start)


def load(checkpoint: str) -> "tuple[PianoBindModel, PianoBindProcessor]":
    """The model in float32, and its processor."""
    import torch
    from transformers.utils import logging

    from modeling_pianobind import PianoBindModel, PianoBindProcessor

    logging.disable_progress_bar()
    model = PianoBindModel.from_pretrained(checkpoint, dtype=torch.float32)
    return model, PianoBindProcessor.from_pretrained(checkpoint)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m evaluation.benchmark_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=default_checkpoint(), help="folder (default: the package's own)")
    parser.add_argument("--midi-folder", help="piano MIDI files; without it the two MIDI figures are left out")
    parser.add_argument("--files", type=int, default=500, help="how many of them are read (default: 500)")
    parser.add_argument("--embedded-files", type=int, default=20, help="how many of them are embedded (default: 20)")
    parser.add_argument(
        "--hours", type=float, default=10, help="length of the recording; 0 leaves it out (default: 10)"
    )
    parser.add_argument(
        "--index-rows", type=int, default=100_000, help="pieces of the exact search; 0 leaves it out (default: 100000)"
    )
    parser.add_argument(
        "--long", action="store_true", help="also growth, with copies of the smallest file of --midi-folder"
    )
    parser.add_argument("--output", help="JSON file for the figures")
    parser.add_argument("--measure-memory", metavar="RECORDING", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure_memory:
        measure_memory(args.checkpoint, args.measure_memory)
        return 0

    model, processor = load(args.checkpoint)
    figures = [audio_folder(model, processor)]
    if args.midi_folder:
        paths = sorted(str(path) for path in Path(args.midi_folder).rglob("*.mid"))
        figures.append(midi_rows(processor, paths[: args.files]))
        figures.append(midi_folder(model, processor, paths[: args.embedded_files]))
        if args.long:
            figures.append(growth(args.checkpoint, min(paths, key=lambda path: Path(path).stat().st_size)))
    figures.append(package_import())
    figures.append(search_index(model, args.checkpoint))
    if args.index_rows:
        figures += exact_search(args.index_rows)
    if args.hours:
        figures.append(long_recording(args.checkpoint, args.hours))
    for figure in figures:
        verdict = "met" if figure.met else "NOT met"
        print(f"{figure.name:46} {figure.value:9.2f} {figure.unit:8} {figure.target:>8}  {verdict:8} {figure.detail}")
    if args.output:
        Path(args.output).write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
