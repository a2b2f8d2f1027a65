"""Examples -> batches: tensors of each modality for the towers, and the labels that the losses read."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from modeling_pianobind import PianoBindFeatureExtractor, PianoBindProcessor
from modeling_pianobind.feature_extraction_pianobind import AudioWindow

from ..data.audio_bank import AudioBank, augment_log_mel
from ..data.augmentation import augment_waveforms
from ..data.captions import write_caption
from ..data.dataset import WindowSampler, digits
from ..data.vocabulary import FactVocabulary

MASKED_SHARE = 0.25  # of the notes of a window
MASKED_STRETCH = 8  # notes


@dataclass(kw_only=True)
class BatchCollator:
    """Examples -> one batch for `TrainingModel`; a row depends on its example's number alone.

    Attributes:
        batch_size (`int`): over all processes.
        caption_share (`float`): share of the examples whose captions are used: a caption fits every piece of which it
            is true, so there may be fewer captions than pieces.
        labels (`bool`): also a short text for each fact that holds for a piece of the batch.
        masked_notes (`bool`): also every second example's notes for masked-note prediction.
    """

    processor: PianoBindProcessor
    vocabulary: FactVocabulary
    batch_size: int = 1
    caption_share: float = 1.0
    labels: bool = False
    masked_notes: bool = False

    def __call__(self, examples: list[dict]) -> dict:
        batch = {
            "song": torch.tensor([example["song"] for example in examples], dtype=torch.int64),
            "true": _flags(example["true"] for example in examples),
            "false": _flags(example["false"] for example in examples),
            "generated": _flags(example["generated"] for example in examples),
            "work": torch.tensor([example["work"] for example in examples]),
            "id": [example["id"] for example in examples],
            "piece": torch.tensor([example.get("piece", 0) for example in examples], dtype=torch.int64),
            "rows": {},
            "blocks": {},
        }
        described = [row for row, example in enumerate(examples) if self._is_described(example["number"])]
        chosen = [examples[row] for row in described]
        batch["claimed"] = _flags((example["claimed"] for example in chosen), batch["true"].shape[1])
        batch["given"] = torch.tensor([example["given"] for example in chosen], dtype=torch.uint8)
        if "window" in examples[0]:
            batch["window"] = torch.tensor([example["window"] for example in examples])
        batch["words"] = torch.tensor([digits(example["caption"]) for example in chosen], dtype=torch.int64)
        if chosen:
            self._add(batch, "text", described, self._tokens([example["caption"] for example in chosen]))
        for name, key in (("midi", "rows"), ("view", "view")):
            rows = [row for row, example in enumerate(examples) if key in example]
            if rows:
                self._add(batch, name, rows, self._notes([examples[row][key] for row in rows]))
        masked = [
            example for example in examples if self.masked_notes and "rows" in example and example["number"] % 2 == 0
        ]
        if masked:
            block = self._notes([example["rows"] for example in masked])
            masks = [torch.from_numpy(mask_notes(len(example["rows"]), example["number"])) for example in masked]
            batch["blocks"]["masked_note"] = block | {"masked": _padded(masks, False, block["midi_ids"].shape[1])}
        for key in ("waveform", "decibels"):
            rows = [row for row, example in enumerate(examples) if key in example]
            if rows:
                self._add(batch, "audio", rows, self._audio([examples[row] for row in rows], key))
        if self.labels:
            self._add_labels(batch, examples[0]["number"] // self.batch_size)
        return batch

    def _is_described(self, number: int) -> bool:
        return int((number + 1) * self.caption_share) > int(number * self.caption_share)

    def _add(self, batch: dict, name: str, rows: list[int], block: dict[str, torch.Tensor]) -> None:
        batch["rows"][name] = torch.tensor(rows)
        batch["blocks"][name] = block

    def _tokens(self, texts: list[str]) -> dict[str, torch.Tensor]:
        tokens = self.processor.tokenize(texts, return_tensors="pt")
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    def _notes(self, windows: list[np.ndarray]) -> dict[str, torch.Tensor]:
        ids, mask = self.processor.midi_processor.pad(windows)
        # every field has fewer than 256 values; widened on the device
        return {"midi_ids": ids.to(torch.uint8), "midi_attention_mask": mask.bool()}

    def _audio(self, examples: list[dict], key: str) -> dict[str, torch.Tensor]:
        block = {key: torch.from_numpy(np.stack([example[key] for example in examples]))}
        block["samples"] = torch.tensor([example["samples"] for example in examples])
        block["has_notes"] = torch.tensor(["keys" in example for example in examples])
        none = {
            "keys": np.zeros(1, np.int64),
            "onsets": np.full(1, np.nan, np.float32),
            "holds": np.zeros(1, np.float32),
        }
        for name, padding in (("keys", 0), ("onsets", float("nan")), ("holds", 0.0)):
            block[name] = _padded([torch.from_numpy(example.get(name, none[name])) for example in examples], padding)
        return block

    def _add_labels(self, batch: dict, step: int) -> None:
        """A short text for each fact that holds for a piece of the batch; its wording is the step's."""
        facts = batch["true"].any(0).nonzero()[:, 0]
        names = [self.vocabulary.facts[fact] for fact in facts]
        words = [random.Random(f"{step} {name}") for name in names]
        creators = self.vocabulary.creators
        prompts = [write_caption([name], creators, rng) for name, rng in zip(names, words, strict=True)]
        if prompts:
            batch["blocks"]["label"], batch["label_facts"] = self._tokens(prompts), facts


def mask_notes(notes: int, number: int) -> np.ndarray:
    """`(notes,)` bool: single notes, or stretches in half of the examples, where copying neighbours does not help.

    Args:
        number (`int`): of the example.
    """
    generator = np.random.default_rng((notes, number))
    if generator.random() < 0.5:
        return generator.random(notes) < MASKED_SHARE
    return np.repeat(generator.random(-(-notes // MASKED_STRETCH)) < MASKED_SHARE, MASKED_STRETCH)[:notes]


def _flags(rows: Iterable[np.ndarray], facts: int = 0) -> torch.Tensor:
    rows = list(rows)
    return torch.from_numpy(np.stack(rows)).to(torch.uint8) if rows else torch.zeros(0, facts, dtype=torch.uint8)


def _padded(rows: list[torch.Tensor], value: float, longest: int = 0) -> torch.Tensor:
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
    return nn.functional.pad(padded, (0, max(0, longest - padded.shape[1])), value=value)


@dataclass
class StepNumbers:
    """The numbers of the examples of each step that one process makes: its own stretch of every batch."""

    first_example: int
    first_step: int
    steps: int
    batch_size: int
    rank: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.processes:
            raise ValueError(
                f"`batch_size` is {self.batch_size}, which {self.processes} processes cannot share evenly; "
                "make it a multiple of their number."
            )

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __iter__(self) -> Iterator[list[int]]:
        own = self.batch_size // self.processes
        for step in range(self.first_step, self.steps):
            begin = self.first_example + step * self.batch_size + self.rank * own
            yield list(range(begin, begin + own))


def make_loader(
    source: WindowSampler | AudioBank, numbers: StepNumbers, collator: BatchCollator, workers: int
) -> DataLoader:
    """Batches in the order of their steps, made by `workers` processes."""
    return DataLoader(
        source,
        batch_sampler=numbers,
        num_workers=workers,
        collate_fn=collator,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # its own, so that a resumed run draws the same random numbers
    )


@torch.no_grad()
def on_device(
    batch: dict, device: torch.device, extractor: PianoBindFeatureExtractor, strength: float
) -> tuple[dict, dict]:
    """Moves a batch; sound becomes augmented features, small integers the model's own types.

    Returns:
        The blocks of rows, and the labels of the examples.
    """
    blocks = {name: _moved(block, device) for name, block in batch["blocks"].items()}
    for block in blocks.values():
        for key in ("midi_ids", "midi_attention_mask"):
            if key in block:
                block[key] = block[key].long()
    if "audio" in blocks:
        blocks["audio"] = _features(blocks["audio"], extractor, strength)
    known = _moved({key: value for key, value in batch.items() if torch.is_tensor(value)}, device)
    return blocks, known | {"rows": _moved(batch["rows"], device)}


def _moved(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {key: value.to(device, non_blocking=True) for key, value in tensors.items()}


def _features(
    block: dict[str, torch.Tensor], extractor: PianoBindFeatureExtractor, strength: float
) -> dict[str, torch.Tensor]:
    samples = block.pop("samples")
    if "decibels" in block:
        features = augment_log_mel(block.pop("decibels"), extractor, strength)
    else:
        waveforms = block.pop("waveform").float() / 32_768
        if strength:
            waveforms = augment_waveforms(waveforms, extractor.sampling_rate, strength)
        if extractor.encoder_extractor is not None:
            cut = zip(waveforms.cpu().numpy(), samples.tolist(), strict=True)
            features, mask = extractor.batch([AudioWindow(example[:count], 0.0, 0.0) for example, count in cut])
            return block | _moved({"input_features": features, "audio_attention_mask": mask}, waveforms.device)
        features = extractor.log_mel(waveforms)
    return block | {
        "input_features": features,
        "audio_attention_mask": extractor.frame_mask(samples, features.shape[1]),
    }


__all__ = ["BatchCollator", "StepNumbers", "make_loader", "mask_notes", "on_device"]
