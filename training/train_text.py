"""Trains the text tower on search queries: `python -m training.train_text CHECKPOINT CORPUS --output FOLDER`.

The MIDI tower is frozen and embeds every piece of `train` once. Texts of four kinds (wordings of single facts,
captions of several, the lexicon of queries, captions of known works) are each compared with thousands of pieces: a
text should find pieces in the measure in which its facts hold for them. Text alone is trained, so a step costs half a
second on a CPU core, and words need no piece of their own to be learnt.
"""

import argparse
import copy
import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from modeling_pianobind import PianoBindMidiProcessor, PianoBindModel, PianoBindProcessor
from modeling_pianobind.notes_pianobind import PianoNotes, window_starts
from modeling_pianobind.towers_pianobind import masked_mean

from .common.atomic_folder import atomic_folder
from .data.captions import choose_facts, fact_wordings, write_caption
from .data.facts import DERIVED_FACTS
from .data.lexicon import read_lexicon
from .data.sources import TrainingCorpus
from .loop.adapters import merged_state
from .loop.piece_facts import PieceFacts

WINDOWS_OF_PIECE = 3
MIN_NOTES = 6
NOTES_AT_ONCE = 24_000
PIECES_AT_ONCE = 4096  # that a batch of texts is compared with
TEXTS = {"fact": 32, "caption": 48, "query": 76, "work": 36}  # of a batch
NAME_WEIGHT = 0.35  # of facts that are names of people or keys, which are half of all; other facts have 1
ALL_LABELS_SHARE, MAX_CLAIMS = 0.5, 8  # of captions, and of their facts
LENGTH_PARTS = 4
MIN_PROBABILITY = 0.02
SHARPNESS = 1.5  # of the target over pieces
ALIKE_COSINE = 0.7
KEPT_WEIGHT = 1.0  # of staying near the pretrained encoder
REVERSE_WEIGHT = 0.5  # of finding texts by pieces


class PieceTable:
    """Every piece of a corpus: its embedding, its facts' probabilities, and its work."""

    def __init__(self, model: PianoBindModel, processor: PianoBindProcessor, corpus: TrainingCorpus, seed: int):
        self.vocabulary = corpus.vocabulary
        part = corpus.parts[0]
        self.pieces, windows = [], []
        for piece in np.sort(np.concatenate(list(part.pieces.values()))).tolist():
            if cut := some_windows(part.corpus.notes(piece), processor.midi_processor):
                self.pieces.append(piece)
                windows.append(cut)
        self.rows = [part.corpus.rows[piece] for piece in self.pieces]
        self.embeddings = embed_windows(model, processor, windows)
        facts = PieceFacts.of(part.corpus, self.pieces, windows, self.vocabulary)
        songs = np.array([row["song"] for row in self.rows])
        self.probability = torch.from_numpy(facts.probabilities(self.embeddings.numpy(), songs, seed)).float()
        self.labels = facts.true > 0.5
        source_share = dict(zip(part.pieces, part.source_shares, strict=True))
        counts = {source: sum(row["source"] == source for row in self.rows) for source in source_share}
        weights = np.array([source_share[row["source"]] / counts[row["source"]] for row in self.rows])
        self.weights = weights / weights.sum()


def some_windows(notes: PianoNotes, midi_processor: PianoBindMidiProcessor) -> list:
    """At most `WINDOWS_OF_PIECE` windows of a piece, evenly spread, as notes."""
    starts = window_starts(notes.seconds, midi_processor.window_seconds, midi_processor.hop_seconds)
    chosen = starts[np.unique(np.linspace(0, len(starts) - 1, WINDOWS_OF_PIECE).round().astype(int))]
    cut = [notes.crop(start, start + midi_processor.window_seconds) for start in chosen]
    return [window.take(slice(0, midi_processor.max_notes)) for window in cut if len(window) >= MIN_NOTES]


def embed_windows(model: PianoBindModel, processor: PianoBindProcessor, windows: list[list]) -> torch.Tensor:
    """The mean of each piece's windows, `(pieces, dim)` unit rows."""
    rows = [processor.midi_processor.rows(notes) for parts in windows for notes in parts]
    piece = torch.tensor([number for number, parts in enumerate(windows) for _ in parts])
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    embeds = torch.empty(len(rows), model.config.projection_dim)
    with tqdm(total=len(order), desc="embed") as bar:
        while order:
            count = max(1, NOTES_AT_ONCE // len(rows[order[-1]]))
            batch, order = order[-count:], order[:-count]
            ids, mask = processor.midi_processor.pad([rows[place] for place in batch])
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                embeds[batch] = model.get_midi_features(ids, mask).float()
            bar.update(len(batch))
    return F.normalize(torch.zeros(len(windows), embeds.shape[1]).index_add(0, piece, embeds), dim=-1)


class TextTrainer:
    """The text tower, the pieces that it is compared with, and the texts."""

    def __init__(
        self,
        checkpoint: str,
        corpus_path: str,
        source_weights: dict[str, float],
        seed: int = 0,
        fact_share: float = 0.3,
    ):
        self.model = PianoBindModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self.processor = PianoBindProcessor.from_pretrained(checkpoint)
        self.random = random.Random(seed)
        self.draws = np.random.default_rng(seed)
        corpus = TrainingCorpus.open(corpus_path, source_weights)
        self.table = PieceTable(self.model, self.processor, corpus, seed)
        self.pretrained = copy.deepcopy(self.model.text_model).eval().requires_grad_(False)
        vocabulary = corpus.vocabulary
        self.wordings = fact_wordings(vocabulary, 16)
        self.queries = [query for query in read_lexicon() if not query.held_out]
        self.works = [place for place, row in enumerate(self.table.rows) if "work" in row]
        names = vocabulary.creators | {fact for fact in vocabulary.facts if fact.endswith((" major", " minor"))}
        self.fact_pieces = [np.flatnonzero(self.table.labels[:, fact]) for fact in range(len(vocabulary.facts))]
        self.facts = [fact for fact, held in enumerate(self.fact_pieces) if len(held)]
        self.fact_weights = [NAME_WEIGHT if vocabulary.facts[fact] in names else 1.0 for fact in self.facts]

    def batch(self) -> tuple[list[str], torch.Tensor, torch.Tensor, torch.Tensor]:
        """Texts, pieces, how well each text fits each piece (`(texts, pieces)`), and the pretrained encoder's texts.

        The measure is a log-probability: the sum over a text's facts, as if they were independent.
        """
        table, vocabulary, rng = self.table, self.table.vocabulary, self.random
        pieces = self.draws.choice(len(table.rows), PIECES_AT_ONCE, replace=False, p=table.weights)
        texts, claims = [], []
        for fact in rng.choices(self.facts, self.fact_weights, k=TEXTS["fact"]):
            texts.append(rng.choice(self.wordings[fact]))
            claims.append(({fact: 1.0}, {}))
        for _ in range(TEXTS["caption"]):
            piece = int(self.draws.choice(self.fact_pieces[rng.choices(self.facts, self.fact_weights)[0]]))
            chosen = self._claims(piece)
            texts.append(write_caption(chosen, vocabulary.creators, rng))
            claims.append(({vocabulary.number[fact]: 1.0 for fact in chosen}, {}))
        for query in rng.choices(self.queries, k=TEXTS["query"]):
            texts.append(query.text)
            holds = [vocabulary.number[fact] for fact in query.holds if fact in vocabulary.number]
            out = [vocabulary.number[fact] for fact in query.excludes if fact in vocabulary.number]
            share = min(1.0, 2.0 / max(1, len(holds)))  # a piece need not have all facts that a scene suggests
            claims.append((dict.fromkeys(holds, share), dict.fromkeys(out, 0.3)))
        probability = table.probability[pieces].clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        yes, no = torch.zeros(len(texts), len(vocabulary.facts)), torch.zeros(len(texts), len(vocabulary.facts))
        for row, (holds, out) in enumerate(claims):
            for fact, weight in holds.items():
                yes[row, fact] = weight
            for fact, weight in out.items():
                no[row, fact] = weight
        fits = yes @ probability.log().T + no @ (1 - probability).log().T
        fits = fits * SHARPNESS
        return self._with_works(texts, pieces, fits)

    def _claims(self, piece: int) -> list[str]:
        """What a caption of a piece states: a few of its facts, or all that its labels say."""
        vocabulary = self.table.vocabulary
        true = {vocabulary.facts[fact] for fact in np.flatnonzero(self.table.labels[piece])}
        labelled = sorted(vocabulary.labels(self.table.rows[piece])[0] - DERIVED_FACTS)
        if labelled and self.random.random() < ALL_LABELS_SHARE:
            return labelled[:MAX_CLAIMS]
        return choose_facts(true, vocabulary.creators, self.random)

    def _with_works(
        self, texts: list[str], pieces: np.ndarray, fits: torch.Tensor
    ) -> tuple[list[str], torch.Tensor, torch.Tensor, torch.Tensor]:
        """Captions of known works: each fits its own piece, and pieces with an equivalent caption."""
        chosen = self.random.sample(self.works, min(TEXTS["work"], len(self.works)))
        captions = []
        for place in chosen:
            tags, written = self.table.rows[place]["work"]
            listed = ", ".join(self.random.sample(tags, min(len(tags), self.random.choice((1, 2, 3, 5)))))
            captions.append(self.random.choice((*written, listed)))
        with torch.no_grad():
            before = self._pooled(self.pretrained, texts + captions)
        if not chosen:
            return texts, torch.from_numpy(pieces), fits, before
        pieces = np.concatenate([pieces, chosen])
        own = torch.full((len(chosen), len(pieces)), -12.0)
        alike = F.normalize(before[len(texts) :], dim=-1)
        alike = ((alike @ alike.T - ALIKE_COSINE) / (1 - ALIKE_COSINE)).clamp(min=0)
        own[:, -len(chosen) :] = torch.log(alike.clamp(min=1e-5))
        # pieces that were added for the captions of works are unlabelled for all other texts
        fits = torch.cat([fits, torch.full((len(fits), len(chosen)), float("-inf"))], 1)
        return texts + captions, torch.from_numpy(pieces), torch.cat([fits, own]), before

    def _pooled(self, tower: torch.nn.Module, texts: list[str]) -> torch.Tensor:
        """The mean over the tokens of each text, in parts of like length: `(texts, width)`."""
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        parts = []
        for part in np.array_split(order, min(LENGTH_PARTS, len(order))):
            tokens = self.processor.tokenize([texts[place] for place in part], return_tensors="pt")
            with torch.autocast("cpu", torch.bfloat16):
                hidden = tower(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])[0]
            parts.append(masked_mean(hidden.float(), tokens["attention_mask"]))
        return torch.cat(parts)[np.argsort(order)]

    def losses(self) -> dict[str, torch.Tensor]:
        """Of one batch: texts against pieces, pieces against texts, and against the pretrained encoder."""
        texts, pieces, fits, before = self.batch()
        pooled = self._pooled(self.model.text_model, texts)
        embeds = self.model._project("text", pooled)
        logits = self.model.logit_scale(embeds @ self.table.embeddings[pieces].T)
        known = torch.isfinite(fits)
        forward = divergence(logits, fits, known)
        # centred for each text, since a text of one fact fits more pieces than a text of six
        share = fits - torch.logsumexp(fits, 1, keepdim=True)
        columns = torch.randperm(len(pieces))[:512]
        backward = divergence(logits.T[columns], share.T[columns], known.T[columns])
        kept = (1 - F.cosine_similarity(pooled, before)).mean()
        return {"texts": forward, "pieces": backward, "kept": kept}

    def train(self, minutes: float, steps: int, learning_rate: float) -> dict[str, float]:
        """Trains until `steps` or `minutes` are over; returns the last losses' running means."""
        model = self.model.requires_grad_(False)
        # torch's fused attention has a slow backward pass in bfloat16 on a CPU (see `towers_pianobind.attend`)
        model.text_model.set_attn_implementation("eager")
        model.text_model.encoder.requires_grad_(True)
        model.text_projection.requires_grad_(True)
        model.logit_scale.requires_grad_(True)
        optimizer = torch.optim.AdamW(
            [
                {"params": model.text_model.encoder.parameters(), "lr": learning_rate},
                {"params": [model.text_projection.weight, model.logit_scale.weight], "lr": 5 * learning_rate},
            ],
            weight_decay=0.01,
        )
        peaks = [group["lr"] for group in optimizer.param_groups]
        started, mean = time.monotonic(), {}
        bar = tqdm(range(steps), desc="text")
        for step in bar:
            progress = max(step / steps, (time.monotonic() - started) / (60 * minutes) if minutes else 0)
            if progress >= 1:
                break
            factor = min(1.0, (step + 1) / 50) * 0.5 * (1 + np.cos(np.pi * progress)) + 0.01
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            losses = self.losses()
            optimizer.zero_grad()
            (losses["texts"] + REVERSE_WEIGHT * losses["pieces"] + KEPT_WEIGHT * losses["kept"]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            values = {key: value.item() for key, value in losses.items()}
            mean = {key: 0.95 * mean.get(key, value) + 0.05 * value for key, value in values.items()}
            bar.set_postfix({key: f"{value:.3f}" for key, value in mean.items()})
        model.text_model.set_attn_implementation("sdpa")
        return mean | {"steps": step + 1}


def divergence(logits: torch.Tensor, fits: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence from the softmax of `fits` to that of `logits`, over each row's known columns."""
    target = fits.masked_fill(~known, float("-inf")).softmax(1)
    scores = logits.masked_fill(~known, float("-inf")).log_softmax(1).masked_fill(~known, 0.0)
    entropy = torch.special.entr(target).sum(1)
    return (-(target * scores).sum(1) - entropy).mean()


def main(command_line: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.train_text", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", help="folder whose MIDI tower is trained")
    parser.add_argument("corpus", help="folder of training.data.corpus")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=0.0, help="end earlier after this time (default: no limit)")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="peak, of the text tower (default: 1e-4)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(command_line)
    try:
        trainer = TextTrainer(given.checkpoint, given.corpus, None, given.seed)
    except (ValueError, OSError) as error:
        print(f"train_text: {error}", file=sys.stderr)
        return 2
    result = trainer.train(given.minutes, given.steps, given.learning_rate)
    with atomic_folder(given.output) as partial:
        trainer.model.save_pretrained(partial, state_dict=merged_state(trainer.model))
        trainer.processor.save_pretrained(partial)
        (partial / "text_training.json").write_text(json.dumps(result, indent=1))
    print(f"wrote {given.output}: {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
