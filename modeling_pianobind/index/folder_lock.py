"""One process at a time writes to a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def folder_lock(folder, wait: bool = True) -> Iterator[bool]:
    """Holds a lock on a folder, which the system lets go of when the process ends, however it ends.

    Args:
        wait (`bool`): until another process lets go of it.
    Yields:
        Whether it is held: False where the system, or the file system, knows no locks.
    Raises:
        BlockingIOError: another process holds it, and `wait` is False.
        OSError: there is no such folder.
    """
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(handle, wait)
    finally:
        os.close(handle)


def _lock(handle, wait) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


__all__ = ["folder_lock"]
