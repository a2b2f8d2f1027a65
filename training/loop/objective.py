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

SLOT_SECONDS = 0.05  # how exactly the audio tower has to hear onsets
GENERATED_TRUTH = 0.5
ALIKE_COSINE = 0.7
ALIGNMENT_LOGIT_SCALE = math.log(1 / 0.05)
LENGTH_PARTS, LENGTH_STEP = 8, 32
EMPTY = -1
SUMMED = ("masked_note", "struck_keys", "statistics")  # losses that come as sums and counts
# what a batch says of its examples
KNOWN = ("song", "piece", "window", "work", "true", "false", "generated", "claimed", "given", "words", "label_facts")


class TrainingModel(nn.Module):
    """The model with what only training needs: heads for notes, and a temperature for audio against MIDI.

    A batch holds blocks of rows by name, each a dict of tensors by the model's argument names: `midi`, `masked_note`,
    `view`, `audio`, `text` and `label`, whichever there are; and beside them what is known of its examples.
    """

    def __init__(self, model: PianoBindModel, queue_size: int = 0):
        super().__init__()
        self.model = model
        self.fact_texts = None  # what a frozen text tower makes of the facts' wordings, `(facts, wordings, width)`
        self.work_texts = None  # the same of the captions of known works, `(rows, captions, width)`
        self.bank = None  # embeddings and songs of a bank's MIDI, where a stage compares with all of it
        # part of a run's state, so that a resumed one goes on alike; no song has the number of an empty place
        self.register_buffer("queue", torch.zeros(queue_size, model.config.projection_dim))
        self.register_buffer("queue_song", torch.full((queue_size,), EMPTY))
        self.register_buffer("queue_place", torch.tensor(0))
        if model.midi_model is not None:
            config = model.config.midi_config
            self.masked_notes = MaskedNoteHeads(config.hidden_size, config.field_sizes, config.notes_per_token)
            if config.note_statistics:
                self.statistics = StatisticsHead(model.config.projection_dim, model.midi_model.statistics)
        if model.audio_model is not None:
            config = model.config.audio_config
            slots = max(1, round(config.frame_seconds * model.audio_model.stride / SLOT_SECONDS))
            self.struck_keys = StruckKeysHead(config.hidden_size, slots)
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
            targets = self.struck_keys.targets(
                block["keys"], block["onsets"], block["holds"], hidden.shape[1], token_seconds
            )
            heard = model.audio_model.token_mask(mask) * block["has_notes"][:, None]
            outputs["struck_keys"] = self.struck_keys(hidden, targets, heard)[None]
        return outputs

    def embed_midi_by_length(self, midi_ids, midi_attention_mask):
        """The same as `get_midi_features`, in a few parts of like length, so that little padding is computed.

        Lengths are rounded up to `LENGTH_STEP` notes: every new shape of a product costs milliseconds of preparation.
        """
        lengths = midi_attention_mask.sum(1)
        missing = -midi_ids.shape[1] % LENGTH_STEP
        midi_ids = nn.functional.pad(midi_ids, (0, 0, 0, missing))
        midi_attention_mask = nn.functional.pad(midi_attention_mask, (0, missing))
        order = lengths.argsort()
        parts = [
            self.model.get_midi_features(midi_ids[rows, :longest], midi_attention_mask[rows, :longest])
            for rows in order.tensor_split(min(LENGTH_PARTS, len(order)))
            for longest in [-(-int(lengths[rows].max()) // LENGTH_STEP) * LENGTH_STEP]
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
        known |= {name: known[name].float() for name in ("true", "false", "generated", "claimed")}
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
                if stage.audio_midi_queue:
                    losses["audio_midi"] = self._queued_loss(
                        audio, midi, rows["audio"], rows["midi"], known["song"], stage.audio_midi_queue
                    )
                else:
                    losses["audio_midi"] = self._alignment_loss(
                        audio, midi, rows["audio"], rows["midi"], known["song"]
                    )
            if stage.compares_whole_bank:
                among_all = self._bank_loss(audio, known["window"][rows["audio"]], known["song"][rows["audio"]])
                losses["audio_midi"] = (losses["audio_midi"] + among_all) / 2
            if stage.distillation_weight:
                both = (rows["audio"][:, None] == rows["midi"][None]).nonzero()
                agreement = (audio[both[:, 0]] * midi[both[:, 1]].detach()).sum(1)
                losses["distillation"] = (1 - agreement).sum() / max(1, len(both))
        if stage.fact_weight:
            losses["fact"] = self._fact_loss(outputs, known, rows, stage)
        if stage.work_weight:
            losses["work"] = self._work_loss(outputs, known, rows, stage)
        if "label" in outputs:
            losses["label"] = self._label_loss(outputs, known, rows, stage)
        return losses

    def _alignment_loss(self, embeds, midi, rows, midi_rows, song):
        """Each embedding against the MIDI of the same window; other windows of its song do not count."""
        own = rows[:, None] == midi_rows[None]
        return contrastive_loss(self.alignment_scale(embeds @ midi.T), own, same_song(song[rows], song[midi_rows]))

    def _view_loss(self, views, midi, rows, song, stage):
        """Other views of windows against all windows of the batch, and those of earlier batches."""
        return self._queued_loss(views, midi, rows["view"], rows["midi"], song, stage.view_queue)

    def _queued_loss(self, embeds, midi, rows, midi_rows, song, size):
        """Each embedding against the MIDI of its window, told from that of the batch and of earlier batches.

        The queue is a ring: the newest windows take the places of the oldest.
        """
        queue, queue_song = self.queue[:size], self.queue_song[:size]
        items, songs = torch.cat([midi, queue]), torch.cat([song[midi_rows], queue_song])
        nobody = midi_rows.new_full((len(queue),), EMPTY)
        own = rows[:, None] == torch.cat([midi_rows, nobody])[None]
        ignored = same_song(song[rows], songs) | (songs == EMPTY)[None]
        loss = contrastive_loss(self.alignment_scale(embeds @ items.T), own, ignored)
        if size:
            count = min(len(midi), size)
            places = (int(self.queue_place) + torch.arange(count, device=midi.device)) % size
            self.queue[places] = midi[:count].detach().to(self.queue.dtype)
            self.queue_song[places] = song[midi_rows[:count]]
            self.queue_place.fill_((int(self.queue_place) + count) % size)
        return loss

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
            # what is known of a work from elsewhere counts half of what a label says
            true, false = known["true"][own] + GENERATED_TRUTH * known["generated"][own], known["false"][own]
            if name == "view":  # it is played in another way: only labels hold for both
                true, false = true * self.facts.is_label, false * self.facts.is_label
            parts.append((outputs[name], true, false))
            if stage.windows_per_piece > 1 and name != "view":
                parts.append(mean_by_piece(outputs[name], known["piece"][own], true, false))
        embeds, true, false = (torch.cat(part) for part in zip(*parts, strict=True))
        return self.facts(embeds, texts, true, false)

    def _work_loss(self, outputs, known, rows, stage):
        """Windows against the captions of known works; captions that say about the same are no negatives."""
        losses = []
        for name in ("midi", "audio"):
            if name not in outputs or name in stage.frozen:
                continue
            own = rows[name]
            described = (known["work"][own] >= 0).nonzero()[:, 0]
            if len(described) < 2:
                continue
            work, song = known["work"][own][described], known["song"][own]
            wording = torch.randint(self.work_texts.shape[1], (len(work),), device=work.device)
            texts = self.work_texts[work, wording].float()
            raw = nn.functional.normalize(texts, dim=-1)
            alike = raw @ raw.T > ALIKE_COSINE  # (captions, captions)
            positives = torch.zeros(len(own), len(work), dtype=torch.bool, device=work.device)
            positives[described, torch.arange(len(work), device=work.device)] = True
            ignored = same_song(song, song[described])
            ignored[described] |= alike
            logits = self.model.logit_scale(outputs[name] @ self.model._project("text", texts).T)
            losses.append(contrastive_loss(logits, positives, ignored & ~positives))
        return sum(losses) if losses else self.model.logit_scale.weight.new_zeros(())

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
