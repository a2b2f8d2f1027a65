"""Recording -> MIDI by transkun, which carries its weights (extra `[transcribe]`)."""

import warnings
from functools import cache
from pathlib import Path

import soundfile
import soxr
import torch


def transcribe(audio: Path, midi: Path) -> None:
    """Writes the notes and pedals that transkun hears in a recording as a MIDI file; on a GPU where there is one.

    Raises:
        ImportError: the extra is not installed.
        ValueError: the recording cannot be transcribed; the message names it.
    """
    model, write_midi = _transkun()
    try:
        samples, rate = soundfile.read(audio, dtype="float32", always_2d=True)  # (samples, channels)
        if rate != model.fs:
            samples = soxr.resample(samples, rate, model.fs)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of gradients that transkun's checkpointing misses here
            samples = torch.from_numpy(samples).to(next(model.parameters()).device)
            notes = model.transcribe(samples, discardSecondHalf=False)
        write_midi(notes).write(str(midi))
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{audio}: transkun cannot transcribe it ({' '.join(str(error).split())}).") from error


@cache
def _transkun():
    """The model with its packaged weights, made once, and the function that makes MIDI of its notes."""
    try:
        import moduleconf
        import transkun
        from transkun.Data import writeMidi
    except (ImportError, OSError) as error:  # OSError: a torchaudio made for another torch
        raise ImportError(
            f"`transcribe: true` needs transkun, which cannot be imported ({error}); "
            'run pip install -e ".[transcribe]", or set `transcribe: false`.'
        ) from error
    # The package's own command finds these two files with pkg_resources, which newer setuptools lack.
    folder = Path(transkun.__file__).parent / "pretrained"
    description = moduleconf.parseFromFile(str(folder / "2.0.conf"))["Model"]
    model = description.module.TransKun(conf=description.config)
    weights = torch.load(folder / "2.0.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(weights.get("best_state_dict") or weights["state_dict"], strict=False)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), writeMidi


__all__ = ["transcribe"]
