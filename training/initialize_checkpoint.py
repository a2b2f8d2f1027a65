"""Puts pretrained encoders together into a first, untrained checkpoint: model and processor in one folder.

    python -m training.initialize_checkpoint --audio MODEL --midi MODEL --text MODEL --output FOLDER

Each MODEL is a Hub id or a folder, or for audio and MIDI the word `new`: a tower of the default family that knows
nothing yet. A modality that is not named stays out.
"""

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoConfig

from modeling_pianobind import PianoBindAudioConfig, PianoBindMidiConfig, PianoBindModel, PianoBindProcessor
from modeling_pianobind.index.storage import file_sha256

NEW = "new"
# the towers that `new` makes: wide, and cheap by few tokens
NEW_AUDIO = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1152, "patch_frames": 8}
NEW_MIDI = {
    "hidden_size": 384,
    "num_attention_heads": 6,
    "intermediate_size": 1152,
    "note_statistics": True,
    "rhythm_statistics": True,
    "notes_per_token": 4,  # nosec B105
}


def check_sum(folder: str | Path, sha256: str) -> None:
    """Refuses an encoder whose `model.safetensors` is not the one that was meant."""
    path = Path(folder) / "model.safetensors"
    digest = file_sha256(path)
    if digest != sha256:
        raise ValueError(f"{path}: its SHA-256 is {digest}, not {sha256}; get the encoder from its own page again.")


def initialize(
    output: str | Path,
    audio: str | Path | None = None,
    midi: str | Path | None = None,
    text: str | Path | None = None,
    projection_dim: int = 384,
    seed: int = 0,
) -> PianoBindModel:
    """Writes the checkpoint.

    Args:
        output (`str` or `Path`): a folder that is not there yet, or is empty.
        audio, midi, text (`str` or `Path`, *optional*): see `PianoBindModel.from_encoders`; "new" for a tower of the
            default family with random weights.
        projection_dim (`int`): width of the shared embedding space; if it equals the text tower's width, the text
            projection starts as the identity, so that words keep the meaning that they have.
        seed (`int`): of all weights that are new.
    Returns:
        `PianoBindModel`, as it was written.
    Raises:
        ValueError: `output` already holds something, or an encoder is not fit for its modality.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: already holds something; name a new folder, or empty this one.")
    torch.manual_seed(seed)
    overrides = {"projection_dim": projection_dim}
    if audio == NEW:
        audio, overrides["audio_config"] = None, PianoBindAudioConfig(**NEW_AUDIO)
    if midi == NEW:
        midi, overrides["midi_config"] = None, PianoBindMidiConfig(**NEW_MIDI)
    processor = PianoBindProcessor.from_encoders(audio=audio, midi=midi, text=text)
    model = PianoBindModel.from_encoders(audio=audio, midi=midi, text=text, **overrides)
    from_whole = text is not None and AutoConfig.from_pretrained(text).model_type == "pianobind"
    if text is not None and not from_whole and model.text_projection.in_features == projection_dim:
        torch.nn.init.eye_(model.text_projection.weight)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    return model


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.initialize_checkpoint")
    parser.add_argument("--audio", help="a PianoBind checkpoint, AST, Wav2Vec2, HuBERT, WavLM, Whisper or CLAP")
    parser.add_argument("--midi", help="a PianoBind checkpoint, or a converted MIDI-BERT")
    parser.add_argument("--text", required=True, help="a text encoder, such as sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--text-sha256", help="refuse a --text folder whose model.safetensors has another SHA-256")
    parser.add_argument("--projection-dim", type=int, default=384, help="width of the shared space (default: 384)")
    parser.add_argument("--output", required=True, help="folder to write")
    given = parser.parse_args(arguments)
    if given.audio is None and given.midi is None:
        parser.error("give --audio, --midi or both: text alone has nothing to be bound to")
    try:
        if given.text_sha256:
            check_sum(given.text, given.text_sha256)
        model = initialize(given.output, given.audio, given.midi, given.text, given.projection_dim)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"wrote {given.output}: {parameters:,} parameters; its projections are untrained")
    return 0


if __name__ == "__main__":
    sys.exit(main())
