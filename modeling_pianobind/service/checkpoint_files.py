"""Small files of arrays in a checkpoint's folder, each for one set of weights."""

import os
from pathlib import Path

import numpy as np

from ..atomic_file import atomic_file


def save_checkpoint_arrays(
    path: str | os.PathLike, arrays: dict[str, np.ndarray], fingerprint: str, version: str
) -> None:
    """Writes arrays for the checkpoint of a fingerprint, in one step.

    Args:
        version (`str`): of the format.
    """
    from safetensors.numpy import save_file

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with atomic_file(path) as temporary:
        save_file(arrays, temporary, {"checkpoint_fingerprint": fingerprint, "format_version": version})


def load_checkpoint_arrays(
    path: str | os.PathLike, names: list[str], fingerprint: str, version: str
) -> dict[str, np.ndarray] | None:
    """Reads such a file as float32; None if there is none, it is damaged, or it belongs to other weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            if file.metadata() != {"checkpoint_fingerprint": fingerprint, "format_version": version}:
                return None
            return {name: file.get_tensor(name).astype(np.float32) for name in names}
    except (OSError, SafetensorError):
        return None


def checkpoint_file(checkpoint: str | os.PathLike, name: str) -> Path:
    """Where a file of a checkpoint is: in its folder, or in the Hub's cache; fetched if it is not there yet.

    A file that the Hub does not have has a path that does not exist.
    """
    if not os.path.isdir(checkpoint):
        from transformers.utils import cached_file

        cached = cached_file(checkpoint, name, _raise_exceptions_for_missing_entries=False,
                            _raise_exceptions_for_connection_errors=False)  # fmt: skip
        return Path(cached or name)
    return Path(checkpoint) / name


__all__ = ["checkpoint_file", "load_checkpoint_arrays", "save_checkpoint_arrays"]
