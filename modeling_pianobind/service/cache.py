"""Cache folder of the package."""

import os
from pathlib import Path


def cache_root() -> Path:
    """$PIANOBIND_CACHE, or `pianobind` in the user's cache folder."""
    root = os.environ.get("PIANOBIND_CACHE")
    return Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pianobind"


__all__ = ["cache_root"]
