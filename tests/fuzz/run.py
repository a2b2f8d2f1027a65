"""Runs hostile inputs and says what came of them.

python -m tests.fuzz.run --cases 1000                     # of each kind
python -m tests.fuzz.run --kind midi --cases 100000 --first 7000
python -m tests.fuzz.run --kind midi --show 7123 > case.mid
"""

import argparse
import json
import os
import random
import select
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field

# As in `judge`, whose imports take seconds; a test compares the two.
KINDS = ("midi", "midi_original", "musicxml", "xml", "mxl", "mei", "humdrum", "abc",
         "audio", "wav", "flac", "mp3", "ogg", "text", "text_numpy", "index", "checkpoint")  # fmt: skip
MAX_SECONDS, MAX_MEGABYTES = 5.0, 1000.0
# What messages say of a score that ended verovio's process, or that verovio did not finish: caught, and counted.
VEROVIO_ENDS = {"its process ended": "ended verovio", "did not finish": "exhausted verovio"}
PATIENCE_SECONDS = 400.0  # of the clock, for a machine that does other work as well; a score has 300 of its own


@dataclass
class Report:
    """What came of the cases of one kind: how many of them embedded or refused, and the seeds of the others.

    Attributes:
        verovio (`Counter`): how many of the refused ended verovio's process, and how many exhausted its time.
    """

    kind: str
    counts: Counter = field(default_factory=Counter)
    problems: list[tuple[int, str]] = field(default_factory=list)
    most_seconds: float = 0.0
    max_megabytes: float = 0.0
    verovio: Counter = field(default_factory=Counter)
    max_verovio_seconds: float = 0.0
    max_verovio_megabytes: float = 0.0

    def take(self, seed: int, answer: dict) -> None:
        outcome = answer["outcome"]
        self.most_seconds = max(self.most_seconds, answer["seconds"])
        self.max_megabytes = max(self.max_megabytes, answer["megabytes"])
        self.max_verovio_seconds = max(self.max_verovio_seconds, answer.get("verovio_seconds", 0.0))
        self.max_verovio_megabytes = max(self.max_verovio_megabytes, answer.get("verovio_megabytes", 0.0))
        self.verovio.update(how for said, how in VEROVIO_ENDS.items() if said in outcome)
        if answer["seconds"] > MAX_SECONDS:
            outcome = f"SLOW {answer['seconds']:.1f} s"
        elif answer["megabytes"] > MAX_MEGABYTES:
            outcome = f"LARGE {answer['megabytes']:.0f} MB"
        self.counts[outcome.split(":")[0].split()[0]] += 1
        if outcome != "embedding" and not outcome.startswith("refused: "):
            self.problems.append((seed, outcome))
            print(f"  {self.kind} {seed}: {outcome[:500]}", flush=True)

    def __str__(self):
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.counts.items()))
        said = f"{self.kind}: {counts}; at most {self.most_seconds:.2f} s and {self.max_megabytes:.0f} MB a case"
        if self.max_verovio_megabytes:
            ends = ", ".join(f"{count} {how}" for how, count in sorted(self.verovio.items())) or "none ended verovio"
            said += f"; {ends}, it took at most {self.max_verovio_seconds:.2f} s and held at most "
            said += f"{self.max_verovio_megabytes:.0f} MB"
        return said


class Worker:
    """A process that judges cases, and is started again when one has ended it."""

    def __init__(self):
        self._process = None

    def judge(self, kind: str, seed: int) -> dict:
        if self._process is None:
            self._start()
        self._process.stdin.write(f"{kind} {seed}\n")
        self._process.stdin.flush()
        line = self._answer(PATIENCE_SECONDS)
        if line:
            return json.loads(line)
        outcome = "HUNG" if self._process.poll() is None else f"CRASH with status {self._process.returncode}"
        self.stop()
        return {"outcome": outcome, "seconds": 0.0, "megabytes": 0.0}

    def _start(self):
        command = [sys.executable, "-m", "tests.fuzz.worker"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        # Threads that wait for each other would count as CPU time of the case.
        self._process = subprocess.Popen(
            command, text=True, bufsize=1, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes
        )
        if self._answer(PATIENCE_SECONDS).strip() != "ready":
            raise RuntimeError(f"the worker does not start; `{' '.join(command)}` says why.")

    def _answer(self, seconds: float) -> str:
        """A line of the worker; "" if it has ended, or gives none in time."""
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else ""
        if ready and not line:
            self._process.wait()
        return line

    def stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None


def run_cases(worker: Worker, kind: str, first: int, cases: int) -> Report:
    """Judges the cases of the seeds from `first` on."""
    report = Report(kind)
    for seed in range(first, first + cases):
        report.take(seed, worker.judge(kind, seed))
    return report


def show(kind: str, seed: int) -> None:
    """Writes a case to stdout."""
    from .judge import Judge

    case = Judge.make(None, kind, random.Random(seed))
    sys.stdout.buffer.write(case if isinstance(case, bytes) else str(case).encode("utf-8", "surrogatepass"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=KINDS, action="append", help="all kinds if left out")
    parser.add_argument("--cases", type=int, default=1000, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first")
    parser.add_argument("--show", type=int, metavar="SEED", help="write that case of --kind to stdout instead")
    given = parser.parse_args()
    if given.show is not None:
        show(given.kind[0], given.show)
        return 0
    failed, worker = 0, Worker()
    try:
        for kind in given.kind or KINDS:
            report = run_cases(worker, kind, given.first, given.cases)
            print(report, flush=True)
            failed += len(report.problems)
    finally:
        worker.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
