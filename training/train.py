"""The training loop: `accelerate launch -m training.train CONFIG.yaml`."""

import argparse
import copy
import json
import math
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from modeling_pianobind import PianoBindModel, PianoBindProcessor
from modeling_pianobind.modeling_pianobind import LogitScale, contrastive_loss

from .arguments import StageArguments, TrainingArguments
from .audio_bank import AudioBank, augment_log_mel
from .augmentation import augment_waveforms
from .dataset import BatchCollator, WindowSampler, training_pieces
from .losses import MaskedNoteHeads, StruckKeysHead, caption_relations, same_song
from .rendering import make_instruments

TEXT_ADAPTER_MODULES = ["query", "key", "value", "dense"]
ALIGNMENT_LOGIT_SCALE = math.log(1 / 0.05)
LENGTH_PARTS = 8


class TrainingModel(nn.Module):
    """The model with what only training needs: heads for masked notes and a temperature for audio against MIDI."""

    def __init__(self, model: PianoBindModel, text_lora_rank: int):
        super().__init__()
        self.model = model
        self.masked_notes = MaskedNoteHeads(model.config.midi_config.hidden_size, model.config.midi_config.field_sizes)
        self.struck_keys = StruckKeysHead(model.config.audio_config.hidden_size)
        self.alignment_scale = LogitScale(ALIGNMENT_LOGIT_SCALE)
        model.text_model.requires_grad_(False)
        if text_lora_rank:
            adapter = LoraConfig(r=text_lora_rank, lora_alpha=text_lora_rank, target_modules=TEXT_ADAPTER_MODULES)
            inject_adapter_in_model(adapter, model.text_model)

    def forward(self, batch: dict, stage: StageArguments) -> dict[str, torch.Tensor]:
        """The losses of one batch by name, not weighted yet."""
        model = self.model
        losses = {}
        midi = audio = None
        if stage.compares_midi:
            with torch.set_grad_enabled("midi" not in stage.frozen):
                midi = self.embed_midi_by_length(batch["midi_ids"], batch["midi_attention_mask"])
        with torch.set_grad_enabled("text" not in stage.frozen):
            text = model.get_text_features(batch["input_ids"], batch["attention_mask"])
        positives, ignored = caption_relations(batch["claimed"], batch["true"], batch["false"])
        if stage.midi_text_weight:
            losses["midi_text"] = contrastive_loss(model.logit_scale(midi @ text.T), positives, ignored)
        if stage.masked_note_weight:
            rows = max(1, len(batch["midi_ids"]) // 2)
            ids, mask = batch["midi_ids"][:rows], batch["midi_attention_mask"][:rows]
            changed, masked = self.masked_notes.mask(ids, mask)
            losses["masked_note"] = self.masked_notes(model.midi_model(changed, mask), ids, masked)
        if "view_ids" in batch:
            views = self.embed_midi_by_length(batch["view_ids"], batch["view_mask"])
            losses["view"] = self.alignment_loss(views, midi, batch["view_rows"], batch["song"])
        if "input_features" in batch:
            rows = batch["audio_rows"]
            heard = model.audio_model(batch["input_features"], batch["audio_attention_mask"])
            audio = model._project("audio", model.audio_model.pool(heard, batch["audio_attention_mask"]))
            if stage.struck_keys_weight:
                longest = batch["onsets"].shape[1]
                keys, mask = batch["midi_ids"][rows, :longest, 0], batch["midi_attention_mask"][rows, :longest]
                token_seconds = model.config.audio_config.frame_seconds * model.audio_model.stride
                targets = self.struck_keys.targets(keys, batch["onsets"], mask, heard.shape[1], token_seconds)
                tokens = model.audio_model.token_mask(batch["audio_attention_mask"])
                losses["struck_keys"] = self.struck_keys(heard, targets, tokens)
            if stage.audio_text_weight:
                logits = model.logit_scale(audio @ text.T)
                losses["audio_text"] = contrastive_loss(logits, positives[rows], ignored[rows])
            if stage.audio_midi_weight:
                losses["audio_midi"] = self.alignment_loss(audio, midi, rows, batch["song"])
            if stage.distillation_weight:
                losses["distillation"] = 1 - (audio * midi[rows].detach()).sum(1).mean()
        if "label_ids" in batch:
            # many short texts: they tell the other towers apart, while the captions alone train the text tower
            with torch.no_grad():
                labels = model.get_text_features(batch["label_ids"], batch["label_attention_mask"])
            positives, ignored = caption_relations(batch["label_claimed"], batch["true"], batch["false"])
            compared = [(midi, slice(None))] if "midi" not in stage.frozen else []
            compared += [(audio, batch["audio_rows"])] if audio is not None else []
            losses["label"] = sum(
                contrastive_loss(model.logit_scale(embeds @ labels.T), positives[rows], ignored[rows])
                for embeds, rows in compared
            )
        return losses

    def alignment_loss(self, embeds, midi, rows, song):
        """`embeds[i]` against `midi[rows[i]]`, which is the same window; other windows of its song do not count."""
        own = rows[:, None] == torch.arange(len(midi), device=rows.device)[None]
        return contrastive_loss(self.alignment_scale(embeds @ midi.T), own, same_song(song[rows], song))

    def embed_midi_by_length(self, midi_ids, midi_attention_mask):
        """The same as `get_midi_features`, in a few parts of like length, so that little padding is computed."""
        lengths = midi_attention_mask.sum(1)
        order = lengths.argsort()
        parts = [
            self.model.get_midi_features(midi_ids[rows, :longest], midi_attention_mask[rows, :longest])
            for rows in order.tensor_split(min(LENGTH_PARTS, len(order)))
            for longest in [int(lengths[rows].max())]
        ]
        return torch.cat(parts)[order.argsort()]


class Examples(Dataset):
    """The examples of one stage, by number."""

    def __init__(self, source: WindowSampler | AudioBank, first: int, count: int):
        self.source, self.first, self.count = source, first, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.source[self.first + index]


def parameter_groups(training_model: TrainingModel, stage: StageArguments, weight_decay: float) -> list[dict]:
    """Two learning rates (text adapter, all else), weight decay on matrices only."""
    groups = {}
    for name, parameter in training_model.named_parameters():
        if not parameter.requires_grad:
            continue
        text = ".text_model." in name or "text_projection" in name
        decays = parameter.ndim > 1 and not text and "embeddings" not in name
        groups.setdefault((text, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": stage.text_learning_rate if text else stage.learning_rate,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (text, decays), parameters in groups.items()
    ]


def freeze(training_model: TrainingModel, towers: list[str]) -> None:
    """Leaves out of training the named towers with their projections; of the text tower only the adapter trains."""
    for name, parameter in training_model.model.named_parameters():
        tower = name.split("_")[0]
        adapts = "lora_" in name or not name.startswith("text_model.")
        parameter.requires_grad_(tower not in towers and adapts)


def rate_factor(step: int, stage: StageArguments, progress: float) -> float:
    """Linear warm-up, then a cosine over `progress` (0 to 1) down to a fiftieth of the peak."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup_steps))
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


@torch.no_grad()
def prepare(batch: dict, extractor, strength: float) -> dict:
    """On the device: sound becomes augmented features, small integers the model's own types."""
    for key in ("midi_ids", "midi_attention_mask", "view_ids", "view_mask"):
        if key in batch:
            batch[key] = batch[key].long()
    if "waveform" in batch:
        waveforms = augment_waveforms(batch.pop("waveform").float() / 32_768, extractor.sampling_rate, strength)
        batch["input_features"] = extractor.log_mel(waveforms)
    elif "decibels" in batch:
        batch["input_features"] = augment_log_mel(batch.pop("decibels"), extractor, strength)
    if "input_features" in batch:
        batch["audio_attention_mask"] = extractor.frame_mask(batch["samples"], batch["input_features"].shape[1])
    return batch


@torch.no_grad()
def update_average(average: dict, model: nn.Module, decay: float) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            average[name].lerp_(parameter.detach().float(), 1 - decay)


def save_checkpoint(model: PianoBindModel, processor, average: dict, output: Path) -> None:
    """Writes the averaged weights with the text adapter merged, under a temporary name first."""
    merged = copy.deepcopy(model).cpu().float()
    own = dict(merged.named_parameters())
    for name, value in average.items():
        own[name].data.copy_(value)
    for name, module in list(merged.text_model.named_modules()):
        if hasattr(module, "get_base_layer"):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(merged.text_model.get_submodule(parent), child, module.get_base_layer())
    partial = output.with_name(output.name + ".partial")
    merged.half().save_pretrained(partial)
    merged.config.dtype = torch.float32  # halves on disk, but float32 in memory unless a caller asks otherwise
    merged.config.save_pretrained(partial)
    processor.save_pretrained(partial)
    previous = output.with_name(output.name + ".previous")
    if output.exists():
        shutil.rmtree(previous, ignore_errors=True)
        output.rename(previous)
    partial.rename(output)


def train(arguments: TrainingArguments) -> None:
    accelerator = Accelerator()
    set_seed(arguments.seed)
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "arguments.json").write_text(json.dumps(asdict(arguments), indent=1))

    corpus, pieces, vocabulary = training_pieces(arguments.corpus)
    weights = arguments.source_weights or {source: math.sqrt(len(held)) for source, held in pieces.items()}

    processor = PianoBindProcessor.from_pretrained(arguments.checkpoint)
    model = PianoBindModel.from_pretrained(arguments.checkpoint, dtype=torch.float32)
    for tower in (model.audio_model, model.midi_model):
        for module in tower.modules():
            if isinstance(module, nn.Dropout):
                module.p = arguments.dropout
    training_model = TrainingModel(model, arguments.text_lora_rank).to(accelerator.device)
    instruments = make_instruments(arguments.instruments)
    average = {
        name: parameter.detach().float().clone()
        for name, parameter in training_model.model.named_parameters()
        if parameter.requires_grad
    }
    log = (output / "log.jsonl").open("a")
    first, started, saved = 0, time.monotonic(), time.monotonic()
    for number, stage in enumerate(arguments.stages):
        midi_processor = copy.copy(processor.midi_processor)
        midi_processor.max_notes = min(midi_processor.max_notes, arguments.max_notes)
        sampler = WindowSampler(
            corpus, pieces, weights, vocabulary, arguments.augmentation, midi_processor,
            processor.feature_extractor.sampling_rate, instruments, stage.audio_share, arguments.seed,
            stage.view_share if stage.view_weight else 0.0,
        )  # fmt: skip
        source = sampler
        if stage.bank:
            source = AudioBank(stage.bank, vocabulary, processor.feature_extractor, arguments.seed)
        loader = DataLoader(
            Examples(source, first, stage.steps * stage.batch_size),
            batch_size=stage.batch_size,
            num_workers=arguments.workers,
            collate_fn=BatchCollator(processor, vocabulary, stage.caption_share, stage.label_weight > 0),
            prefetch_factor=4 if arguments.workers else None,
        )
        first += stage.steps * stage.batch_size
        freeze(training_model, stage.frozen)
        optimizer = torch.optim.AdamW(
            parameter_groups(training_model, stage, arguments.weight_decay), betas=(0.9, 0.98), eps=1e-6
        )
        peaks = [group["lr"] for group in optimizer.param_groups]
        training_model.train()
        training_model.model.text_model.eval()  # attention dropout would also cost its fast path
        stage_started = time.monotonic()
        bar = tqdm(loader, desc=f"stage {number + 1}", disable=not accelerator.is_main_process)
        for step, batch in enumerate(bar):
            progress = step / stage.steps
            if stage.minutes:
                progress = max(progress, (time.monotonic() - stage_started) / (60 * stage.minutes))
            if progress >= 1:
                break
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rate_factor(step, stage, progress)
            batch = {
                key: value.to(accelerator.device, non_blocking=True) if torch.is_tensor(value) else value
                for key, value in batch.items()
            }
            try:
                with accelerator.autocast():
                    losses = training_model(
                        prepare(batch, processor.feature_extractor, arguments.audio_augmentation), stage
                    )
            except Exception as error:
                error.add_note(f"in step {step} of stage {number + 1}; rows: {', '.join(batch['id'])}")
                raise
            loss = sum(getattr(stage, f"{name}_weight") * value for name, value in losses.items())
            accelerator.backward(loss)
            norm = nn.utils.clip_grad_norm_(training_model.parameters(), arguments.gradient_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            update_average(average, training_model.model, min(arguments.average_decay, (step + 10) / (step + 100)))
            if step % arguments.log_steps == 0 or step == stage.steps - 1:
                line = {"stage": number + 1, "step": step, "seconds": round(time.monotonic() - started, 1)}
                line |= {name: round(value.item(), 4) for name, value in losses.items()}
                line |= {"gradient_norm": round(float(norm), 3), "scale": round(model.logit_scale.weight.item(), 3)}
                log.write(json.dumps(line) + "\n")
                log.flush()
                bar.set_postfix({name: value for name, value in line.items() if name in losses})
            if time.monotonic() - saved > 60 * arguments.save_minutes:
                save_checkpoint(model, processor, average, output / "checkpoint")
                saved = time.monotonic()
    save_checkpoint(model, processor, average, output / "checkpoint")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="YAML file with the fields of TrainingArguments")
    train(TrainingArguments.from_yaml(parser.parse_args().config))


if __name__ == "__main__":
    main()
