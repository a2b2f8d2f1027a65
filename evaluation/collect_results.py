"""One results file of a checkpoint: `python -m evaluation.collect_results CHECKPOINT CORPUS MIDI AUDIO --output FILE`.

MIDI and AUDIO are what `evaluation.validate_midi` and `evaluation.validate_audio` wrote.
"""

import argparse
import hashlib
import json
import subprocess
from collections import Counter
from pathlib import Path

from training.corpus import PackedCorpus


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("checkpoint", "corpus", "midi", "audio"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    rows = PackedCorpus.load(arguments.corpus).rows
    trained = Counter((row["source"], row["licence"]) for row in rows if row["split"] == "train")
    weights = (arguments.checkpoint / "model.safetensors").read_bytes()
    results = {
        "checkpoint": arguments.checkpoint.name,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "corpus_rows": len(rows),
        "split": "valid",
        "commit": subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip(),
        "midi": json.loads(arguments.midi.read_text()),
        "audio": json.loads(arguments.audio.read_text()),
        "sources": [
            {"name": source, "pieces": pieces, "licence": licence}
            for (source, licence), pieces in sorted(trained.items())
        ],
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
