"""Draws a search's results as the page of `pianobind app` shows them, for the README.

python -m model_cards.result_list --query "slow, sad and quiet" --output evaluation/results/plots/search.svg
"""

import argparse
import re
import sys
from html import escape
from pathlib import Path

from modeling_pianobind.app.library import Library, View
from modeling_pianobind.app.synthesis import AdditivePiano
from modeling_pianobind.service.checkpoint import Checkpoint
from modeling_pianobind.service.errors import UserError
from modeling_pianobind.service.examples import DEMO_QUERIES, EXAMPLES

WIDTH, ROW_HEIGHT, HEAD_HEIGHT, ROLL_LEFT, ROLL_HEIGHT = 900, 104, 56, 330, 84
PAGE_STYLE = Path(__file__).parent.parent / "modeling_pianobind" / "app" / "page.css"
STYLE = """text{font-family:Georgia,'DejaVu Serif',serif;fill:#24201c}.small{font-size:13px;fill:#756c62}
.octaves{stroke:#e6dfd3;fill:none;vector-effect:non-scaling-stroke}"""


def colours() -> dict[str, str]:
    """The page's colours by name, of its light theme."""
    return dict(reversed(re.findall(r"--pb-(\w+): (#\w+);", PAGE_STYLE.read_text(encoding="utf-8"))))


def draw(query: str, views: list[View]) -> str:
    """An SVG picture of the hits, best first."""
    known = colours()
    rules = [f".{name}{{fill:{colour}}}" for name, colour in known.items() if name.startswith(("loud", "match"))]
    height = HEAD_HEIGHT + ROW_HEIGHT * len(views)
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f"<style>{STYLE}{''.join(rules)}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="10" fill="{known["paper"]}"/>',
        f'<text x="20" y="36" font-size="21">“{escape(query)}”</text>',
    ]
    for number, view in enumerate(views):
        top = HEAD_HEIGHT + ROW_HEIGHT * number
        roll = view.roll.replace("<svg ", f'<svg x="{ROLL_LEFT}" y="{top}" width="{WIDTH - ROLL_LEFT - 20}" ', 1)
        roll = roll.replace('preserveAspectRatio="none"', f'height="{ROLL_HEIGHT}" preserveAspectRatio="none"', 1)
        words = ", ".join(label for label, _ in view.tags[:3])
        rows += [
            f'<text x="20" y="{top + 24}" font-size="17" fill="{known["accent"]}">{number + 1}</text>',
            f'<text x="44" y="{top + 24}" font-size="15">{escape(_short(view.title))}</text>',
            f'<text x="44" y="{top + 44}" class="small">{escape(_short(view.subtitle.split(" · ")[0]))}</text>',
            f'<text x="44" y="{top + 64}" class="small">{escape(words)}</text>',
            f'<rect x="{ROLL_LEFT}" y="{top}" width="{WIDTH - ROLL_LEFT - 20}" height="{ROLL_HEIGHT}" rx="4" '
            f'fill="{known["roll"]}"/>',
            roll,
        ]
    return "\n".join([*rows, "</svg>"]) + "\n"


def _short(text: str, max_characters: int = 36) -> str:
    return text if len(text) <= max_characters else f"{text[: max_characters - 1].rstrip()}…"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m model_cards.result_list", description=__doc__.split("\n")[0])
    parser.add_argument("--query", default=DEMO_QUERIES[0])
    parser.add_argument("--top-k", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True, help="SVG file to write")
    given = parser.parse_args(arguments)
    try:
        library = Library(EXAMPLES, Checkpoint(device="cpu"), AdditivePiano())
        views = library.search(given.query, top_k=given.top_k)
        given.output.write_text(draw(given.query, views), encoding="utf-8")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
