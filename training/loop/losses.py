"""The losses of a run, one class each. `make_losses` lists them; a stage's `NAME_weight` says how much each counts.

A new loss is a class in this file, an entry in `make_losses` and a weight in `StageArguments`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from modeling_pianobind import PianoBindModel
from modeling_pianobind.modeling_pianobind import LogitScale, contrastive_loss

from ..data.arguments import StageArguments
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
        known (`dict[str, torch.Tensor]`): what is known of the examples (song, facts, captions).
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


class Loss(nn.Module):
    """A loss with its parameters and its queue.

    Attributes:
        name (`str`): in the log; `StageArguments.NAME_weight` is its weight.
        block (`str`): where set, the loss is made with the hidden states of this block, in `sums`; `forward` then
            only adds them up.
    """

    name = ""
    block = ""

    def forward(self, compared: Comparison) -> torch.Tensor | None:
        """The loss, not weighted; None where the batch has nothing that it compares."""
        if self.name not in compared.sums:
            return None
        total, count = compared.sums[self.name].sum(0)
        return total / count.clamp(min=1)


class CaptionLoss(Loss):
    """Contrastive loss of pieces and captions; every caption that holds is a positive."""

    def __init__(self, tower: str):
        super().__init__()
        self.tower, self.name = tower, f"{tower}_text"

    def forward(self, compared):
        text, embeds = compared.embeds.get("text"), compared.embeds.get(self.tower)
        if text is None or embeds is None:
            return None
        positives, ignored = text_relations(compared.known, compared.rows["text"])
        own = compared.rows[self.tower]
        return contrastive_loss(compared.model.logit_scale(embeds @ text.T), positives[own], ignored[own])


class LabelLoss(Loss):
    """Contrastive loss of pieces and a short text of every fact that holds for a piece of the batch."""

    name = "label"

    def forward(self, compared):
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
    """Sigmoid loss of every fact of the vocabulary on windows, their other views, and the means of pieces.

    Attributes:
        texts (`torch.Tensor` of shape `(facts, wordings, width)`): what a frozen text tower makes of each wording.
    """

    name = "fact"

    def __init__(self, is_label: torch.Tensor):
        super().__init__()
        self.head, self.texts = FactHead(is_label), None

    def forward(self, compared):
        parts = []
        for name in [*compared.trained(), *(["view"] if "view" in compared.embeds else [])]:
            own, embeds, known = compared.rows[name], compared.embeds[name], compared.known
            true, false = known["true"][own] + GENERATED_TRUTH * known["generated"][own], known["false"][own]
            if name == "view":  # played in another way, so only facts of labels hold for both
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

    Attributes:
        texts (`torch.Tensor` of shape `(facts, wordings, width)`): what a frozen text tower makes of each wording.
    """

    name = "fact_score"
    decay = 0.99  # of the running variance

    def __init__(self, facts: int):
        super().__init__()
        self.texts = None
        self.register_buffer("variance", torch.full((facts,), torch.nan))

    def forward(self, compared):
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
    """Contrastive loss of windows and generated captions of their works; equivalent captions are not negatives.

    Attributes:
        texts (`torch.Tensor` of shape `(rows, captions, width)`): what a frozen text tower makes of each caption.
    """

    name = "work"

    def __init__(self):
        super().__init__()
        self.texts = None

    def forward(self, compared):
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

    Part of a run's state, so that a resumed one goes on alike.
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


def queued_loss(scale, embeds, midi, rows, midi_rows, song, queue: WindowQueue):
    """Contrastive loss of embeddings and the MIDI of their windows; negatives are in the batch and in earlier batches.

    Other windows of its song do not count.
    """
    items, songs = torch.cat([midi, queue.embeds]), torch.cat([song[midi_rows], queue.song])
    queued = midi_rows.new_full((len(queue.embeds),), EMPTY)
    own = rows[:, None] == torch.cat([midi_rows, queued])[None]
    ignored = same_song(song[rows], songs) | (songs == EMPTY)[None]
    loss = contrastive_loss(scale(embeds @ items.T), own, ignored)
    queue.put(midi, song[midi_rows])
    return loss


class ViewLoss(Loss):
    """Contrastive loss of windows and the same notes played in another way."""

    name = "view"

    def __init__(self, queue_size: int, dim: int):
        super().__init__()
        self.scale, self.queue = LogitScale(ALIGNMENT_LOGIT_SCALE), WindowQueue(queue_size, dim)

    def forward(self, compared):
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

    name = "audio_midi"

    def __init__(self, queue_size: int, dim: int):
        super().__init__()
        self.scale, self.queue = LogitScale(ALIGNMENT_LOGIT_SCALE), WindowQueue(queue_size, dim)
        self.bank = None

    def forward(self, compared):
        audio, midi = compared.embeds.get("audio"), compared.embeds.get("midi")
        if audio is None or midi is None:
            return None
        rows, song = compared.rows, compared.known["song"]
        loss = queued_loss(self.scale, audio, midi, rows["audio"], rows["midi"], song, self.queue)
        if self.bank is None:
            return loss
        return (loss + self.among_bank(audio, compared.known["window"][rows["audio"]], song[rows["audio"]])) / 2

    def among_bank(self, audio, window, song):
        """Negatives are the MIDI of all windows of the bank except those of the same song."""
        embeds, songs = self.bank
        other = same_song(song, songs).scatter(1, window[:, None], False)
        return F.cross_entropy(self.scale(audio @ embeds.T).masked_fill(other, float("-inf")), window)


class DistillationLoss(Loss):
    """Distance of audio to the MIDI of its window."""

    name = "distillation"

    def forward(self, compared):
        audio, midi = compared.embeds.get("audio"), compared.embeds.get("midi")
        if audio is None or midi is None:
            return None
        audio_rows, midi_rows = same_example(compared.rows["audio"], compared.rows["midi"])
        agreement = (audio[audio_rows] * midi[midi_rows].detach()).sum(1)
        return (1 - agreement).sum() / max(1, len(audio_rows))


class MaskedNoteLoss(Loss):
    """Prediction of masked notes from the notes around them."""

    name = block = "masked_note"

    def __init__(self, config):
        super().__init__()
        self.head = MaskedNoteHeads(config.hidden_size, config.field_sizes, config.notes_per_token)

    def sums(self, model, midi_ids, midi_attention_mask, masked):
        hidden = model.midi_model(self.head.replace(midi_ids, masked), midi_attention_mask)
        return self.head(hidden, midi_ids, masked)


class StatisticsLoss(Loss):
    """Prediction of a window's statistics from its embedding."""

    name, block = "statistics", "midi"

    def __init__(self, model):
        super().__init__()
        self.head = StatisticsHead(model.config.projection_dim, model.midi_model.statistics)

    def sums(self, model, embeds, midi_ids, midi_attention_mask):
        tower = model.midi_model
        measured = tower.statistics.measure(midi_ids, midi_attention_mask, tower.onset_seconds(midi_ids))
        return self.head(embeds, measured)


class OnsetLoss(Loss):
    """Prediction of onsets and held keys from audio."""

    name, block = "onset", "audio"

    def __init__(self, model):
        super().__init__()
        config = model.config.audio_config
        self.token_seconds = config.frame_seconds * model.audio_model.stride
        self.head = OnsetHead(config.hidden_size, max(1, round(self.token_seconds / SLOT_SECONDS)))

    def sums(self, hidden, token_mask, block):
        targets = self.head.targets(
            block["keys"], block["onsets"], block["holds"], hidden.shape[1], self.token_seconds
        )
        return self.head(hidden, targets, token_mask * block["has_notes"][:, None])


def make_losses(model: PianoBindModel, is_label=None, view_queue: int = 0, audio_midi_queue: int = 0) -> nn.ModuleDict:
    """All losses that a model's towers allow, by name.

    Args:
        is_label (`torch.Tensor` of shape `(facts,)`, *optional*): of the vocabulary; none for no loss on facts.
        view_queue, audio_midi_queue (`int`): windows of earlier batches that these losses remember.
    """
    dim = model.config.projection_dim
    losses = [CaptionLoss("midi"), CaptionLoss("audio"), LabelLoss(), WorkLoss(), DistillationLoss()]
    losses += [ViewLoss(view_queue, dim), AudioMidiLoss(audio_midi_queue, dim)]
    if is_label is not None:
        losses += [FactLoss(is_label), FactScoreLoss(len(is_label))]
    if model.midi_model is not None:
        losses.append(MaskedNoteLoss(model.config.midi_config))
        if model.config.midi_config.note_statistics:
            losses.append(StatisticsLoss(model))
    if model.audio_model is not None and hasattr(model.audio_model, "stride"):
        losses.append(OnsetLoss(model))
    return nn.ModuleDict({loss.name: loss for loss in losses})


__all__ = ["Comparison", "Loss", "WindowQueue", "make_losses"]
