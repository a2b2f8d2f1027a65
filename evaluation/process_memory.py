"""What a process of this machine holds, as Linux says."""

from pathlib import Path


def memory_kilobytes(pid: int | str = "self", field: str = "VmRSS") -> int:
    """What a process holds now; with `VmHWM` its peak, which `getrusage` would begin with that of its parent."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
