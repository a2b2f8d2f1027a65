"""Corrects audio to score like MIDI: `python -m training.balance_audio CHECKPOINT CONFIG.yaml --output FOLDER`.

An audio tower that was distilled from a MIDI tower gives embeddings closer to their common mean. In one ranking by
text, recordings then come after MIDI files of the same music. This command embeds windows of `train` as audio and as
MIDI, with the data and instruments of the audio run, and changes the audio projection, a linear map without bias: the
mean of the audio embeddings becomes that of the MIDI, and so does the spread of their scores for the facts' texts.

An instrument that the tower was trained on may fit better than others do: `--instrument` names one that training did
not use.
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F

from .common.atomic_folder import atomic_folder
from .data.arguments import InstrumentArguments, TrainingArguments
from .data.augmentation import NoteAugmentation
from .loop.adapters import merged_state
from .loop.batches import on_device
from .loop.relations import same_example
from .loop.run import Run, make_accelerator

ROUNDS = 40
TEXT_DIRECTIONS = 24


def correction(audio: torch.Tensor, midi: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """The linear map after which audio has the mean of the MIDI and the spread of its scores.

    The spread grows in the directions in which texts differ. A factor for all directions would hardly change it, since
    embeddings are normalised afterwards.

    Args:
        audio, midi (`torch.Tensor` of shape `(windows, dim)`): unit rows of the same windows.
        texts (`torch.Tensor` of shape `(texts, dim)`): unit rows.
    Returns:
        `torch.Tensor` of shape `(dim, dim)`, to be applied to column vectors. All embeddings have nearly the same
        component along their mean; this component carries the shift, as a map without bias has no constant.
    """
    center = audio.mean(0)
    along = center / center.square().sum()  # its product with an embedding is 1 on average
    across = torch.eye(len(center)) - torch.outer(center, along)
    directions = torch.linalg.svd(texts - texts.mean(0), full_matrices=False)[2][:TEXT_DIRECTIONS]
    of_texts = directions.T @ directions @ across
    target, spread = midi.mean(0), (midi @ texts.T).std(0).mean()
    gain, shift = 0.0, center.clone()
    for _ in range(ROUNDS):
        matrix = torch.outer(shift, along) + across + gain * of_texts
        mapped = F.normalize(audio @ matrix.T, dim=-1)
        shift = shift + (target - mapped.mean(0)) / 2
        gain = gain + float(spread / (mapped @ texts.T).std(0).mean()) - 1
    return matrix


def offsets(audio: torch.Tensor, midi: torch.Tensor, texts: torch.Tensor) -> dict[str, float]:
    """Mean difference of the scores, and their spread over windows."""
    audio_scores, midi_scores = audio @ texts.T, midi @ texts.T
    spreads = {"audio_spread": audio_scores.std(0).mean(), "midi_spread": midi_scores.std(0).mean()}
    return {
        name: round(float(value), 4)
        for name, value in ({"offset": (audio_scores - midi_scores).mean()} | spreads).items()
    }


@torch.no_grad()
def embedded_windows(run: Run, batches: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The windows of the first batches of a run's last stage as audio and as MIDI."""
    model, extractor = run.model.model.eval(), run.processor.feature_extractor
    audio, midi = [], []
    for batch in islice(run.loader(len(run.arguments.stages) - 1), batches):
        blocks, known = on_device(batch, run.accelerator.device, extractor, run.arguments.audio_augmentation)
        sound, notes = blocks["audio"], blocks["midi"]
        with run.accelerator.autocast():
            embeds = model.get_audio_features(sound["input_features"], sound["audio_attention_mask"])
            played = run.model.embed_midi_by_length(**notes)
        of_audio, of_midi = same_example(known["rows"]["audio"], known["rows"]["midi"])
        audio.append(embeds[of_audio].float().cpu())
        midi.append(played[of_midi].float().cpu())
    return torch.cat(audio), torch.cat(midi)


def balance(
    checkpoint: str, config: str, output: str | Path, batches: int, instruments: list[str] | None = None
) -> dict[str, dict[str, float]]:
    """Writes the corrected checkpoint; returns the offsets `before` and `after`, on windows that fitted nothing."""
    arguments = TrainingArguments.from_yaml(config)
    arguments.checkpoint = checkpoint
    # Search compares files as they are, and pieces of rare facts no more often than others.
    arguments.augmentation, arguments.fact_share = NoteAugmentation.none(), 0.0
    if instruments:
        arguments.instruments = [InstrumentArguments(path) for path in instruments]
    run = Run(arguments, make_accelerator(arguments))
    audio, midi = embedded_windows(run, batches)
    model = run.model.model
    with torch.no_grad():
        texts = model._project("text", run.embedded_texts("facts")[:, 0]).float().cpu()
        half = len(audio) // 2
        matrix = correction(audio[:half], midi[:half], texts)
        measured = {"before": offsets(audio[half:], midi[half:], texts)}
        measured["after"] = offsets(F.normalize(audio[half:] @ matrix.T, dim=-1), midi[half:], texts)
        weight = model.audio_projection.weight
        weight.copy_(matrix.to(weight) @ weight)
    with atomic_folder(output) as partial:
        model.save_pretrained(partial, state_dict=merged_state(model))
        run.processor.save_pretrained(partial)
    return measured


def main(command_line: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.balance_audio", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", help="folder with all three towers")
    parser.add_argument("config", help="YAML file of the audio run: its corpus, instruments and batches")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--batches", type=int, default=40, help="half of them fit, half measure (default: 40)")
    parser.add_argument("--instrument", action="append", help="instead of the run's instruments; may be repeated")
    given = parser.parse_args(command_line)
    try:
        measured = balance(given.checkpoint, given.config, given.output, given.batches, given.instrument)
    except (ValueError, OSError) as error:
        print(f"balance_audio: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"wrote {given.output}: {json.dumps(measured)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
