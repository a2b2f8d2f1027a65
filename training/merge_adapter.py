"""An adapter and its base -> one plain checkpoint: `python -m training.merge_adapter ADAPTER --output FOLDER`."""

import argparse
import sys
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel

from modeling_pianobind import PianoBindModel, PianoBindProcessor

from .common.atomic_folder import atomic_folder


def merge(adapter: str | Path, output: str | Path, base: str = "") -> None:
    """Writes the checkpoint, in float32.

    Args:
        adapter: folder or Hub id of an adapter that `training.train` wrote.
        output: a folder that is not there yet, or is empty.
        base: folder or Hub id of the checkpoint that the adapter was trained on, if it has moved.
    Raises:
        ValueError: `output` already holds something, or `adapter` is none.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: already holds something; name a new folder, or empty this one.")
    base = base or PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path
    model = PianoBindModel.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    with atomic_folder(output) as partial:
        merged.save_pretrained(partial)
        PianoBindProcessor.from_pretrained(str(adapter)).save_pretrained(partial)


def main(command_line: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.merge_adapter", description=__doc__)
    parser.add_argument("adapter", help="folder or Hub id of an adapter")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--base", default="", help="the checkpoint that it was trained on, where it has moved")
    given = parser.parse_args(command_line)
    try:
        merge(given.adapter, given.output, given.base)
    except (ValueError, OSError) as error:
        print(f"merge_adapter: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
