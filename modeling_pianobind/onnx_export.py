"""Export of the towers to ONNX, and the loss of int8 quantisation (extra `[onnx]`)."""

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig

from .atomic_file import atomic_file, replace_file
from .embedding_pianobind import embed_midi, embed_text
from .metric.ranking import embedding_retrieval_metrics

if TYPE_CHECKING:
    from .modeling_pianobind import PianoBindModel
    from .processing_pianobind import PianoBindProcessor

REPORT = "export.json"
TOLERANCE = 1e-4  # largest allowed difference to PyTorch
CHECKED_SHAPES = ((1, 9), (3, 40), (2, 101))  # (batch, length), different from the traced one
TRACED_SHAPE = (2, 49)


def _token_ids(config: PreTrainedConfig, batch: int, length: int, random: torch.Generator) -> torch.Tensor:
    return torch.randint(0, config.vocab_size, (batch, length), generator=random)


def _note_rows(config: PreTrainedConfig, batch: int, length: int, random: torch.Generator) -> torch.Tensor:
    fields = [torch.randint(0, size - 2, (batch, length), generator=random) for size in config.field_sizes]
    return torch.stack(fields, dim=-1)


def _mel_frames(config: PreTrainedConfig, batch: int, length: int, random: torch.Generator) -> torch.Tensor:
    return torch.rand(batch, length, config.num_mel_bins, generator=random)


@dataclass(frozen=True)
class ExportedTower:
    """How a tower is exported.

    Attributes:
        inputs (`tuple[str, str]`): names of its inputs in the ONNX file: the windows and their mask.
        example: takes the tower's config, a batch, a length and a generator, gives random windows.
        is_default: takes the model's config, says whether the tower is of the default family.
        has_int8 (`bool`): whether an int8 file is worth it.
    """

    inputs: tuple[str, str]
    example: Callable[..., torch.Tensor]
    is_default: Callable[..., bool]
    has_int8: bool = True


TOWERS = {
    "text": ExportedTower(("input_ids", "attention_mask"), _token_ids, lambda config: not config.pool_text_padding),
    "midi": ExportedTower(
        ("midi_ids", "midi_attention_mask"),
        _note_rows,
        lambda config: config.midi_config.position_embedding_type == "rotary" and not config.midi_config.pool_padding,
    ),
    "audio": ExportedTower(
        ("input_features", "audio_attention_mask"),
        _mel_frames,
        lambda config: (
            config.audio_config.model_type == "pianobind_audio" and config.audio_config.architecture == "transformer"
        ),
        has_int8=False,
    ),
}


class TowerEmbedding(nn.Module):
    """One tower with its projection: single windows (or texts) -> `(batch, dim)`, unit length."""

    def __init__(self, model: "PianoBindModel", modality: str):
        super().__init__()
        self.model, self.modality = model, modality

    def forward(self, inputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.modality == "text":
            return self.model.get_text_features(inputs, mask)
        tower = self.model._tower(self.modality)
        return self.model._project(self.modality, tower.pool(tower(inputs, mask), mask))


class OnnxModel:
    """Exported towers behind those methods of `PianoBindModel` that embedding uses.

    `embed_text(OnnxModel(folder), processor, ["calm"])`; likewise `embed_midi`, `embed_audio` and `describe`.

    Args:
        folder: output of `export_onnx`.
        int8 (`bool`): use int8 towers if available.
    Raises:
        ImportError: the extra is not installed.
        ValueError: the folder is not an export.
        OSError: it cannot be read.
    """

    device, dtype, training = torch.device("cpu"), torch.float32, False

    def __init__(self, folder: str | os.PathLike, int8: bool = False):
        onnxruntime = _extra("onnxruntime")
        try:
            report = json.loads((Path(folder) / REPORT).read_bytes())
            self.config = SimpleNamespace(projection_dim=report["projection_dim"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{folder}: its {REPORT} cannot be read ({error}); export the checkpoint again."
            ) from error
        self._int8 = set(report["int8"]) if int8 else set()
        for modality in TOWERS:
            file = _file(folder, modality, int8=modality in self._int8)
            session = None
            if modality in report["towers"]:
                session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            setattr(self, f"{modality}_model", session)

    def eval(self) -> "OnnxModel":
        return self

    def train(self, mode: bool = True) -> "OnnxModel":
        return self

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self._run("text", input_ids, attention_mask)

    def get_midi_features(self, midi_ids: torch.Tensor, midi_attention_mask: torch.Tensor) -> torch.Tensor:
        return self._run("midi", midi_ids, midi_attention_mask)

    def get_audio_features(self, input_features: torch.Tensor, audio_attention_mask: torch.Tensor) -> torch.Tensor:
        return self._run("audio", input_features, audio_attention_mask)

    def _run(self, modality: str, *tensors: torch.Tensor) -> torch.Tensor:
        session = getattr(self, f"{modality}_model")
        if session is None:
            raise ValueError(f"this export has no {modality} tower; export a checkpoint that has it.")
        if modality not in self._int8:
            return self._embed(modality, tensors)
        # An int8 tower scales activations by its whole input: rows are passed one by one, without padding.
        lengths = tensors[-1].ne(0).long().mul(torch.arange(1, tensors[-1].shape[1] + 1)).amax(dim=1).tolist()
        rows = [[tensor[row : row + 1, :length] for tensor in tensors] for row, length in enumerate(lengths)]
        return torch.cat([self._embed(modality, row) for row in rows])

    def _embed(self, modality: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        feed = {name: tensor.numpy() for name, tensor in zip(TOWERS[modality].inputs, tensors, strict=True)}
        return torch.from_numpy(getattr(self, f"{modality}_model").run(None, feed)[0])


def export_onnx(model: "PianoBindModel", folder: str | Path, int8: bool = False) -> dict:
    """Writes each tower as `text.onnx`, `midi.onnx` and `audio.onnx`, for any batch and length, and checks it.

    A file takes single windows (texts) as the processor cuts them, with their mask, and gives unit embeddings; the
    mean over a piece's windows is left to the caller: `embed_midi` does it for an `OnnxModel`.

    Args:
        model (`PianoBindModel`): of the default family.
        folder: created if missing.
        int8 (`bool`): also `text.int8.onnx` and `midi.int8.onnx`, whose weights are quantised, and activations as
            they come (dynamic quantisation).
    Returns:
        `dict`, also saved as `export.json`: `projection_dim`, and for each file in `towers` and `int8` its size in
        bytes; for a tower also its largest difference to PyTorch.
    Raises:
        ImportError: the extra is not installed.
        ValueError: a tower cannot be exported, or differs from PyTorch by more than 1e-4.
        OSError: a file cannot be written.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _extra(name)
    model = model.eval().to("cpu", torch.float32)
    towers = [modality for modality in TOWERS if getattr(model, f"{modality}_model") is not None]
    for modality in towers:
        _check_exportable(model, modality)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    report = {"projection_dim": model.config.projection_dim, "towers": {}, "int8": {}}
    for modality in towers:
        file = _file(folder, modality)
        difference = _export_tower(TowerEmbedding(model, modality), file)
        report["towers"][modality] = {"bytes": file.stat().st_size, "largest_difference": difference}
        if int8 and TOWERS[modality].has_int8:
            report["int8"][modality] = {"bytes": _quantise(file, _file(folder, modality, int8=True))}
    replace_file(folder / REPORT, json.dumps(report, indent=1))
    return report


def _export_tower(tower: TowerEmbedding, file: Path) -> float:
    """Writes one tower and returns its largest difference to PyTorch."""
    names = TOWERS[tower.modality].inputs
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with atomic_file(file) as temporary:
        with _quiet(), torch.inference_mode():
            torch.onnx.export(
                tower,
                _example(tower, *TRACED_SHAPE),
                temporary,
                input_names=list(names),
                output_names=[f"{tower.modality}_embeds"],
                dynamic_shapes={"inputs": dynamic, "mask": dynamic},
                external_data=False,
                dynamo=True,
                verbose=False,
            )
        difference = _difference(tower, temporary)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"the {tower.modality} tower's ONNX file differs from PyTorch by {difference:.1e}, more than "
                f"{TOLERANCE:g}; report it with the versions of torch and onnxruntime."
            )
    return difference


def _difference(tower: TowerEmbedding, file: Path) -> float:
    """The largest difference of any output to PyTorch's, over several shapes, with padding."""
    session = _extra("onnxruntime").InferenceSession(file, providers=["CPUExecutionProvider"])
    largest = 0.0
    for shape in CHECKED_SHAPES:
        inputs = _example(tower, *shape)
        with torch.inference_mode():
            expected = tower(*inputs).numpy()
        feed = {name: tensor.numpy() for name, tensor in zip(TOWERS[tower.modality].inputs, inputs, strict=True)}
        largest = max(largest, float(np.abs(session.run(None, feed)[0] - expected).max()))
    return largest


def _example(tower: TowerEmbedding, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random inputs of a tower; every row but the first ends in padding."""
    config = getattr(tower.model.config, f"{tower.modality}_config")
    inputs = TOWERS[tower.modality].example(config, batch, length, torch.Generator().manual_seed(0))
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1:, -(length // 3) :] = 0
    return inputs, mask


def _quantise(source: Path, target: Path) -> int:
    """Writes a tower with int8 weights and returns its size in bytes."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = _extra("onnx").load(source)
    del model.graph.value_info[:]  # shapes of inner values, which quantisation invalidates
    with atomic_file(target) as temporary, _quiet():
        quantize_dynamic(model, temporary, weight_type=QuantType.QInt8, per_channel=True)
    return target.stat().st_size


def measure_int8(
    folder: str | Path, processor: "PianoBindProcessor", texts: list[str], midi_files: list, paired: bool = False
) -> dict:
    """Measures the loss of int8 on texts and MIDI files.

    Args:
        folder: output of `export_onnx` with `int8=True`.
        processor (`PianoBindProcessor`): the checkpoint's.
        paired (`bool`): text `i` describes file `i`.
    Returns:
        `dict`: of each tower the `mean` and the `least` cosine between its int8 and float embeddings; with `paired`
        also `recall@10` of finding a file by its text, of the `float` and of the `int8` towers.
    Raises:
        ValueError, OSError: a file cannot be read.
    """
    embeds = {}
    for name, int8 in (("float", False), ("int8", True)):
        model = OnnxModel(folder, int8)
        embeds[name] = {"text": embed_text(model, processor, texts), "midi": embed_midi(model, processor, midi_files)}
    result = {"texts": len(texts), "midi_files": len(midi_files), "cosine": {}}
    for tower in (modality for modality, kind in TOWERS.items() if kind.has_int8):
        cosines = (embeds["float"][tower] * embeds["int8"][tower]).sum(axis=1)
        result["cosine"][tower] = {"mean": float(cosines.mean()), "least": float(cosines.min())}
    if paired:
        result["recall@10"] = {
            name: embedding_retrieval_metrics(
                part["text"], part["midi"], range(len(texts)), top_k=(10,), bootstrap_samples=0
            )["recall@10"]
            for name, part in embeds.items()
        }
    return result


def read_pairs(path: str | Path) -> tuple[list[str], list[Path]]:
    """Texts and MIDI files of a JSON-lines file with `{"text": ..., "file": ...}` rows, paths counted from its folder.

    Raises:
        ValueError: a row is not of this form, or there is none.
        OSError: it cannot be read.
    """
    path, texts, files = Path(path), [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts.append(str(row["text"]))
            files.append(path.parent / row["file"])
            if not files[-1].is_file():
                raise ValueError("there is no such file")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'{path}: line {number} is not a {{"text": ..., "file": ...}} row ({error}); correct it.'
            ) from error
    if not texts:
        raise ValueError(f"{path}: it holds no row; give texts and the MIDI files that they describe.")
    return texts, files


def _check_exportable(model: "PianoBindModel", modality: str) -> None:
    if not TOWERS[modality].is_default(model.config):
        raise ValueError(
            f"the {modality} tower is not of PianoBind's default family, and only that is exported; "
            "export a checkpoint such as the package's own."
        )


def _file(folder: str | os.PathLike, modality: str, int8: bool = False) -> Path:
    return Path(folder) / f"{modality}{'.int8' if int8 else ''}.onnx"


def _extra(name: str) -> ModuleType:
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError(
            f'ONNX files need {name}, which cannot be imported ({error}); run pip install "pianobind[onnx]".'
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences warnings and log lines of exporter and quantiser; errors are still raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


__all__ = ["OnnxModel", "TowerEmbedding", "export_onnx", "measure_int8", "read_pairs"]
