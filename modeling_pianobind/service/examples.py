"""The example corpus of the package, queries that suit it, and the titles of a folder's pieces."""

import json
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
DEMO_QUERIES = (
    "slow, sad and quiet",
    "fast ragtime with a steady left hand",
    "a calm, dreamy piece with long pedal",
    "loud, grand and dramatic",
    "a light waltz in the high register",
)


def titles(folder: str | Path) -> dict[str, tuple[str, str]]:
    """Title and creator by file name; a row of `examples.jsonl` has `file` and may have `title` and `creator`.

    Args:
        folder: one without such a file has no titles.
    """
    path = Path(folder) / "examples.jsonl"
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {row["file"]: (row.get("title") or "", row.get("creator") or "") for row in rows}


__all__ = ["DEMO_QUERIES", "EXAMPLES", "titles"]
