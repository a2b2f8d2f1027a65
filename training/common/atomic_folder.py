"""Folders that are complete or absent, even if the process that writes them is killed."""

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from modeling_pianobind.index.folder_lock import folder_lock

PARTIAL, PREVIOUS = ".partial", ".previous"
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
MIN_FREE_BYTES = 1 << 20
YOUNG_SECONDS = 60


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """An empty folder that replaces `target` when the block ends without an error.

    An error leaves `target` unchanged. Leftovers of killed processes are removed.

    Raises:
        ValueError: another process writes it at this moment.
        OSError: it cannot be written; a disk that is full or may only be read is named in one line.
    """
    target = Path(os.path.realpath(target))
    partial = target.with_name(target.name + PARTIAL)
    with writing(target):
        if os.path.ismount(target):
            raise OSError(f"{target}: is where a disk is mounted, so no folder can take its place; name one in it.")
        restore(target)
        partial.mkdir(parents=True, exist_ok=True)
        with _alone(partial, target):
            for entry in partial.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            try:
                yield partial
                _replace(partial, target)
            except BaseException as error:
                reason = _disk_error(error, partial)
                shutil.rmtree(partial, ignore_errors=True)
                if reason is None:
                    raise
                raise OSError(reason, os.strerror(reason), str(target)) from error


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder; leftovers of killed processes with the same prefix are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # another process's, or another user's
            # A process creates its folder and locks it in two steps.
            if left.stat().st_mtime < time.time() - YOUNG_SECONDS:
                with folder_lock(left, wait=False) as is_alone:
                    if is_alone:
                        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=prefix) as folder, folder_lock(folder):
        yield Path(folder)


def restore(target: Path) -> None:
    """Restores a folder's name if a process was killed while replacing the folder."""
    previous = target.with_name(target.name + PREVIOUS)
    if previous.exists() and not target.exists():
        previous.rename(target)
    shutil.rmtree(previous, ignore_errors=True)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Names the place in the error of a disk that is full or may only be read."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise OSError(f"{path}: cannot be written ({error.strerror}); make room, or choose another place.") from error


@contextmanager
def _alone(partial: Path, target: Path) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(folder_lock(partial, wait=False))
        except BlockingIOError as error:
            wait = "wait for its end, or choose another place."
            raise ValueError(f"{target}: another process writes it; {wait}") from error
        yield


def _replace(partial: Path, target: Path) -> None:
    previous = target.with_name(target.name + PREVIOUS)
    if target.exists():
        target.rename(previous)
    partial.rename(target)
    shutil.rmtree(previous, ignore_errors=True)


def _disk_error(error: BaseException, folder: Path) -> int | None:
    """The errno behind a library's error about the disk; None for other errors."""
    if isinstance(error, OSError):
        return error.errno if error.errno in DISK_ERRORS else None
    if isinstance(error, SafetensorError) and (number := re.search(r"os error (\d+)", str(error))):
        return int(number[1])
    # torch.save reports only that it wrote too little.
    is_full = isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < MIN_FREE_BYTES
    return errno.ENOSPC if is_full else None


__all__ = ["atomic_folder", "restore", "temporary_folder", "writing"]
