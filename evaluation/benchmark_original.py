"""How fast the published PianoBind runs here, at full size with random weights, beside what it is measured against.

    python -m evaluation.benchmark_original [--rounds 5] [--threads 2] [--output original_speed.json]

1. The MIDI tower's forward pass, against transformers' BERT of the same size with absolute positions, through the
   fused attention that relative positions cannot use as they stand.
2. A training step of all three towers, against a straightforward port: parameters that nothing reads, language heads
   computed and thrown away, and relative attention with every query, key and distance multiplied out. Dropout is the
   same on both sides, and off in the attention, where the port would only be slower.

The candidates take turns, so that what else the machine does falls on all of them; beside the time on the clock stands
that of the processor, which others' work changes less. It takes some 12 GB of memory.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertModel, RobertaModel

from modeling_pianobind import PianoBindModel
from modeling_pianobind.compound_words_pianobind import FIELD_SIZES
from modeling_pianobind.modeling_pianobind import contrastive_loss
from modeling_pianobind.original.presets import (
    original_audio_config,
    original_config,
    original_midi_config,
    original_text_config,
)
from modeling_pianobind.towers_pianobind import PianoBindAudioModel, PianoBindMidiModel

NOTES, WIDTH, HEADS = 512, 768, 12
MIN_FORWARD_RATIO, MIN_TRAINING_RATIO = 0.7, 1.3


class PortAttention(nn.Module):
    """Relative key-query attention as it is usually written."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.dense = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.distance_embedding = nn.Embedding(2 * NOTES - 1, WIDTH // HEADS)

    def forward(self, hidden, mask):
        q, k, v = (
            layer(hidden).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        places = torch.arange(hidden.shape[1])
        distances = self.distance_embedding(places[:, None] - places[None] + NOTES - 1)
        scores = q @ k.transpose(-1, -2)
        scores = scores + torch.einsum("bhid,ijd->bhij", q, distances) + torch.einsum("bhjd,ijd->bhij", k, distances)
        scores = scores / (WIDTH // HEADS) ** 0.5 + mask
        return self.dense((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class PortMidi(nn.Module):
    """MIDI-BERT with all that it carries along."""

    def __init__(self, dropout):
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(size, 256) for size in FIELD_SIZES)
        self.in_linear = nn.Linear(1024, WIDTH)
        self.word_embedding, self.positions = nn.Embedding(30_522, WIDTH), nn.Embedding(NOTES, WIDTH)
        self.token_types, self.norm = nn.Embedding(2, WIDTH), nn.LayerNorm(WIDTH, eps=1e-12)
        self.attentions = nn.ModuleList(PortAttention() for _ in range(12))
        self.up, self.down = (
            nn.ModuleList(nn.Linear(*size) for _ in range(12)) for size in ((WIDTH, 3072), (3072, WIDTH))
        )
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, eps=1e-12) for _ in range(24))
        self.pooler = nn.Linear(WIDTH, WIDTH)
        self.language_heads = nn.ModuleList(nn.Linear(WIDTH, size) for size in FIELD_SIZES)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids):
        hidden = torch.cat([table(ids[..., field]) * 16 for field, table in enumerate(self.embeddings)], dim=-1)
        hidden = self.in_linear(hidden) + self.token_types(torch.zeros_like(ids[..., 0]))
        hidden = self.dropout(self.norm(hidden))
        mask = (ids[..., 0] == FIELD_SIZES[0] - 2)[:, None, None].float() * torch.finfo(torch.float32).min
        for number, attention in enumerate(self.attentions):
            hidden = self.norms[2 * number](hidden + self.dropout(attention(hidden, mask)))
            inner = self.down[number](F.gelu(self.up[number](hidden)))
            hidden = self.norms[2 * number + 1](hidden + self.dropout(inner))
        torch.tanh(self.pooler(hidden[:, 0]))
        for head in self.language_heads:
            head(hidden)
        return hidden.mean(1)


class Port(nn.Module):
    """The three towers; `per_pair` embeds the text anew for each pair, and the notes for the unused third pair."""

    def __init__(self, text_config, dropout=0.1, per_pair=False):
        super().__init__()
        self.audio = PianoBindAudioModel(original_audio_config())
        self.midi = PortMidi(dropout)
        self.text = RobertaModel(text_config)
        self.projections = nn.ModuleList(nn.Linear(width, 512, bias=False) for width in (256, WIDTH, WIDTH))
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))
        self.per_pair = per_pair

    def embed_text(self, ids, mask):
        hidden = self.text(input_ids=ids, attention_mask=mask).last_hidden_state
        return F.normalize(self.projections[2](hidden.mean(1)), dim=-1)

    def embed_midi(self, ids):
        return F.normalize(self.projections[1](self.midi(ids)), dim=-1)

    def forward(self, features, ids, text, mask):
        hidden = self.audio(features, None)
        audio = F.normalize(self.projections[0](self.audio.pool(hidden, None)), dim=-1)
        midi, words = self.embed_midi(ids), self.embed_text(text, mask)
        again = (self.embed_midi(ids), self.embed_text(text, mask)) if self.per_pair else (midi, words)
        scale = self.logit_scale.exp()
        contrastive_loss(scale * audio @ again[0].T)  # computed and left out, as published
        return (contrastive_loss(scale * audio @ words.T) + contrastive_loss(scale * midi @ again[1].T)) / 2


def in_turns(candidates, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each candidate, on the clock and of the processor, after one round that is not counted."""
    clocks = {"clock": time.perf_counter, "processor": time.process_time}
    taken = {name: {clock: [] for clock in clocks} for name in candidates}
    for number in range(rounds + 1):
        for name, run in candidates.items():
            starts = {clock: read() for clock, read in clocks.items()}
            run()
            for clock, read in clocks.items():
                if number:
                    taken[name][clock].append(read() - starts[clock])
            print(f"round {number}: {name} {time.perf_counter() - starts['clock']:.2f} s", file=sys.stderr)
    return {
        name: {clock: round(statistics.median(times), 3) for clock, times in of_clock.items()}
        for name, of_clock in taken.items()
    }


def ratio(seconds, slow: str, fast: str) -> dict[str, float]:
    """How many times the rate of `slow` that of `fast` is, by each clock."""
    return {clock: round(seconds[slow][clock] / seconds[fast][clock], 3) for clock in seconds[fast]}


def random_notes(batch_size: int, empty: int):
    """`(batch, 512, 4)` compound words whose last `empty` places are padding."""
    ids = torch.stack([torch.randint(0, size - 2, (batch_size, NOTES)) for size in FIELD_SIZES], dim=-1)
    ids[:, NOTES - empty :] = torch.tensor(FIELD_SIZES) - 2
    return ids


def forward_times(batch_size: int, rounds: int) -> dict:
    """Seconds of one MIDI forward pass of each candidate."""
    ids = random_notes(batch_size, empty=0)
    mask = (ids[..., 0] != FIELD_SIZES[0] - 2).long()
    ours = PianoBindMidiModel(original_midi_config()).eval()
    bert = BertModel(BertConfig(hidden_size=WIDTH), add_pooling_layer=False).eval()
    port = PortMidi(0.0).eval()
    hidden = torch.randn(batch_size, NOTES, WIDTH)
    with torch.inference_mode():
        return in_turns(
            {
                "ours": lambda: ours(ids, mask),
                "absolute_bert": lambda: bert(inputs_embeds=hidden, attention_mask=mask),
                "port": lambda: port(ids),
            },
            rounds,
        )


def training_times(batch_size: int, rounds: int) -> dict:
    """Seconds of one training step (forward, backward, AdamW) of each candidate."""
    text_config = original_text_config(attention_probs_dropout_prob=0.0)
    features, ids = torch.randn(batch_size, 626, 128) * 20, random_notes(batch_size, empty=0)
    text = torch.randint(3, text_config.vocab_size, (batch_size, 77))
    mask = (torch.arange(77) < 20).long().expand(batch_size, -1)
    ours = PianoBindModel(original_config(original_audio_config(), original_midi_config(), text_config)).train()
    port = Port(text_config).train()

    def stepper(model, loss_of):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

        def step():
            loss_of().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    inputs = {"input_features": features, "midi_ids": ids, "input_ids": text, "attention_mask": mask}
    step_ours = stepper(ours, lambda: ours(**inputs, return_loss=True).loss)
    step_port = stepper(port, lambda: port(features, ids, text, mask))

    def step_per_pair():
        port.per_pair = True
        step_port()
        port.per_pair = False

    return in_turns({"ours": step_ours, "port": step_port, "port_per_pair": step_per_pair}, rounds)


def main(arguments=None) -> int:
    """The command line; the exit status is 1 where a ratio misses its target."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.benchmark_original")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4, help="of the forward pass; training takes half of it")
    parser.add_argument("--output", help="JSON file to write")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    forward = forward_times(given.batch_size, given.rounds)
    training = training_times(max(2, given.batch_size // 2), given.rounds)
    result = {
        "threads": given.threads,
        "rounds": given.rounds,
        "torch": torch.__version__,
        "midi_forward_seconds": forward,
        "midi_forward_rate_over_absolute_bert": ratio(forward, "absolute_bert", "ours"),
        "midi_forward_rate_over_port": ratio(forward, "port", "ours"),
        "training_step_seconds": training,
        "training_rate_over_port": ratio(training, "port", "ours"),
        "training_rate_over_port_per_pair": ratio(training, "port_per_pair", "ours"),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.output:
        Path(given.output).write_text(text + "\n", encoding="utf-8")
    met = (
        result["midi_forward_rate_over_absolute_bert"]["clock"] >= MIN_FORWARD_RATIO
        and result["training_rate_over_port"]["clock"] >= MIN_TRAINING_RATIO
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
