"""The losses of a run, one class each, in the list `LOSSES`; the field `NAME_weight` of a stage is a loss's weight.

A new loss is a class in this file, its entry in `LOSSES`, and its weight in `StageArguments`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from modeling_pianobind import PianoBindMidiConfig, PianoBindModel
from modeling_pianobind.modeling_pianobind import LogitScale, contrastive_loss

from ..data.arguments import StageArguments, weight_field
from .heads import FactHead, MaskedNoteHeads, OnsetHead, StatisticsHead
from .relations import caption_relations, mean_by_piece, same_example, same_song, text_relations

ALIGNMENT_LOGIT_SCALE = math.log(1 / 0.05)
SLOT_SECONDS = 0.05  # time resolution of the onsets that the audio tower predicts
GENERATED_TRUTH = 0.5  # weight of facts generated for a work; facts of labels have 1
ALIKE_COSINE = 0.7  # cosine of equivalent captions by the pretrained encoder
MIN_SCORE_VARIANCE = 1e-4
EMPTY = -1  # song of an empty place in a queue


@dataclass
class Comparison:
    """Inputs of the losses: the rows of all processes.

    Attributes:
        embeds (`dict[str, torch.Tensor]`): unit rows of each block, `(rows, dim)`: midi, view, audio, text, label.
        sums (`dict[str, torch.Tensor]`): sums and counts `(parts, 2)` of the losses that are made with a block.
        rows (`dict[str, torch.Tensor]`): the example of each row of a block.
        known (`dict[str, torch.Tensor]`): labels of the examples (song, facts, captions).
    """

    model: PianoBindModel
    stage: StageArguments
    embeds: dict[str, torch.Tensor]
    sums: dict[str, torch.Tensor]
    rows: dict[str, torch.Tensor]
    known: dict[str, torch.Tensor]

    def trained(self) -> list[str]:
        """The towers among audio and MIDI that this batch trains."""
        return [name for name in ("midi", "audio") if name in self.embeds and name not in self.stage.frozen]


@dataclass
class LossParts:
    """What losses are made of.

    Attributes:
        model (`PianoBindModel`): whose towers they train.
        is_label (`torch.Tensor` of shape `(facts,)`, *optional*): of the vocabulary; None for no loss on facts.
        view_queue, audio_midi_queue (`int`): windows of earlier batches that these losses remember.
    """

    model: PianoBindModel
    is_label: torch.Tensor | None = None
    view_queue: int = 0
    audio_midi_queue: int = 0


class Loss(nn.Module):
    """A loss with its parameters and its queue.

    Attributes:
        name (`str`): in the log; `weight_field` is the field of `StageArguments` with its weight.
        blocks (`tuple[str, ...]`): the blocks of a batch that it compares: midi, view, audio, text, label,
            masked_note.
        compares_pieces (`bool`): whether it also compares the pieces of every tower that a stage trains.
        block (`str`): where set, the loss is made with the hidden states of this block, in `sums`; `forward` then
            only adds them up.
        head (`nn.Module`): of some losses; what predicts from the towers' outputs, and is not part of the model.
        texts_of (`str`): "facts" or "works" where it compares with their texts; a run then fills `texts`.
        texts (`torch.Tensor` of shape `(facts or works, wordings, width)` or None): what a frozen text tower makes of
            each wording.
    """

    name = ""
    blocks: tuple[str, ...] = ()
    compares_pieces = False
    block = ""
    head: nn.Module  # without a value here, which would hide the module of an instance
    texts_of = ""
    texts: torch.Tensor | None = None

    @classmethod
    def of(cls, parts: LossParts) -> "Loss | None":
        """The loss of a model; None where the model lacks what it needs."""
        return cls()

    @property
    def weight_field(self) -> str:
        return weight_field(self.name)

    def needs(self, block: str, stage: StageArguments) -> bool:
        """Whether a stage has to embed a block of a batch for this loss."""
        return block in self.blocks or (self.compares_pieces and block == "midi" and "midi" not in stage.frozen)

    def forward(self, compared: Comparison) -> torch.Tensor | None:
        """The loss, not weighted; None where the batch has nothing that it compares."""
        if self.name not in compared.sums:
            return None
        total, count = compared.sums[self.name].sum(0)
        return total / count.clamp(min=1)


class CaptionLoss(Loss):
    """Contrastive loss of pieces and captions; every caption that holds is a positive."""

    tower = ""

    def forward(self, compared: Comparison) -> torch.Tensor | None:
        text, embeds = compared.embeds.get("text"), compared.embeds.get(self.tower)
        if text is None or embeds is None:
            return None
        positives, ignored = text_relations(compared.known, compared.rows["text"])
        own = compared.rows[self.tower]
        return contrastive_loss(compared.model.logit_scale(embeds @ text.T), positives[own], ignored[own])


class MidiTextLoss(CaptionLoss):
    """`CaptionLoss` of MIDI."""

    name, tower, blocks = "midi_text", "midi", ("midi", "text")


class AudioTextLoss(CaptionLoss):
    """`CaptionLoss` of audio."""

    name, tower, blocks = "audio_text", "audio", ("audio", "text")


class LabelLoss(Loss):
    """Contrastive loss of pieces and a short text of every fact that holds for a piece of the batch."""

    name, blocks, compares_pieces = "label", ("label",), True

    def forward(self, compared: Comparison) -> torch.Tensor | None:
        if "label" not in compared.embeds:
            return None
        facts, known, rows = compared.known["label_facts"], compared.known, compared.rows
        claimed = F.one_hot(facts, known["true"].shape[1]).float()
        positives, ignored = caption_relations(claimed, known["true"], known["false"])
        earlier = (facts[:, None] == facts[None]).tril(-1).any(1)  # another process words the same fact
        positives, ignored = positives & ~earlier, ignored | earlier
        scale, texts = compared.model.logit_scale, compared.embeds["label"]
        return sum(
            contrastive_loss(scale(compared.embeds[name] @ texts.T), positives[rows[name]], ignored[rows[name]])
            for name in compared.trained()
        )


class FactLoss(Loss):
    """Sigmoid loss of every fact of the vocabulary on windows, their other views, and the means of pieces."""

    name, compares_pieces, texts_of = "fact", True, "facts"

    def __init__(self, is_label: torch.Tensor):
        super().__init__()
        self.head = FactHead(is_label)

    @classmethod
    def of(cls, parts: LossParts) -> "FactLoss | None":
        return None if parts.is_label is None else cls(parts.is_label)

    def forward(self, compared: Comparison) -> torch.Tensor | None:
        parts = []
        for name in [*compared.trained(), *(["view"] if "view" in compared.embeds else [])]:
            own, embeds, known = compared.rows[name], compared.embeds[name], compared.known
            true, false = known["true"][own] + GENERATED_TRUTH * known["generated"][own], known["false"][own]
            if name == "view":  # an augmented view may change measured facts, so only facts of labels hold for both
                true, false = true * self.head.is_label, false * self.head.is_label
            parts.append((embeds, true, false))
            if compared.stage.windows_per_piece > 1 and name != "view":
                parts.append(mean_by_piece(embeds, known["piece"][own], true, false))
        if not parts:
            return None
        chosen = any_wording(self.texts)
        embeds, true, false = (torch.cat(part) for part in zip(*parts, strict=True))
        return self.head(embeds, compared.model._project("text", chosen), true, false)


def any_wording(texts: torch.Tensor) -> torch.Tensor:
    """A random wording of each fact, `(facts, wordings, width)` -> `(facts, width)`."""
    wording = torch.randint(texts.shape[1], (len(texts), 1, 1), device=texts.device)
    return texts.gather(1, wording.expand(-1, 1, texts.shape[2]))[:, 0]


class FactScoreLoss(Loss):
    """Audio has the same cosine with the text of each fact as the MIDI of its window.

    The distance between two embeddings weighs all directions equally; this loss weighs those that separate texts. It
    is the mean squared difference of the cosines, divided by the variance of those of the MIDI.
    """

    name, blocks, texts_of = "fact_score", ("audio", "midi"), "facts"
    decay = 0.99  # of the running variance

    def __init__(self, facts: int):
        super().__init__()
        self.register_buffer("variance", torch.full((facts,), torch.nan))

    @classmethod
    def of(cls, parts: LossParts) -> "FactScoreLoss | None":
        return None if parts.is_label is None else cls(len(parts.is_label))

    def forward(self, compared: Comparison) -> torch.Tensor | None:
        audio, midi = compared.embeds.get("audio"), compared.embeds.get("midi")
        if audio is None or midi is None:
            return None
        audio_rows, midi_rows = same_example(compared.rows["audio"], compared.rows["midi"])
        if not len(audio_rows):
            return None
        texts = compared.model._project("text", any_wording(self.texts))
        expected = (midi @ texts.T).detach()
        if self.training and len(expected) > 1:
            variance = expected.float().var(0)
            self.variance.copy_(
                torch.where(self.variance.isnan(), variance, self.variance.lerp(variance, 1 - self.decay))
            )
        error = (audio[audio_rows] @ texts.T - expected[midi_rows]).float().square()
        return (error / self.variance.clamp(min=MIN_SCORE_VARIANCE)).mean()


class WorkLoss(Loss):
    """Contrastive loss of windows and generated captions of their works; equivalent captions are not negatives."""

    name, compares_pieces, texts_of = "work", True, "works"

    def forward(self, compared: Comparison) -> torch.Tensor | None:
        losses = []
        for name in compared.trained():
            own, known = compared.rows[name], compared.known
            described = (known["work"][own] >= 0).nonzero()[:, 0]
            if len(described) < 2:
                continue
            work, song = known["work"][own][described], known["song"][own]
            texts = self.texts[work, torch.randint(self.texts.shape[1], (len(work),), device=work.device)]
            raw = F.normalize(texts, dim=-1)
            positives = torch.zeros(len(own), len(work), dtype=torch.bool, device=work.device)
            positives[described, torch.arange(len(work), device=work.device)] = True
            ignored = same_song(song, song[described])
            ignored[described] |= raw @ raw.T > ALIKE_COSINE
            logits = compared.model.logit_scale(compared.embeds[name] @ compared.model._project("text", texts).T)
            losses.append(contrastive_loss(logits, positives, ignored & ~positives))
        return sum(losses) if losses else None


class WindowQueue(nn.Module):
    """The MIDI embeddings of windows of earlier batches, and their songs; the newest take the places of the oldest.

    Saved in a run's state, so that a resumed run has the same negatives.
    """

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("embeds", torch.zeros(size, dim))
        self.register_buffer("song", torch.full((size,), EMPTY))
        self.register_buffer("place", torch.tensor(0))

    def put(self, embeds: torch.Tensor, song: torch.Tensor) -> None:
        """Takes in a batch."""
        size = len(self.embeds)
        count = min(len(embeds), size)
        if count:
            places = (self.place + torch.arange(count, device=embeds.device)) % size
            self.embeds[places] = embeds[:count].detach().to(self.embeds.dtype)
            self.song[places] = song[:count]
            self.place.copy_((self.place + count) % size)


def queued_loss(
    scale: LogitScale,
    embeds: torch.Tensor,
    midi: torch.Tensor,
    rows: torch.Tensor,
    midi_rows: torch.Tensor,
    song: torch.Tensor,
    queue: WindowQueue,
) -> torch.Tensor:
    """Contrastive loss of embeddings and the MIDI of their windows; negatives are in the batch and in earlier batches.

    Other windows of a song are not negatives of it.

    Args:
        embeds (`torch.Tensor` of shape `(rows, dim)`), midi (`(MIDI rows, dim)`): unit rows.
        rows (`torch.Tensor` of shape `(rows,)`), midi_rows (`(MIDI rows,)`): the example of each row.
        song (`torch.Tensor` of shape `(examples,)`): the song of each example.
    """
    items, songs = torch.cat([midi, queue.embeds]), torch.cat([song[midi_rows], queue.song])
    queued = midi_rows.new_full((len(queue.embeds),), EMPTY)
    own = rows[:, None] == torch.cat([midi_rows, queued])[None]
    ignored = same_song(song[rows], songs) | (songs == EMPTY)[None]
    loss = contrastive_loss(scale(embeds @ items.T), own, ignored)
    queue.put(midi, song[midi_rows])
    return loss


class ViewLoss(Loss):
    """Contrastive loss of windows and augmented views of the same notes."""

    name, blocks = "view", ("midi", "view")

    def __init__(self, queue_size: int, dim: int):
        super().__init__()
        self.scale, self.queue = LogitScale(ALIGNMENT_LOGIT_SCALE), WindowQueue(queue_size, dim)

    @classmethod
    def of(cls, parts: LossParts) -> "ViewLoss":
        return cls(parts.view_queue, parts.model.config.projection_dim)

    def forward(self, compared: Comparison) -> torch.Tensor | None:
        if "view" not in compared.embeds:
            return None
        rows, song = compared.rows, compared.known["song"]
        views, midi = compared.embeds["view"], compared.embeds["midi"]
        return queued_loss(self.scale, views, midi, rows["view"], rows["midi"], song, self.queue)


class AudioMidiLoss(Loss):
    """Contrastive loss of audio and the MIDI of its window: in the batch and a queue, or among all windows of a bank.

    Attributes:
        bank (`tuple[torch.Tensor, torch.Tensor]`, *optional*): embeddings and songs of a bank's MIDI.
    """

    name, blocks = "audio_midi", ("audio", "midi")

    def __init__(self, queue_size: int, dim: int):
        super().__init__()
        self.scale, self.queue = LogitScale(ALIGNMENT_LOGIT_SCALE), WindowQueue(queue_size, dim)
        self.bank: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def of(cls, parts: LossParts) -> "AudioMidiLoss":
        return cls(parts.audio_midi_queue, parts.model.config.projection_dim)

    def forward(self, compared: Comparison) -> torch.Tensor | None:
        audio, midi = compared.embeds.get("audio"), compared.embeds.get("midi")
        if audio is None or midi is None:
            return None
        rows, song = compared.rows, compared.known["song"]
        loss = queued_loss(self.scale, audio, midi, rows["audio"], rows["midi"], song, self.queue)
        if self.bank is None:
            return loss
        return (loss + self.among_bank(audio, compared.known["window"][rows["audio"]], song[rows["audio"]])) / 2

    def among_bank(self, audio: torch.Tensor, window: torch.Tensor, song: torch.Tensor) -> torch.Tensor:
        """Negatives are the MIDI of all windows of the bank except those of the same song."""
        embeds, songs = self.bank
        other = same_song(song, songs).scatter(1, window[:, None], False)
        return F.cross_entropy(self.scale(audio @ embeds.T).masked_fill(other, float("-inf")), window)


class DistillationLoss(Loss):
    """Distance of audio to the MIDI of its window."""

    name, blocks = "distillation", ("audio", "midi")

    def forward(self, compared: Comparison) -> torch.Tensor | None:
        audio, midi = compared.embeds.get("audio"), compared.embeds.get("midi")
        if audio is None or midi is None:
            return None
        audio_rows, midi_rows = same_example(compared.rows["audio"], compared.rows["midi"])
        agreement = (audio[audio_rows] * midi[midi_rows].detach()).sum(1)
        return (1 - agreement).sum() / max(1, len(audio_rows))


class MaskedNoteLoss(Loss):
    """Prediction of masked notes from the notes around them."""

    name = block = "masked_note"
    blocks = ("masked_note",)

    def __init__(self, config: PianoBindMidiConfig):
        super().__init__()
        self.head = MaskedNoteHeads(config.hidden_size, config.field_sizes, config.notes_per_token)

    @classmethod
    def of(cls, parts: LossParts) -> "MaskedNoteLoss | None":
        return None if parts.model.midi_model is None else cls(parts.model.config.midi_config)

    def sums(
        self, model: PianoBindModel, midi_ids: torch.Tensor, midi_attention_mask: torch.Tensor, masked: torch.Tensor
    ) -> torch.Tensor:
        """Sum and count over masked notes, `(2,)`."""
        hidden = model.midi_model(self.head.replace(midi_ids, masked), midi_attention_mask)
        return self.head(hidden, midi_ids, masked)


class StatisticsLoss(Loss):
    """Prediction of a window's statistics from its embedding."""

    name, block, blocks = "statistics", "midi", ("midi",)

    def __init__(self, model: PianoBindModel):
        super().__init__()
        self.head = StatisticsHead(model.config.projection_dim, model.midi_model.statistics)

    @classmethod
    def of(cls, parts: LossParts) -> "StatisticsLoss | None":
        has_statistics = parts.model.midi_model is not None and parts.model.config.midi_config.note_statistics
        return cls(parts.model) if has_statistics else None

    def sums(
        self, model: PianoBindModel, embeds: torch.Tensor, midi_ids: torch.Tensor, midi_attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Sum and count over windows, `(2,)`."""
        tower = model.midi_model
        measured = tower.statistics.measure(midi_ids, midi_attention_mask, tower.onset_seconds(midi_ids))
        return self.head(embeds, measured)


class OnsetLoss(Loss):
    """Prediction of onsets and held keys from audio."""

    name, block, blocks = "onset", "audio", ("audio",)

    def __init__(self, model: PianoBindModel):
        super().__init__()
        config = model.config.audio_config
        self.token_seconds = config.frame_seconds * model.audio_model.stride
        self.head = OnsetHead(config.hidden_size, max(1, round(self.token_seconds / SLOT_SECONDS)))

    @classmethod
    def of(cls, parts: LossParts) -> "OnsetLoss | None":
        tower = parts.model.audio_model
        return cls(parts.model) if tower is not None and hasattr(tower, "stride") else None

    def sums(self, hidden: torch.Tensor, token_mask: torch.Tensor, block: dict[str, torch.Tensor]) -> torch.Tensor:
        """Sum and count over tokens, `(2,)`."""
        targets = self.head.targets(
            block["keys"], block["onsets"], block["holds"], hidden.shape[1], self.token_seconds
        )
        return self.head(hidden, targets, token_mask * block["has_notes"][:, None])


# In this order they are made, and draw their random numbers.
LOSSES: tuple[type[Loss], ...] = (
    MidiTextLoss,
    AudioTextLoss,
    LabelLoss,
    WorkLoss,
    DistillationLoss,
    ViewLoss,
    AudioMidiLoss,
    FactLoss,
    FactScoreLoss,
    MaskedNoteLoss,
    StatisticsLoss,
    OnsetLoss,
)


def make_losses(
    model: PianoBindModel, is_label: torch.Tensor | None = None, view_queue: int = 0, audio_midi_queue: int = 0
) -> nn.ModuleDict:
    """All of `LOSSES` that a model's towers allow, by name; the arguments are those of `LossParts`."""
    parts = LossParts(model, is_label, view_queue, audio_midi_queue)
    made = (loss.of(parts) for loss in LOSSES)
    return nn.ModuleDict({loss.name: loss for loss in made if loss is not None})


__all__ = ["LOSSES", "Comparison", "Loss", "LossParts", "WindowQueue", "make_losses"]
