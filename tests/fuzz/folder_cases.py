"""Saved indices and checkpoints with files that are damaged, missing or from elsewhere."""

import hashlib
import json
from pathlib import Path
from random import Random

from .byte_cases import NUMBERS, damaged

VALUES = (None, True, -1, 0.5, "", "x", "../../x", "/etc/passwd", [], {}, [[]], {"name": "x"}, "9" * 5000, *NUMBERS)


def damage_folder(random: Random, folder: Path) -> None:
    """Damages one to three files of a folder, in place; headers of an index are made to fit in half of the cases."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            return
        path, chance = random.choice(files), random.random()
        if chance < 0.1:
            path.unlink()
        elif chance < 0.2:
            path.write_bytes(random.choice(files).read_bytes())
        elif path.suffix == ".json" and chance < 0.7:
            wrong_value(random, path)
        elif path.suffix == ".safetensors" and chance < 0.6:
            wrong_number(random, path)
        else:
            path.write_bytes(damaged(random, path.read_bytes()))
    if random.random() < 0.5:
        fit_hashes(folder)


def wrong_value(random: Random, path: Path) -> None:
    """Another value, of any kind, somewhere in a JSON file; or one that is gone, or nested too deeply."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # damaged before
        return
    if random.random() < 0.02:
        path.write_text("[" * 100_000)
        return
    inner = content
    while isinstance(inner, (dict, list)) and inner:
        key = random.choice(list(inner)) if isinstance(inner, dict) else random.randrange(len(inner))
        if not isinstance(inner[key], (dict, list)) or not inner[key] or random.random() < 0.3:
            if random.random() < 0.2:
                del inner[key]
            else:
                inner[key] = random.choice(VALUES)
            break
        inner = inner[key]
    path.write_text(json.dumps(content))


def wrong_number(random: Random, path: Path) -> None:
    """Other bits in a few of the numbers behind the header, such as those of infinity."""
    content = bytearray(path.read_bytes())
    for _ in range(random.choice((1, 10, 1000))):
        at = 8 + int.from_bytes(content[:8], "little")
        if at + 8 >= len(content):
            return
        at = random.randrange(at, len(content) - 4)
        content[at : at + 4] = random.choice((b"\xff\xff\xff\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", b"\0" * 4))
    path.write_bytes(content)


def fit_hashes(folder: Path) -> None:
    """Makes every header in an index state the sizes and hashes of its damaged files, as an attacker would."""
    for path in folder.rglob("index.json"):
        try:
            header = json.loads(path.read_bytes())
            for entry in header["stored"].values():
                content = (path.parent / entry["name"]).read_bytes()
                entry["sha256"] = hashlib.sha256(content).hexdigest()
                if "bytes" in entry:
                    entry["bytes"] = len(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        path.write_text(json.dumps(header))
