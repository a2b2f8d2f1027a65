"""A run, made from its arguments: corpus, model, batches, gradients."""

import random
from functools import lru_cache

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader

from modeling_pianobind import PianoBindModel, PianoBindProcessor, default_checkpoint
from modeling_pianobind.towers_pianobind import masked_mean

from ..data.arguments import StageArguments, TrainingArguments
from ..data.audio_bank import AudioBank
from ..data.captions import fact_wordings
from ..data.dataset import WindowSampler
from ..data.mel_rendering import MelInstrument, mel_instruments
from ..data.rendering import make_instruments
from ..data.score_pairs import open_score_pairs
from ..data.sources import TrainingCorpus
from .adapters import add_adapter, add_text_adapter
from .batches import BatchCollator, StepNumbers, make_loader, on_device
from .distributed import average_gradients
from .gradient_cache import step_gradients
from .objective import TrainingModel
from .optimization import MovingAverage, freeze, parameter_groups

DEFAULT = "default"
TEXTS_AT_ONCE = 256
BETAS, EPSILON = (0.9, 0.98), 1e-6


def make_accelerator(arguments: TrainingArguments) -> Accelerator:
    """The accelerator of a run; without a GPU `cpu=True` is needed, or the processes would not form a group."""
    cpu = not torch.accelerator.is_available()
    return Accelerator(cpu=cpu, log_with=arguments.tracker or None, project_dir=arguments.output)


class Run:
    """One run: its data and model, opened and made by its arguments."""

    def __init__(self, arguments: TrainingArguments, accelerator: Accelerator):
        self.arguments, self.accelerator = arguments, accelerator
        set_seed(arguments.seed)
        checkpoint = default_checkpoint() if arguments.checkpoint == DEFAULT else arguments.checkpoint
        self.processor = PianoBindProcessor.from_pretrained(checkpoint)
        model = PianoBindModel.from_pretrained(checkpoint, dtype=torch.float32)
        for tower in (model.audio_model, model.midi_model):
            for module in tower.modules() if tower is not None else ():
                if isinstance(module, nn.Dropout):
                    module.p = arguments.dropout
        if arguments.lora_rank:
            add_adapter(model, arguments)
        elif arguments.text_lora_rank and not arguments.train_text_tower and model.text_model is not None:
            add_text_adapter(model, arguments.text_lora_rank)
        self.corpus = TrainingCorpus.open(arguments.corpus, arguments.source_weights, fact_share=arguments.fact_share)
        opened = [part.corpus for part in self.corpus.parts]
        self.score_pairs = open_score_pairs(arguments.score_folder, opened) if arguments.score_folder else {}
        queues = {
            name: max(getattr(stage, name) for stage in arguments.stages)
            for name in ("view_queue", "audio_midi_queue")
        }
        is_label = torch.from_numpy(self.corpus.vocabulary.is_label)
        self.model = TrainingModel(model, is_label, **queues).to(accelerator.device)
        freeze(self.model, arguments)
        self.average = MovingAverage(self.model.model, arguments.ema_decay)
        self.instruments = make_instruments(arguments.instruments)
        if arguments.mel_rendering:
            self.instruments = self._mel_instruments()
        # Successive stages on one bank share it, and what a frozen tower made of it.
        self.open_bank = lru_cache(maxsize=1)(self._open_bank)
        self.embedded_bank = lru_cache(maxsize=1)(self._embedded_bank)
        self.embedded_texts = lru_cache(self._embedded_texts)
        set_seed(arguments.seed + accelerator.process_index)  # augmentation on the device differs between processes

    def sampler(self, stage: StageArguments, corpus: TrainingCorpus) -> WindowSampler:
        arguments = self.arguments
        return WindowSampler(
            corpus=corpus,
            processor=self.processor,
            batch_size=stage.batch_size,
            augmentation=arguments.augmentation,
            instruments=self.instruments,
            audio_share=stage.audio_share,
            hears_recordings=self.model.needs("audio", stage) and self.model.model.audio_model is not None,
            recording_semitones=arguments.recording_semitones,
            given_caption_share=arguments.given_caption_share,
            view_share=stage.view_share if self.model.needs("view", stage) else 0.0,
            score_pairs=self.score_pairs,
            windows_per_piece=stage.windows_per_piece,
            max_notes=min(self.processor.midi_processor.max_notes, arguments.max_notes),
            seed=arguments.seed,
        )

    def loader(self, number: int, first_step: int = 0) -> DataLoader:
        """The batches of stage `number`, counted from 0."""
        arguments, stage = self.arguments, self.arguments.stages[number]
        audio_midi = self.model.all_losses["audio_midi"]
        audio_midi.bank = None
        if stage.bank:
            source = self.open_bank(stage.bank)
            if stage.compares_whole_bank:
                audio_midi.bank = self.embedded_bank(stage.bank)
        else:
            source = self.sampler(stage, self.corpus)
        for loss in self.model.used_losses(stage):
            if loss.texts_of and loss.texts is None:
                loss.texts = self.embedded_texts(loss.texts_of)
        if "midi" not in stage.frozen:
            self.embedded_bank.cache_clear()  # this stage changes the tower
        collator = BatchCollator(
            processor=self.processor,
            vocabulary=self.corpus.vocabulary,
            batch_size=stage.batch_size,
            caption_share=stage.caption_share,
            labels=self.model.needs("label", stage),
            masked_notes=self.model.needs("masked_note", stage),
        )
        numbers = StepNumbers(
            first_example=sum(earlier.steps * earlier.batch_size for earlier in arguments.stages[:number]),
            first_step=first_step,
            steps=stage.steps,
            batch_size=stage.batch_size,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        return make_loader(source, numbers, collator, arguments.workers)

    def _mel_instruments(self) -> list[MelInstrument]:
        """The run's instruments by their spectrograms, made here so that workers share them."""
        arguments, extractor = self.arguments, self.processor.feature_extractor
        made = mel_instruments(arguments.instruments, self.instruments, extractor, arguments.mel_rendering)
        for instrument in made:
            instrument.notes  # noqa: B018
        return made

    @torch.no_grad()
    def _embedded_texts(self, kind: str) -> torch.Tensor:
        """What the frozen text tower makes of each wording of facts or works: `(facts or works, wordings, width)`."""
        wordings = fact_wordings(self.corpus.vocabulary) if kind == "facts" else self._work_wordings()
        return self._pooled_texts([text for texts in wordings for text in texts]).unflatten(0, (len(wordings), -1))

    def _work_wordings(self) -> list[list[str]]:
        """The captions of each known work, and its tags, all and some of them."""
        rng, texts = random.Random(self.arguments.seed), []
        for row in self.corpus.rows_with_works():
            tags, captions = row["work"]
            parts = [", ".join(rng.sample(tags, min(count, len(tags)))) for count in (len(tags), 3, 2)]
            texts.append([*captions, *parts])
        return texts

    def _pooled_texts(self, texts: list[str]) -> torch.Tensor:
        """The text tower's mean over the tokens of each text, before the projection: `(texts, width)`."""
        tower = self.model.model.text_model.eval()
        pooled = torch.empty(len(texts), tower.config.hidden_size, device=self.accelerator.device)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            places = order[first : first + TEXTS_AT_ONCE]
            tokens = self.processor.tokenize([texts[place] for place in places], return_tensors="pt")
            tokens = tokens.to(self.accelerator.device)
            with self.accelerator.autocast():
                hidden = tower(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])[0]
            pooled[places] = masked_mean(hidden.float(), tokens["attention_mask"])
        return pooled

    def _open_bank(self, folder: str) -> AudioBank:
        return AudioBank(folder, self.corpus.vocabulary, self.processor.feature_extractor, self.arguments.seed)

    def _embedded_bank(self, folder: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The MIDI embedding and the song of every window of a bank: minutes, for a large one."""
        bank = self.open_bank(folder)
        song = torch.from_numpy(bank.arrays["song"]).to(self.accelerator.device)
        return bank.embed_midi(self.model.model.eval(), self.processor).clone(), song

    def optimizer(self, stage: StageArguments) -> AcceleratedOptimizer:
        """AdamW on what a stage trains; the one that the accelerator held before is given up."""
        freeze(self.model, self.arguments, stage)
        self.accelerator.free_memory()
        groups = parameter_groups(self.model, stage, self.arguments.weight_decay)
        return self.accelerator.prepare(torch.optim.AdamW(groups, betas=BETAS, eps=EPSILON))

    def gradients(self, batch: dict, stage: StageArguments) -> dict[str, torch.Tensor]:
        """The gradients of one batch, over all processes; returns its losses."""
        extractor = self.processor.feature_extractor
        blocks, known = on_device(batch, self.accelerator.device, extractor, self.arguments.audio_augmentation)
        needs_midi = self.model.needs("midi", stage) and not stage.compares_whole_bank
        blocks = {name: block for name, block in blocks.items() if name != "midi" or needs_midi}
        losses = step_gradients(
            self.model, blocks, known, stage, self.arguments.mini_batch_size,
            self.accelerator.backward, self.accelerator.autocast,
        )  # fmt: skip
        average_gradients(self.model.parameters())
        return losses

    def set_modes(self) -> None:
        """Dropout in the towers that have some; none in the text tower, where it would also cost its fast path."""
        self.model.train()
        if self.model.model.text_model is not None:
            self.model.model.text_model.eval()


__all__ = ["Run", "make_accelerator"]
