"""Speed of the published PianoBind's MIDI tower in this package, at full size with random weights.

    python -m evaluation.benchmark_original [--rounds 5] [--threads 2] [--output original_speed.json]

It is compared with transformers' BERT of the same size with absolute positions, whose fused attention relative
positions cannot use as they stand. The candidates take turns, so that what else the machine does falls on both; beside
the time on the clock stands that of the processor, which others' work changes less.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from modeling_pianobind.compound_words_pianobind import FIELD_SIZES
from modeling_pianobind.original.presets import (
    original_midi_config,
)
from modeling_pianobind.towers_pianobind import PianoBindMidiModel

NOTES, WIDTH = 512, 768
MIN_FORWARD_RATIO = 0.7


def in_turns(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
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


def ratio(seconds: dict[str, dict[str, float]], slow: str, fast: str) -> dict[str, float]:
    """How many times the rate of `slow` that of `fast` is, by each clock."""
    return {clock: round(seconds[slow][clock] / seconds[fast][clock], 3) for clock in seconds[fast]}


def random_notes(batch_size: int) -> torch.Tensor:
    """`(batch, 512, 4)` compound words."""
    return torch.stack([torch.randint(0, size - 2, (batch_size, NOTES)) for size in FIELD_SIZES], dim=-1)


def forward_times(batch_size: int, rounds: int) -> dict:
    """Seconds of one MIDI forward pass of each candidate."""
    ids = random_notes(batch_size)
    mask = (ids[..., 0] != FIELD_SIZES[0] - 2).long()
    ours = PianoBindMidiModel(original_midi_config()).eval()
    bert = BertModel(BertConfig(hidden_size=WIDTH), add_pooling_layer=False).eval()
    hidden = torch.randn(batch_size, NOTES, WIDTH)
    with torch.inference_mode():
        return in_turns(
            {
                "ours": lambda: ours(ids, mask),
                "absolute_bert": lambda: bert(inputs_embeds=hidden, attention_mask=mask),
            },
            rounds,
        )


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status is 1 where the ratio misses its target."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.benchmark_original")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4, help="windows in a forward pass")
    parser.add_argument("--output", help="JSON file to write")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    forward = forward_times(given.batch_size, given.rounds)
    result = {
        "threads": given.threads,
        "rounds": given.rounds,
        "torch": torch.__version__,
        "midi_forward_seconds": forward,
        "midi_forward_rate_over_absolute_bert": ratio(forward, "absolute_bert", "ours"),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.output:
        Path(given.output).write_text(text + "\n", encoding="utf-8")
    return 0 if result["midi_forward_rate_over_absolute_bert"]["clock"] >= MIN_FORWARD_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
