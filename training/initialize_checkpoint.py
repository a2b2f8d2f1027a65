"""Puts pretrained encoders together into a first, untrained checkpoint: model and processor in one folder.

    python -m training.initialize_checkpoint --audio MODEL --midi MODEL --text MODEL --output FOLDER

Each MODEL is a Hub id or a folder; a modality that is not named stays out.
"""

import argparse
import sys
from pathlib import Path

from modeling_pianobind import PianoBindModel, PianoBindProcessor


def initialize(output, audio=None, midi=None, text=None, projection_dim: int = 384) -> PianoBindModel:
    """Writes the checkpoint.

    Args:
        output (`str` or `Path`): a folder that is not there yet, or is empty.
        audio, midi, text (`str` or `Path`, *optional*): see `PianoBindModel.from_encoders`.
        projection_dim (`int`): width of the shared embedding space.
    Returns:
        `PianoBindModel`, as it was written.
    Raises:
        ValueError: `output` already holds something, or an encoder is not fit for its modality.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: already holds something; name a new folder, or empty this one.")
    processor = PianoBindProcessor.from_encoders(audio=audio, midi=midi, text=text)
    model = PianoBindModel.from_encoders(audio=audio, midi=midi, text=text, projection_dim=projection_dim)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    return model


def main(arguments=None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.initialize_checkpoint")
    parser.add_argument("--audio", help="a PianoBind checkpoint, AST, Wav2Vec2, HuBERT, WavLM, Whisper or CLAP")
    parser.add_argument("--midi", help="a PianoBind checkpoint, or a converted MIDI-BERT")
    parser.add_argument("--text", required=True, help="a text encoder, such as sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--projection-dim", type=int, default=384, help="width of the shared space (default: 384)")
    parser.add_argument("--output", required=True, help="folder to write")
    given = parser.parse_args(arguments)
    if given.audio is None and given.midi is None:
        parser.error("give --audio, --midi or both: text alone has nothing to be bound to")
    try:
        model = initialize(given.output, given.audio, given.midi, given.text, given.projection_dim)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"wrote {given.output}: {parameters:,} parameters; its projections are untrained")
    return 0


if __name__ == "__main__":
    sys.exit(main())
