"""What a run minimises: the towers' outputs for a batch, and the losses between those of all processes."""

import math

import torch
from torch import nn

from modeling_pianobind import PianoBindModel
from modeling_pianobind.modeling_pianobind import LogitScale, contrastive_loss

from ..data.arguments import StageArguments
from .distributed import gather, gather_all
from .losses import (
    FactHead,
    MaskedNoteHeads,
    StatisticsHead,
    StruckKeysHead,
    caption_relations,
    given_caption_relations,
    mean_by_piece,
    mean_of_sums,
    same_song,
)

ALIGNMENT_LOGIT_SCALE = math.log(1 / 0.05)
LENGTH_PARTS = 8
EMPTY = -1
SUMMED = ("masked_note", "struck_keys", "statistics")  # losses that come as sums and counts
# what a batch says of its examples
KNOWN = ("song", "piece", "window", "true", "false", "claimed", "given", "words", "label_facts")


class TrainingModel(nn.Module):
    """The model with what only training needs: heads for notes, and a temperature for audio against MIDI.

    A batch holds blocks of rows by name, each a dict of tensors by the model's argument names: `midi`, `masked_note`,
    `view`, `audio`, `text` and `label`, whichever there are; and beside them what is known of its examples.
    """

    def __init__(self, model: PianoBindModel, queue_size: int = 0):
        super().__init__()
        self.model = model
        self.fact_texts = None  # what a frozen text tower makes of the facts' wordings, `(facts, wordings, width)`
        self.bank = None  # embeddings and songs of a bank's MIDI, where a stage compares with all of it
        # part of a run's state, so that a resumed one goes on alike; no song has the number of an empty place
        self.register_buffer("queue", torch.zeros(queue_size, model.config.projection_dim))
        self.register_buffer("queue_song", torch.full((queue_size,), EMPTY))
        if model.midi_model is not None:
            config = model.config.midi_config
            self.masked_notes = MaskedNoteHeads(config.hidden_size, config.field_sizes, config.notes_per_token)
            if config.note_statistics:
                self.statistics = StatisticsHead(model.config.projection_dim, model.midi_model.statistics)
        if model.audio_model is not None:
            self.struck_keys = StruckKeysHead(model.config.audio_config.hidden_size)
        self.alignment_scale = LogitScale(ALIGNMENT_LOGIT_SCALE)

    def set_facts(self, vocabulary) -> None:
        """Makes the head that tells which facts of a vocabulary hold."""
        self.facts = FactHead(torch.from_numpy(vocabulary.is_label)).to(self.alignment_scale.weight.device)

    def outputs(self, name: str, block: dict, stage: StageArguments) -> dict[str, torch.Tensor]:
        """What the losses need of one block.

        Returns:
            Embeddings `(rows, dim)` by the block's name; sums and counts `(1, 2)` of the losses on notes.
        """
        if name == "audio":
            return self._audio_outputs(block, stage)
        if name == "masked_note":
            ids, mask, masked = block["midi_ids"], block["midi_attention_mask"], block["masked"]
            hidden = self.model.midi_model(self.masked_notes.replace(ids, masked), mask)
            return {"masked_note": self.masked_notes(hidden, ids, masked)[None]}
        tower = "text" if name in ("text", "label") else "midi"
        # short texts of single facts tell the other towers apart, while the captions alone train the text tower
        with torch.set_grad_enabled(torch.is_grad_enabled() and tower not in stage.frozen and name != "label"):
            if tower == "text":
                return {name: self.model.get_text_features(**block)}
            outputs = {name: self.embed_midi_by_length(**block)}
        if name == "midi" and stage.statistics_weight:
            outputs["statistics"] = self.statistics(outputs["midi"], self._measured(**block))[None]
        return outputs

    def _measured(self, midi_ids, midi_attention_mask):
        tower = self.model.midi_model
        return tower.statistics.measure(midi_ids, midi_attention_mask, tower.onset_seconds(midi_ids))

    def _audio_outputs(self, block, stage):
        model, features, mask = self.model, block["input_features"], block["audio_attention_mask"]
        with torch.set_grad_enabled(torch.is_grad_enabled() and "audio" not in stage.frozen):
            hidden = model.audio_model(features, mask)
            outputs = {"audio": model._project("audio", model.audio_model.pool(hidden, mask))}
        if stage.struck_keys_weight:
            token_seconds = model.config.audio_config.frame_seconds * model.audio_model.stride
            targets = self.struck_keys.targets(block["keys"], block["onsets"], hidden.shape[1], token_seconds)
            heard = model.audio_model.token_mask(mask) * block["has_notes"][:, None]
            outputs["struck_keys"] = self.struck_keys(hidden, targets, heard)[None]
        return outputs

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

    def losses(self, outputs: dict[str, torch.Tensor], batch: dict, stage: StageArguments) -> dict[str, torch.Tensor]:
        """The losses by name, not weighted yet; all processes compute them from the rows of all.

        Args:
            outputs: of every block of this process's batch.
            batch: `rows` gives each embedding's example, the other entries are what is known of the examples.
        """
        outputs = gather_all(outputs)
        known = gather_all({name: batch[name] for name in KNOWN if name in batch})
        known |= {name: known[name].float() for name in ("true", "false", "claimed")}
        first = _rows_before(batch)
        rows = gather_all({name: rows + first for name, rows in batch["rows"].items()})
        losses = {name: mean_of_sums(outputs[name]) for name in SUMMED if name in outputs}
        audio, midi, text = (outputs.get(name) for name in ("audio", "midi", "text"))
        if stage.compares_whole_bank:
            midi, rows["midi"] = self.bank[0][known["window"]], torch.arange(len(known["song"]), device=audio.device)

        if text is not None:
            positives, ignored = _text_relations(known, rows["text"])
            for name, embeds in (("midi", midi), ("audio", audio)):
                if embeds is not None and getattr(stage, f"{name}_text_weight"):
                    own = rows[name]
                    logits = self.model.logit_scale(embeds @ text.T)
                    losses[f"{name}_text"] = contrastive_loss(logits, positives[own], ignored[own])
        if "view" in outputs:
            losses["view"] = self._view_loss(outputs["view"], midi, rows, known["song"], stage)
        if audio is not None and midi is not None:
            if stage.audio_midi_weight:
                losses["audio_midi"] = self._alignment_loss(audio, midi, rows["audio"], rows["midi"], known["song"])
            if stage.compares_whole_bank:
                among_all = self._bank_loss(audio, known["window"][rows["audio"]], known["song"][rows["audio"]])
                losses["audio_midi"] = (losses["audio_midi"] + among_all) / 2
            if stage.distillation_weight:
                both = (rows["audio"][:, None] == rows["midi"][None]).nonzero()
                agreement = (audio[both[:, 0]] * midi[both[:, 1]].detach()).sum(1)
                losses["distillation"] = (1 - agreement).sum() / max(1, len(both))
        if stage.fact_weight:
            losses["fact"] = self._fact_loss(outputs, known, rows, stage)
        if "label" in outputs:
            losses["label"] = self._label_loss(outputs, known, rows, stage)
        return losses

    def _alignment_loss(self, embeds, midi, rows, midi_rows, song):
        """Each embedding against the MIDI of the same window; other windows of its song do not count."""
        own = rows[:, None] == midi_rows[None]
        return contrastive_loss(self.alignment_scale(embeds @ midi.T), own, same_song(song[rows], song[midi_rows]))

    def _view_loss(self, views, midi, rows, song, stage):
        """Other views of windows against all windows of the batch, and those of earlier batches."""
        queued = slice(0, stage.view_queue)
        items, songs = torch.cat([midi, self.queue[queued]]), torch.cat([song[rows["midi"]], self.queue_song[queued]])
        nobody = rows["midi"].new_full((len(items) - len(midi),), EMPTY)
        own = rows["view"][:, None] == torch.cat([rows["midi"], nobody])[None]
        ignored = same_song(song[rows["view"]], songs) | (songs == EMPTY)[None]
        if stage.view_queue:
            self.queue[queued] = items[queued].detach()
            self.queue_song[queued] = songs[queued]
        return contrastive_loss(self.alignment_scale(views @ items.T), own, ignored)

    def _bank_loss(self, audio, window, song):
        """Each recording against the MIDI of all windows of the bank but the others of its song."""
        embeds, songs = self.bank
        other = same_song(song, songs).scatter(1, window[:, None], False)
        logits = self.alignment_scale(audio @ embeds.T).masked_fill(other, float("-inf"))
        return torch.nn.functional.cross_entropy(logits, window)

    def _fact_loss(self, outputs, known, rows, stage):
        """Every fact against windows, against their other views, and against the mean of a piece's windows."""
        wording = torch.randint(self.fact_texts.shape[1], (len(self.fact_texts), 1, 1), device=known["true"].device)
        chosen = self.fact_texts.gather(1, wording.expand(-1, 1, self.fact_texts.shape[2]))[:, 0]
        texts = self.model._project("text", chosen)
        parts = []
        for name in ("midi", "view", "audio"):
            if name not in outputs or (name == "audio" and "audio" in stage.frozen):
                continue
            own = rows[name]
            true, false = known["true"][own], known["false"][own]
            if name == "view":  # it is played in another way: only labels hold for both
                true, false = true * self.facts.is_label, false * self.facts.is_label
            parts.append((outputs[name], true, false))
            if stage.windows_per_piece > 1 and name != "view":
                parts.append(mean_by_piece(outputs[name], known["piece"][own], true, false))
        embeds, true, false = (torch.cat(part) for part in zip(*parts, strict=True))
        return self.facts(embeds, texts, true, false)

    def _label_loss(self, outputs, known, rows, stage):
        """Each piece against every single fact that holds for one of the batch."""
        facts = known["label_facts"]
        claimed = torch.nn.functional.one_hot(facts, known["true"].shape[1]).float()
        positives, ignored = caption_relations(claimed, known["true"], known["false"])
        earlier = (facts[:, None] == facts[None]).tril(-1).any(1)  # another process words the same fact
        positives, ignored = positives & ~earlier, ignored | earlier
        compared = [name for name in ("midi", "audio") if name in outputs and name not in stage.frozen]
        return sum(
            contrastive_loss(
                self.model.logit_scale(outputs[name] @ outputs["label"].T), positives[rows[name]], ignored[rows[name]]
            )
            for name in compared
        )


def _text_relations(known, text_rows):
    """`caption_relations` of captions made of facts, `given_caption_relations` of those that people wrote."""
    positives, ignored = caption_relations(known["claimed"], known["true"], known["false"])
    given = known["given"].bool()
    if not given.any():
        return positives, ignored
    own, shared = given_caption_relations(text_rows, known["words"], known["claimed"], known["true"], known["song"])
    return torch.where(given, own, positives), torch.where(given, shared, ignored)


def _rows_before(batch) -> int:
    """How many examples the processes before this one have."""
    counts = gather(torch.tensor([len(batch["song"])], device=batch["song"].device))
    rank = torch.distributed.get_rank() if len(counts) > 1 else 0
    return int(counts[:rank].sum())


__all__ = ["TrainingModel"]
