"""What the pieces of a folder are called, where an `examples.jsonl` beside them says so."""

import json
from pathlib import Path


def titles(folder) -> dict[str, tuple[str, str]]:
    """Title and creator by file name; a row of `examples.jsonl` has `file` and may have `title` and `creator`.

    Args:
        folder: one without such a file has no titles.
    """
    path = Path(folder) / "examples.jsonl"
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {row["file"]: (row.get("title") or "", row.get("creator") or "") for row in rows}


__all__ = ["titles"]
