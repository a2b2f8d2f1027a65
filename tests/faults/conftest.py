"""Small disks for the tests of faults."""

import subprocess
from pathlib import Path

import pytest


class Disk:
    """A small disk of its own, in memory."""

    def __init__(self, folder: Path):
        self.folder, self.filler = folder, folder / "filler"

    def fill(self, free_bytes: int = 0) -> None:
        """Leaves so much room."""
        self.filler.unlink(missing_ok=True)
        with self.filler.open("wb", buffering=0) as handle:
            try:
                while True:
                    handle.write(b"\0" * 4096)
            except OSError:  # full
                handle.truncate(max(0, handle.tell() - free_bytes))

    def empty(self) -> None:
        self.filler.unlink()

    def make_read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk has to be mounted, which takes root on Linux")
    yield Disk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)
