"""Files that are replaced in one step: readers see the old content or the new one, also after a kill."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_beside(target: str | os.PathLike) -> Iterator[Path]:
    """The path of a hidden file in the folder of `target`; it is removed afterwards unless it was renamed."""
    target = Path(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(target: str | os.PathLike) -> Iterator[Path]:
    """A path to write to; its file replaces `target` when the block ends without an error.

    Raises:
        OSError: it cannot be written; `target` is unchanged then.
    """
    with temporary_beside(target) as temporary:
        yield temporary
        sync(temporary)
        os.replace(temporary, target)


def replace_file(target: str | os.PathLike, content: bytes | str) -> None:
    """Writes a file in one step; text as UTF-8.

    Raises:
        OSError: it cannot be written; `target` is unchanged then.
    """
    with atomic_file(target) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """Waits until the disk has a file's content: after a crash a rename may be there before the content is."""
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


__all__ = ["atomic_file", "replace_file", "sync", "temporary_beside"]
