"""Memory of a process on Linux."""

from pathlib import Path


def memory_kilobytes(pid: int | str = "self", field: str = "VmRSS") -> int:
    """Resident memory; with `VmHWM` the peak, which `getrusage` inherits from the parent."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
