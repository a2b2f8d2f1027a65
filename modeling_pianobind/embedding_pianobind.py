"""Files -> embeddings: threads read ahead of the model, and windows of many files share its batches."""

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from .checkpoint_pianobind import check_match
from .dtype_pianobind import computing
from .inputs_pianobind import FORMATS, check_content, gives_notes, group_pieces, modality_of
from .transcription_pianobind import load_transcriber, transcribed_midi

if TYPE_CHECKING:
    from .modeling_pianobind import PianoBindModel
    from .notes_pianobind import PianoNotes
    from .processing_pianobind import PianoBindProcessor
    from .score_pianobind import ScoreReading

# Bounds the memory of reading ahead: windows of audio of about 1 MB each, or whole MIDI files.
QUEUE_CHUNKS = 16


def _pad_rows(processor: "PianoBindProcessor", windows: list) -> tuple[torch.Tensor, torch.Tensor]:
    return processor.midi_processor.pad(windows)


def _stack_features(processor: "PianoBindProcessor", windows: list) -> tuple[torch.Tensor, torch.Tensor]:
    features, masks = zip(*windows, strict=True)
    return torch.stack(features), torch.stack(masks)


@dataclass(frozen=True)
class Tower:
    """How the windows of a tower are embedded.

    Attributes:
        collate: takes the processor and windows, gives the tower's inputs and their mask.
        weight (`float`): of this tower in the embedding of a transcribed recording; chosen on the `valid` split by
            retrieval of the own piece.
        batches_sorted (`int`): batches among which windows are sorted by length.
        length (*optional*): gives the length of a window; None where all are of one length.
    """

    collate: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    weight: float
    batches_sorted: int = 1
    length: Callable[..., int] | None = None


TOWERS = {
    "audio": Tower(_stack_features, weight=0.25),
    "midi": Tower(_pad_rows, weight=0.75, batches_sorted=16, length=len),
}


@dataclass
class EmbeddedFile:
    """The windows of a file in the embedding space, or the error that prevented them.

    Attributes:
        windows (`np.ndarray` of shape `(windows, dim)`): float32, unit length.
        spans (`np.ndarray` of shape `(windows, 2)`): start and end of each window in seconds.
        towers (`np.ndarray` of shape `(windows,)`): the tower of each window, "audio" or "midi"; a transcribed
            recording has windows of both.
        error (`ValueError`, `OSError` or None): why the file could not be read; its windows are then empty.
        notes (`PianoNotes`, *optional*): of MIDI, a score, or a recording that was transcribed.
        measures (`np.ndarray` of shape `(windows, 2)`, *optional*): numbers of a score's first and last measures.
        reading (`ScoreReading`, *optional*): what was read of a score, so that it need not be read again.
    """

    windows: np.ndarray
    spans: np.ndarray
    towers: np.ndarray
    error: Exception | None = None
    notes: "PianoNotes | None" = None
    measures: np.ndarray | None = None
    reading: "ScoreReading | None" = None

    @property
    def embedding(self) -> np.ndarray:
        """`(dim,)` float32, unit length: the mean over the windows of each tower, and of the towers by weight."""
        towers = np.unique(self.towers)
        means = unit_rows(np.stack([self.windows[self.towers == tower].mean(axis=0) for tower in towers]))
        return unit_rows(np.average(means, axis=0, weights=[TOWERS[tower].weight for tower in towers])[None])[0]


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """`(n, dim)` vectors as float32 of unit length; a vector of zeros stays as it is."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def embed_files(
    model: "PianoBindModel",
    processor: "PianoBindProcessor",
    sources: Iterable,
    modality: str | None = None,
    sampling_rate: int | None = None,
    batch_size: int = 16,
    progress: bool | None = False,
    transcribe: bool = False,
    dtype: str = "float32",
) -> Iterator[tuple[int, EmbeddedFile]]:
    """Embeds files of any length; results come in the order of completion.

    Args:
        model (`PianoBindModel`): runs on its device, in eval mode.
        processor (`PianoBindProcessor`): cuts the files into windows.
        sources: paths, or other inputs of the processor.
        modality (`str`, *optional*): "audio" or "midi"; by default each path's extension tells.
        sampling_rate (`int`, *optional*): of waveforms among `sources`, in Hz.
        batch_size (`int`): windows in one batch of the model.
        progress (`bool`, *optional*): a bar on stderr; None shows it on a terminal only.
        transcribe (`bool`): the MIDI tower sees each recording too, as transkun transcribes it.
        dtype (`str`): what the towers compute in; see `embed_audio`.
    Yields:
        The place of a file in `sources`, and its `EmbeddedFile`.
    Raises:
        ImportError: transkun is needed and not installed.
        ValueError: the processor is another model's.
    """
    check_match(model, processor)
    sources = list(sources)
    if transcribe:
        load_transcriber()  # fails before the work
    waiting = {tower: [] for tower in TOWERS}  # windows for the next batches
    files = [_Progress() for _ in sources]

    def read(source):
        is_file = isinstance(source, (str, os.PathLike))
        kind = modality or modality_of(source)
        if is_file and kind == "midi" and gives_notes(source):
            kind = modality_of(source)  # `embed_midi` reads scores as well
        entry = FORMATS[kind]
        for tower in (entry.tower, "midi") if transcribe else (entry.tower,):
            if getattr(model, f"{tower}_model") is None:
                name = source if is_file else f"the given {kind}"
                raise ValueError(f"{name}: the checkpoint has no {tower} tower; use one that has it, or leave it out.")
        if is_file:
            check_content(source, kind)
        return ((entry.tower, *chunk) for chunk in entry.windows(processor, source, sampling_rate))

    def embed(tower):
        for position, number, embedding in _embed_windows(model, processor, tower, waiting[tower], batch_size, dtype):
            files[position].keep(number, embedding)
            if files[position].complete:
                yield position
        waiting[tower].clear()

    def take(position, tower, windows, spans, notes=None, reading=None):
        file = files[position]
        file.notes, file.reading = notes, reading
        file.measures = reading.measures_of(spans) if reading is not None else None
        waiting[tower].extend((position, len(file.spans) + row, window) for row, window in enumerate(windows))
        file.spans.extend(spans)
        file.towers.extend([tower] * len(windows))
        if len(waiting[tower]) >= batch_size * TOWERS[tower].batches_sorted:
            yield from embed(tower)

    def done(position):
        bar.update()
        finished, files[position] = files[position], None
        return position, finished.result(model.config.projection_dim)

    with _evaluating(model), tqdm(total=len(sources), unit="file", disable=_hidden(progress), file=sys.stderr) as bar:
        for position, chunk, error in _read_ahead(read, sources):
            file = files[position]
            if chunk is not None:
                yield from map(done, take(position, *chunk))
                continue
            if transcribe and error is None and "audio" in file.towers:
                # On the main thread: transkun uses all cores, and Ctrl-C has to reach it.
                try:
                    midi = transcribed_midi(sources[position], sampling_rate)
                    for chunk in FORMATS["midi"].windows(processor, midi):
                        yield from map(done, take(position, "midi", *chunk))
                except (ValueError, OSError) as caught:
                    error = caught
            file.read, file.error = True, error
            if file.complete:
                yield done(position)
        for tower in waiting:
            yield from map(done, embed(tower))


class _Progress:
    """Progress of one file."""

    def __init__(self):
        self.spans, self.towers = [], []
        self.windows, self.embedded = np.empty((0, 0), np.float32), 0  # has spare rows for further windows
        self.read, self.error = False, None
        self.notes = self.measures = self.reading = None

    @property
    def complete(self) -> bool:
        return self.read and self.embedded == len(self.spans)

    def keep(self, number: int, embedding: np.ndarray) -> None:
        """Takes a window's embedding.

        One array that doubles holds all windows: small arrays allocated between a batch's large tensors would fragment
        the memory, which would then grow by the hour.
        """
        if number >= len(self.windows):
            self.windows.resize((max(len(self.spans), 2 * len(self.windows)), len(embedding)), refcheck=False)
        self.windows[number] = embedding
        self.embedded += 1

    def result(self, dim: int) -> EmbeddedFile:
        if self.error is not None:
            return EmbeddedFile(np.zeros((0, dim), np.float32), np.zeros((0, 2)), np.zeros(0, str), self.error)
        windows = self.windows[: self.embedded].copy()
        spans, towers = np.asarray(self.spans, np.float64), np.array(self.towers)
        return EmbeddedFile(windows, spans, towers, None, self.notes, self.measures, self.reading)


def _hidden(progress: bool | None) -> bool | None:
    return None if progress is None else not progress


def _embed_windows(
    model: "PianoBindModel",
    processor: "PianoBindProcessor",
    tower: str,
    windows: list[tuple],
    batch_size: int,
    dtype: str,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields (file, number of the window, embedding) for windows of many files."""
    kind = TOWERS[tower]
    if kind.length is not None:  # batches of equal length need the least padding
        windows = sorted(windows, key=lambda window: kind.length(window[2]))
    for start in range(0, len(windows), batch_size):
        batch = windows[start : start + batch_size]
        with torch.inference_mode(), computing(dtype, model.device):
            inputs, mask = kind.collate(processor, [window for _, _, window in batch])
            inputs = inputs.to(model.device, model.dtype if inputs.is_floating_point() else inputs.dtype)
            embeds = getattr(model, f"get_{tower}_features")(inputs, mask.to(model.device)).cpu().numpy()
        for (position, number, _), embedding in zip(batch, embeds, strict=True):
            yield position, number, embedding


def _read_ahead(read: Callable[[Any], Iterator[tuple]], sources: list) -> Iterator[tuple]:
    """Runs `read(source)`, an iterator of chunks, on threads.

    Yields:
        `(position, chunk, None)` for each chunk, then `(position, None, error or None)` for each source; the chunks of
        one source keep their order.
    """
    out, stop = queue.Queue(QUEUE_CHUNKS), threading.Event()
    jobs, lock = iter(enumerate(sources)), threading.Lock()

    def put(item):
        while not stop.is_set():
            try:
                return out.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work():
        while not stop.is_set():
            with lock:
                position, source = next(jobs, (None, None))
            if position is None:
                break
            error = None
            try:
                for chunk in read(source):
                    put((position, chunk, None))
                    if stop.is_set():
                        return
            except Exception as caught:  # passed to the caller's thread, which raises all but reading errors
                error = caught
            put((position, None, error))
        put(None)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(max(1, min(8, (os.cpu_count() or 2) - 1)))]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            item = out.get()
            if item is None:
                running -= 1
            elif item[2] is None or isinstance(item[2], (ValueError, OSError)):
                yield item
            else:
                raise item[2]
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def _evaluating(model: "PianoBindModel") -> Iterator[None]:
    """Eval mode inside the block: with dropout, embeddings would be random."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def embed_all(model: "PianoBindModel", processor: "PianoBindProcessor", sources: list, **settings: Any) -> np.ndarray:
    """`(len(sources), dim)`, in the order given, by the settings of `embed_files`; raises a file's error."""
    embeds = np.zeros((len(sources), model.config.projection_dim), np.float32)
    for position, file in embed_files(model, processor, sources, **settings):
        if file.error is not None:
            raise file.error
        embeds[position] = file.embedding
    return embeds


def embed_example(
    model: "PianoBindModel",
    processor: "PianoBindProcessor",
    source: Any,
    modality: str | None = None,
    sampling_rate: int | None = None,
    transcribe: bool = False,
    dtype: str = "float32",
) -> EmbeddedFile:
    """Embeds one recording or MIDI file with its windows, for `EmbeddingIndex.search_like`.

    Args:
        source: a path, or with `modality` ("audio" or "midi") one input of `embed_audio` or `embed_midi`.
        model, processor, sampling_rate, transcribe, dtype: as in `embed_audio`.
    Raises:
        ValueError, OSError, ImportError: as `embed_audio`.
    """
    settings = {"modality": modality, "sampling_rate": sampling_rate, "transcribe": transcribe, "dtype": dtype}
    ((_, file),) = embed_files(model, processor, [source], **settings)
    if file.error is not None:
        raise file.error
    return file


def embed_audio(
    model: "PianoBindModel",
    processor: "PianoBindProcessor",
    paths: Any,
    sampling_rate: int | None = None,
    batch_size: int = 16,
    progress: bool | None = False,
    transcribe: bool = False,
    dtype: str = "float32",
) -> np.ndarray:
    """Embeds recordings of any length: each is cut in windows, whose mean is normalised again.

    Args:
        model (`PianoBindModel`): on any device.
        processor (`PianoBindProcessor`): the checkpoint's.
        paths: paths of recordings, the content of such files (`bytes`), or waveforms with their `sampling_rate` in Hz.
        batch_size (`int`): windows in one batch; the embeddings do not depend on it.
        progress (`bool`, *optional*): a bar on stderr; None shows it on a terminal only.
        transcribe (`bool`): also transcribe each recording (extra `[transcribe]`; on one CPU core in a third to two
            thirds of the music's time); the MIDI tower's embedding of that counts three times the audio tower's.
        dtype (`str`): what the towers compute in: "float32"; "bfloat16", faster and less exact; "auto" for bfloat16
            where the device supports it. The result is float32.
    Returns:
        `np.ndarray` of shape `(len(paths), dim)`: float32, unit length, in the order given.
    Raises:
        ValueError, OSError: a file cannot be read; `EmbeddingIndex.build` continues with the others.
        ImportError: `transcribe` needs transkun, which is not installed.
    """
    settings = {"sampling_rate": sampling_rate, "batch_size": batch_size, "progress": progress, "dtype": dtype}
    return embed_all(model, processor, _listed(paths), modality="audio", transcribe=transcribe, **settings)


def embed_midi(
    model: "PianoBindModel",
    processor: "PianoBindProcessor",
    paths: Any,
    batch_size: int = 16,
    progress: bool | None = False,
    dtype: str = "float32",
) -> np.ndarray:
    """Embeds MIDI of any length: each piece is cut in windows, whose mean is normalised again.

    Args:
        paths: paths of MIDI files or scores, or their content (`bytes`), symusic scores or `PianoNotes`.
        model, processor, batch_size, progress, dtype: as in `embed_audio`.
    Returns:
        `np.ndarray` of shape `(len(paths), dim)`: float32, unit length, in the order given.
    Raises:
        ValueError, OSError: a file cannot be read, or is not a piano piece.
    """
    settings = {"batch_size": batch_size, "progress": progress, "dtype": dtype}
    return embed_all(model, processor, _listed(paths), modality="midi", **settings)


embed_score = embed_midi  # reads both


def embed_pieces(
    model: "PianoBindModel",
    processor: "PianoBindProcessor",
    paths: Any,
    batch_size: int = 16,
    progress: bool | None = False,
    transcribe: bool = False,
    dtype: str = "float32",
) -> np.ndarray:
    """Embeds pieces: the mean over the files of one folder with one stem (take.mid, take.mp3).

    Args:
        paths: paths of MIDI files and recordings, told apart by their extensions.
        model, processor, batch_size, progress, transcribe, dtype: as in `embed_audio`.
    Returns:
        `np.ndarray` of shape `(pieces, dim)`: float32, unit length, in the order in which each piece's first file
        stands in `paths`.
    Raises:
        ValueError, OSError: a file cannot be read, or is not a piano piece.
        ImportError: `transcribe` needs transkun, which is not installed.
    """
    paths = _listed(paths)
    settings = {"batch_size": batch_size, "progress": progress, "transcribe": transcribe, "dtype": dtype}
    embeds = embed_all(model, processor, paths, **settings)
    pieces = group_pieces(paths)
    row = {str(path): embed for path, embed in zip(paths, embeds, strict=True)}
    means = [np.mean([row[str(path)] for path in piece], axis=0) for piece in pieces]
    return unit_rows(np.stack(means)) if means else embeds


def embed_text(
    model: "PianoBindModel", processor: "PianoBindProcessor", texts: str | Iterable[str], batch_size: int = 64
) -> np.ndarray:
    """Embeds descriptions.

    Args:
        texts (`str` or `list[str]`): each of at least one word; longer texts are truncated.
        model, processor: as in `embed_audio`.
        batch_size (`int`): texts in one batch; the embeddings do not depend on it.
    Returns:
        `np.ndarray` of shape `(len(texts), dim)`: float32, unit length, in the order given.
    """
    check_match(model, processor)
    texts = _listed(texts)
    embeds = np.zeros((len(texts), model.config.projection_dim), np.float32)
    by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    with _evaluating(model), torch.inference_mode():
        for start in range(0, len(texts), batch_size):
            rows = by_length[start : start + batch_size]
            tokens = processor.tokenize([texts[row] for row in rows], return_tensors="pt").to(model.device)
            embeds[rows] = model.get_text_features(**tokens).cpu().numpy()
    return embeds


def _listed(sources: Any) -> list:
    """Wraps a single path, text, waveform or `PianoNotes` in a list."""
    is_single = isinstance(sources, (str, bytes, os.PathLike, np.ndarray)) or not isinstance(sources, Iterable)
    return [sources] if is_single else list(sources)


__all__ = [
    "TOWERS",
    "EmbeddedFile",
    "embed_all",
    "embed_audio",
    "embed_example",
    "embed_files",
    "embed_midi",
    "embed_pieces",
    "embed_score",
    "embed_text",
    "unit_rows",
]
