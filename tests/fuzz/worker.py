"""Runs cases in a process of its own, since what reads them may crash: a request a line in, an answer a line out.

A request is `kind seed`; the answer is JSON with `outcome`, `seconds` (of CPU) and `megabytes` (the most memory that
the case took). One limit is the system's: what asks for more than a few gigabytes gets a MemoryError.
"""

import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

from evaluation.process_memory import memory_kilobytes

HEADROOM_BYTES = 3 << 30


def peak_bytes() -> int:
    """The most memory that this process has held since `reset_peak`."""
    return 1024 * memory_kilobytes(field="VmHWM")


def reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def build_judge(folder: Path):
    from modeling_pianobind import PianoBindModel, PianoBindProcessor
    from tests.conftest import save_tiny_checkpoint

    from .judge import Judge

    checkpoint = folder / "tiny"
    save_tiny_checkpoint(checkpoint)
    model = PianoBindModel.from_pretrained(checkpoint).eval()
    return Judge(checkpoint, model, PianoBindProcessor.from_pretrained(checkpoint), folder)


def judge_case(judge, kind: str, seed: int) -> dict:
    case = judge.make(kind, random.Random(seed))
    before, start = reset_peak(), time.process_time()
    try:
        outcome = judge.try_case(kind, case)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome = f"WRONG {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    seconds, megabytes = time.process_time() - start, (peak_bytes() - before) / 1e6
    return {"outcome": outcome, "seconds": seconds, "megabytes": megabytes}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand among the answers
    with tempfile.TemporaryDirectory() as folder:
        judge = build_judge(Path(folder))
        used = 1024 * int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize() // 1024
        resource.setrlimit(resource.RLIMIT_DATA, (used + HEADROOM_BYTES, used + HEADROOM_BYTES))
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            kind, seed = line.split()
            print(json.dumps(judge_case(judge, kind, int(seed))), file=answers, flush=True)


if __name__ == "__main__":
    main()
