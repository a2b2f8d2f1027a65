"""One process at a time writes to a folder, on any system: a lock file, by `filelock`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def folder_lock(folder: str | os.PathLike, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of a folder; the system releases it when the process ends, for any reason.

    The lock file lies beside the folder, since a folder's content is published, moved and compared as it is.

    Args:
        wait (`bool`): until another process releases it.
    Yields:
        Whether it is held: False where no lock file can be made, or the file system has no locks.
    Raises:
        BlockingIOError: another process holds it, and `wait` is False.
    """
    folder = Path(os.path.abspath(folder))
    file = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(file, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(f"{folder}: another process holds its lock") from error
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        # Removed while it is held: a waiting process sees that the file has changed, and opens the new one.
        with suppress(OSError):  # Windows removes it by itself, and not while it is open
            file.unlink()
        lock.release()


__all__ = ["folder_lock"]
