"""The example corpus of the package, and queries that suit it."""

from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
DEMO_QUERIES = (
    "slow, sad and quiet",
    "fast ragtime with a steady left hand",
    "a calm, dreamy piece with long pedal",
    "loud, grand and dramatic",
    "a light waltz in the high register",
)

__all__ = ["DEMO_QUERIES", "EXAMPLES"]
