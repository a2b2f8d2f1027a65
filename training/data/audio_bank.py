"""Rendered windows on disk: rendering costs more than training, so each window is rendered once and used often.

`python -m training.data.audio_bank CONFIG.yaml --output FOLDER --windows 10000` renders with a run's instruments.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from modeling_pianobind import PianoBindFeatureExtractor, PianoBindModel, PianoBindProcessor
from modeling_pianobind.atomic_file import atomic_file

from .arguments import TrainingArguments
from .captions import choose_facts, write_caption
from .dataset import MAX_LATE_SECONDS, WindowSampler
from .mel_rendering import DEEP_DB
from .rendering import make_instruments
from .sources import TrainingCorpus
from .vocabulary import FactVocabulary

NEPERS = np.log(10) / 10  # of power, in a decibel


def deep_extractor(extractor: PianoBindFeatureExtractor) -> PianoBindFeatureExtractor:
    """The same features with a deeper floor."""
    return PianoBindFeatureExtractor.from_dict({**extractor.to_dict(), "top_db": DEEP_DB})


def render_bank(
    sampler: WindowSampler, extractor: PianoBindFeatureExtractor, output: Path, windows: int, shard_windows: int = 500
) -> None:
    """Renders examples and writes shards of them; a shard that exists already is kept.

    A shard has `decibels (windows, frames, mels)` uint8 (0 = 100 dB below the loudest bin, 255 = the loudest),
    `samples`, the note rows and their onsets in seconds one after the other with their counts, and the facts of each
    window.
    """
    output.mkdir(parents=True, exist_ok=True)
    deep = deep_extractor(extractor)
    for first in tqdm(range(0, windows, shard_windows), desc="render"):
        path = output / f"shard-{first:06d}.safetensors"
        if path.exists():
            continue
        examples = [sampler[index] for index in range(first, min(first + shard_windows, windows))]
        waveforms = torch.from_numpy(np.stack([example["waveform"] for example in examples])).float() / 32_768
        features = torch.cat([deep.log_mel(part) for part in waveforms.split(16)])
        shard = {
            "decibels": (features * 255).round().to(torch.uint8).numpy(),
            "samples": np.array([example["samples"] for example in examples]),
            "rows": np.concatenate([example["rows"] for example in examples]).astype(np.uint8),
            "onsets": np.concatenate([example["onsets"] for example in examples]),
            "counts": np.array([len(example["rows"]) for example in examples]),
            "true": np.stack([example["true"] for example in examples]).astype(np.uint8),
            "false": np.stack([example["false"] for example in examples]).astype(np.uint8),
            "song": np.array([example["song"] for example in examples]),
        }
        with atomic_file(path) as temporary:
            save_file(shard, temporary, metadata={"facts": json.dumps(sampler.vocabulary.facts)})


class AudioBank:
    """The windows of a folder in memory; example number `index` of a run, with a new caption each time.

    The sound begins up to `MAX_LATE_SECONDS` after the notes: a recording and its MIDI rarely start together.
    """

    def __init__(
        self, folder: str | Path, vocabulary: FactVocabulary, extractor: PianoBindFeatureExtractor, seed: int
    ):
        self.hop_length = extractor.hop_length
        self.frame_seconds = extractor.hop_length / extractor.sampling_rate
        paths = sorted(Path(folder).glob("shard-*.safetensors"))
        if not paths:
            raise ValueError(f"{folder}: no rendered windows; make them with `python -m training.data.audio_bank`.")
        with safe_open(paths[0], "np") as shard:
            if json.loads(shard.metadata()["facts"]) != vocabulary.facts:
                raise ValueError(f"{folder}: rendered for another corpus or other facts; render it again.")
        self.arrays = {}
        for key in load_file(paths[0]):  # one array at a time: all of them twice would not fit
            parts = []
            for path in paths:
                with safe_open(path, "np") as shard:
                    parts.append(shard.get_tensor(key))
            self.arrays[key] = np.concatenate(parts)
        self.offsets = np.cumsum([0, *self.arrays["counts"]])
        self.vocabulary, self.seed = vocabulary, seed

    def __len__(self) -> int:
        return len(self.arrays["samples"])

    @torch.inference_mode()
    def embed_midi(
        self, model: PianoBindModel, processor: PianoBindProcessor, batch_notes: int = 30_000
    ) -> torch.Tensor:
        """The MIDI embedding of every window, `(windows, projection_dim)`."""
        embeds = torch.empty(len(self), model.config.projection_dim, device=model.device)
        order = np.argsort(self.arrays["counts"], kind="stable")
        while len(order):
            count = max(1, batch_notes // max(1, int(self.arrays["counts"][order[-1]])))
            batch, order = order[-count:], order[:-count]
            spans = [slice(self.offsets[window], self.offsets[window + 1]) for window in batch]
            ids, mask = processor.midi_processor.pad([self.arrays["rows"][span].astype(np.int64) for span in spans])
            embeds[batch] = model.get_midi_features(ids.to(model.device), mask.to(model.device))
        return embeds

    def __getitem__(self, index: int) -> dict:
        turn, place = divmod(index, len(self))
        window = int(np.random.default_rng((self.seed, turn)).permutation(len(self))[place])
        words = random.Random(f"{self.seed}-{index}")
        true = {self.vocabulary.facts[number] for number in np.flatnonzero(self.arrays["true"][window])}
        chosen = choose_facts(true, self.vocabulary.creators, words)
        notes = slice(self.offsets[window], self.offsets[window + 1])
        late = words.randrange(round(MAX_LATE_SECONDS / self.frame_seconds) + 1)
        decibels = self.arrays["decibels"][window]
        return {
            "number": index,
            "rows": self.arrays["rows"][notes].astype(np.int64),
            "keys": self.arrays["rows"][notes][:, 0].astype(np.int64),
            "onsets": self.arrays["onsets"][notes] - np.float32(late * self.frame_seconds),
            "caption": write_caption(chosen, self.vocabulary.creators, words),
            "given": False,
            "claimed": self.vocabulary.encode(chosen),
            "true": self.arrays["true"][window].astype(np.float32),
            "false": self.arrays["false"][window].astype(np.float32),
            "generated": np.zeros(len(self.vocabulary.facts), np.float32),
            "work": -1,
            "song": int(self.arrays["song"][window]),
            "id": f"rendered window {window}",
            "window": window,
            "decibels": np.concatenate([decibels[late:], np.zeros_like(decibels[:late])]),
            "samples": max(1, int(self.arrays["samples"][window]) - late * self.hop_length),
        }


def augment_log_mel(
    decibels: torch.Tensor, extractor: PianoBindFeatureExtractor, strength: float = 1.0
) -> torch.Tensor:
    """Room, microphone, noise, detuning, compression and codec on log-mel spectrograms, at random for each window.

    Args:
        decibels (`torch.Tensor` of shape `(windows, frames, mels)`, uint8): as a bank holds them.
        extractor: whose `top_db`, bands and frame rate the result is for.
        strength (`float`): 0 changes nothing.
    Returns:
        `torch.Tensor` of the same shape: features as `extractor.log_mel` gives them.
    """
    windows, frames, bands = decibels.shape
    device = decibels.device
    edges = [1127 * np.log1p(edge / 700) for edge in (extractor.min_frequency, extractor.max_frequency)]
    mels = torch.linspace(*edges, bands + 2, dtype=torch.float32, device=device)[1:-1]
    hertz = 700 * (torch.exp(mels / 1127) - 1)
    octaves = torch.log2(hertz / 700)[None, None]

    def uniform(low, high):
        return torch.rand(windows, 1, 1, device=device) * (high - low) + low

    def sometimes(probability):
        return (torch.rand(windows, 1, 1, device=device) < probability).float() * strength

    # Matrix products, fast in bfloat16, instead of slow indexing and loops.
    ratio = 2 ** (uniform(-0.4, 0.4) * strength / 12)
    place = (1127 * torch.log1p(hertz * ratio / 700) - mels[0]) / (mels[1] - mels[0])
    place = place.clamp(0, bands - 1)  # (windows, 1, bands): where each band comes from
    detune = (1 - (place - torch.arange(bands, device=device)[None, :, None]).abs()).clamp(min=0)
    decibels = torch.bmm(decibels.bfloat16() * (DEEP_DB / 255), detune.bfloat16()).float() - DEEP_DB

    gain = strength * uniform(-3.0, 1.5) * octaves
    for _ in range(2):
        centre, width = uniform(-3.5, 3.5), uniform(0.4, 1.5)
        gain = gain + strength * uniform(-9, 9) * torch.exp(-(((octaves - centre) / width) ** 2))
    gain = gain - sometimes(0.3) * 30 * (octaves - uniform(1.8, 3.5)).clamp(min=0)
    gain = gain - sometimes(0.5) * 18 * (uniform(-5.0, -2.5) - octaves).clamp(min=0)
    contrast = 1 + sometimes(0.5) * uniform(-0.2, 0.15)  # compression, expansion
    power = torch.addcmul(gain, decibels, contrast).mul_(NEPERS).exp_()

    decay = 10 ** (-6 * extractor.hop_length / extractor.sampling_rate / uniform(0.15, 2.0))
    wet = sometimes(0.75) * 10 ** (uniform(-20, -4) / 10) * (1 - decay)
    ringing = decay[:, 0] ** torch.arange(frames - 1, -1, -1, device=device)  # the room: each band decays
    ringing = torch.cat([ringing, ringing.new_zeros(windows, frames - 1)], 1).bfloat16()
    echoes = torch.bmm(ringing.unfold(1, frames, 1), power.bfloat16()).flip(
        1
    )  # row `i` of the view is the last but `i`
    power = power.addcmul_(echoes.float(), wet)
    loudest = power.amax((1, 2), keepdim=True)
    noise = loudest * 10 ** ((uniform(-85, -25) + uniform(-6, 2) * octaves) / 10)
    # one pattern for all windows of a batch: drawing it is slow
    pattern = torch.empty(1, frames, bands, device=device).exponential_()
    power = power.addcmul_(sometimes(0.7) * noise, pattern)
    decibels = power.clamp_(min=1e-12).log_().div_(NEPERS)
    coded = sometimes(0.3) * uniform(30.0, 60.0)  # a codec drops what louder sound hides
    hidden = decibels < decibels.amax(2, keepdim=True) - torch.where(coded > 0, coded, 200.0)
    decibels = decibels.masked_fill_(hidden, -200.0)
    return decibels.sub_(decibels.amax((1, 2), keepdim=True)).div_(extractor.top_db).add_(1).clamp_(min=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="YAML file with the fields of TrainingArguments")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=10_000)
    options = parser.parse_args()
    arguments = TrainingArguments.from_yaml(options.config)
    processor = PianoBindProcessor.from_pretrained(arguments.checkpoint)
    sampler = WindowSampler(
        corpus=TrainingCorpus.open(arguments.corpus, arguments.source_weights),
        processor=processor,
        augmentation=arguments.augmentation,
        instruments=make_instruments(arguments.instruments),
        audio_share=1.0,
        max_notes=arguments.max_notes,
        seed=arguments.seed + 1,
    )
    started = time.monotonic()
    render_bank(sampler, processor.feature_extractor, options.output, options.windows)
    print(f"{options.windows} windows in {time.monotonic() - started:.0f} s -> {options.output}")


if __name__ == "__main__":
    main()
