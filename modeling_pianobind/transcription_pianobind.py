"""Recording -> MIDI by transkun, which carries its weights (extra `[transcribe]`)."""

import io
import itertools
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .dtype_pianobind import multiplies_bfloat16
from .feature_extraction_pianobind import audio_blocks, audio_name

# Decoded blocks (of 10 s each) transcribed at a time, so that memory does not grow with a recording.
STRETCH_BLOCKS = 30
# transkun reads 16 s at a time. Its default step of 8 s reads all twice and finds no more notes (training/NOTES.md).
SEGMENT_SECONDS, STEP_SECONDS = 16, 15


def transcribed_midi(audio: Any, sampling_rate: int | None = None) -> bytes:
    """Transcribes a recording to MIDI with transkun: notes and pedals; on a GPU if available.

    Args:
        audio: a file, its content, or a waveform, as in `PianoBindFeatureExtractor.windows`.
        sampling_rate (`int`, *optional*): of a waveform, in Hz.
    Returns:
        `bytes`: the content of a MIDI file. A note that sounds across the end of a stretch of 300 s is struck twice.
    Raises:
        ImportError: the extra is not installed.
        FileNotFoundError, PermissionError, IsADirectoryError: the file cannot be opened.
        ValueError: the recording cannot be decoded or transcribed, or has no note; the message names it.
    """
    model, write_midi = load_transcriber()
    name = audio_name(audio)
    blocks, notes, start_seconds = audio_blocks(audio, sampling_rate, model.fs), [], 0.0
    while stretch := list(itertools.islice(blocks, STRETCH_BLOCKS)):
        samples = np.concatenate(stretch)
        end_seconds = start_seconds + len(samples) / model.fs
        for note in _notes(model, samples, name) if len(samples) else ():
            note.start, note.end = (min(start_seconds + at, end_seconds) for at in (note.start, note.end))
            if note.start < note.end:
                notes.append(note)
        start_seconds = end_seconds
    if not any(note.pitch > 0 for note in notes):  # below 0 are pedals
        raise ValueError(f"{name}: no piano note is heard in it; leave it out, or do without the transcription.")
    content = io.BytesIO()
    write_midi(notes).write(content)
    return content.getvalue()


def _notes(model: torch.nn.Module, samples: np.ndarray, name: str) -> list:
    """transkun's events in mono `samples (samples,)`, in seconds from the first."""
    try:
        device = next(model.parameters()).device
        fast = torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device))
        with torch.inference_mode(), fast, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of gradients that transkun's checkpointing misses here
            samples = torch.from_numpy(samples)[:, None].to(device)
            return model.transcribe(samples, STEP_SECONDS, SEGMENT_SECONDS, discardSecondHalf=False)
    except RuntimeError as error:
        raise ValueError(f"{name}: transkun cannot transcribe it ({' '.join(str(error).split())}).") from error


@cache
def load_transcriber() -> tuple[torch.nn.Module, Callable]:
    """The model with its packaged weights, made once, and the function that makes MIDI of its notes.

    Raises:
        ImportError: the extra is not installed.
    """
    try:
        import moduleconf
        import transkun
        from transkun.Data import writeMidi
    except (ImportError, OSError) as error:  # OSError: a torchaudio made for another torch
        raise ImportError(
            f"transcribing recordings needs transkun, which cannot be imported ({error}); "
            'run pip install "pianobind[transcribe]", or do without `transcribe`.'
        ) from error
    # The package's own command finds these two files with pkg_resources, which newer setuptools lack.
    folder = Path(transkun.__file__).parent / "pretrained"
    description = moduleconf.parseFromFile(str(folder / "2.0.conf"))["Model"]
    model = description.module.TransKun(conf=description.config)
    weights = torch.load(folder / "2.0.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(weights.get("best_state_dict") or weights["state_dict"], strict=False)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), writeMidi


__all__ = ["load_transcriber", "transcribed_midi"]
