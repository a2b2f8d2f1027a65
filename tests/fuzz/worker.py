"""Runs cases in a process of its own, since what reads them may crash: a request a line in, an answer a line out.

A request is `kind seed`; the answer is JSON with `outcome`, `seconds` (of CPU) and `megabytes` (the most memory that
the case took), `verovio_seconds` and `verovio_megabytes` of the process that reads scores. One limit is the system's:
what asks for more than a few gigabytes gets a MemoryError.
"""

import contextlib
import json
import os
import random
import resource
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from evaluation.process_memory import memory_kilobytes
from modeling_pianobind import score_pianobind

HEADROOM_BYTES = 3 << 30


def peak_bytes() -> int:
    """The most memory that this process has held since `reset_peak`."""
    return 1024 * memory_kilobytes(field="VmHWM")


def reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


class Verovio:
    """What all processes with verovio used; `pids` are those that were started."""

    def __init__(self):
        self.pids, self.megabytes = [], 0.0
        start = score_pianobind.ScoreWorker

        def started():
            worker = start()
            self.pids.append(worker.process.pid)
            return worker

        score_pianobind.ScoreWorker = started
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self):
        """Follows the peak of the last one; that of an ended process, as the system keeps it, counts its parent's."""
        while True:
            with contextlib.suppress(OSError, StopIteration, IndexError):
                self.megabytes = max(self.megabytes, memory_kilobytes(self.pids[-1], "VmHWM") * 1024 / 1e6)
            time.sleep(0.02)

    def seconds(self) -> float:
        """CPU time of all, those that have ended too."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        ticks = 0
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{self.pids[-1]}/stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
        return ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def build_judge(folder: Path):
    from modeling_pianobind import PianoBindModel, PianoBindProcessor
    from tests.conftest import save_tiny_checkpoint

    from .judge import Judge

    checkpoint = folder / "tiny"
    save_tiny_checkpoint(checkpoint)
    model = PianoBindModel.from_pretrained(checkpoint).eval()
    return Judge(checkpoint, model, PianoBindProcessor.from_pretrained(checkpoint), folder)


def judge_case(judge, verovio: Verovio, kind: str, seed: int) -> dict:
    case = judge.make(kind, random.Random(seed))
    before, start, verovio_start = reset_peak(), time.process_time(), verovio.seconds()
    try:
        outcome = judge.try_case(kind, case)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome = f"WRONG {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    seconds, megabytes = time.process_time() - start, (peak_bytes() - before) / 1e6
    return {
        "outcome": outcome,
        "seconds": seconds,
        "megabytes": megabytes,
        "verovio_seconds": verovio.seconds() - verovio_start,
        "verovio_megabytes": verovio.megabytes,
    }


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand among the answers
    with tempfile.TemporaryDirectory() as folder:
        judge, verovio = build_judge(Path(folder)), Verovio()
        used = 1024 * int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize() // 1024
        resource.setrlimit(resource.RLIMIT_DATA, (used + HEADROOM_BYTES, used + HEADROOM_BYTES))
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            kind, seed = line.split()
            print(json.dumps(judge_case(judge, verovio, kind, int(seed))), file=answers, flush=True)


if __name__ == "__main__":
    main()
