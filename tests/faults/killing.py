"""Commands in processes of their own that are killed while they run.

Importing the libraries takes longer than the work of these tests. So most commands run in a process that is forked
from one that has imported them, where a kill at a random moment hits the work; every tenth is a process that starts
as a user's does. `python -m tests.faults.killing MODULE` is the one that is forked.
"""

import importlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LATEST_SECONDS = 0.05  # that an aimed kill may come after what it was aimed at
MAX_SECONDS = 600
IMPORTED = (
    "modeling_pianobind.embedding_pianobind",
    "modeling_pianobind.modeling_pianobind",
    "modeling_pianobind.processing_pianobind",
    "transformers.models.bert.modeling_bert",
)
FRESH = 10  # of so many kills one is of a process that starts from nothing


class ForkedRun:
    """A run in a forked process, with the face of a `Popen`."""

    def __init__(self, server: subprocess.Popen, arguments: list[str]):
        self.server, self.status = server, None
        server.stdin.write(json.dumps(arguments).encode() + b"\n")
        self.pid = int(server.stdout.readline())

    def wait(self, timeout: float | None = None) -> int:
        if self.status is None:
            if timeout is not None and not select.select([self.server.stdout], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            self.status = int(self.server.stdout.readline())
        return self.status

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None


class Killer:
    """Kills runs of a module's `main`, and counts how far they had come.

    Args:
        module (`str`): as after `python -m`.
        phase: `phase(pid)` says so, of a run that is about to be killed.
        aims: functions of no argument that say whether the moment has come; every second kill waits for the next one.
        environment: variables besides those of this process.
        seed (`int`): of the moments.
    """

    def __init__(self, module, phase, aims, environment=None, seed=0):
        self.module, self.phase, self.aims, self.random = module, phase, aims, random.Random(seed)
        self.environment = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
        self.phases, self.number, self.begun = Counter(), 0, time.monotonic()
        self.server, self.seconds = None, {}  # seconds of a whole run, by whether it starts from nothing

    def start(self, arguments, is_fresh: bool):
        """Starts a run, as the leader of its children."""
        arguments = [str(argument) for argument in arguments]
        if not is_fresh:
            if self.server is None:
                # Without a buffer, where `select` would not see a line.
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
                command = [sys.executable, "-m", __spec__.name, self.module]
                self.server = subprocess.Popen(command, cwd=ROOT, env=self.environment, **pipes)
            return ForkedRun(self.server, arguments)
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [sys.executable, "-m", self.module, *arguments]
        return subprocess.Popen(command, cwd=ROOT, env=self.environment, start_new_session=True, **silent)

    def measure(self, arguments_of) -> None:
        """Does three whole runs, each with `arguments_of(name)`; kills are spread over as many seconds."""
        self.start(arguments_of("first"), is_fresh=False).wait(MAX_SECONDS)  # while the server still imports
        for is_fresh in (False, True):
            begun = time.monotonic()
            assert self.start(arguments_of(f"timed-{is_fresh}"), is_fresh).wait(MAX_SECONDS) == 0
            self.seconds[is_fresh] = time.monotonic() - begun

    @property
    def killed(self) -> int:
        return self.phases.total() - self.phases["ended before"]

    def starts(self, kills: int) -> Iterator[int]:
        """Numbers of starts, for as long as fewer runs than `kills` were killed before they ended."""
        while self.killed < kills:
            yield self.number

    def kill(self, arguments) -> None:
        """Starts a run and kills it: at an aim or, every second time, at a random moment of what was measured."""
        is_fresh = not self.seconds or self.number % FRESH == FRESH - 1
        aim = None if self.number % 2 else self.aims[self.number // 2 % len(self.aims)]
        self.number += 1
        run = self.start(arguments, is_fresh)
        if aim is not None:
            until = time.monotonic() + MAX_SECONDS
            while run.poll() is None and time.monotonic() < until and not aim():
                time.sleep(0.0005)
        try:
            run.wait(self.random.uniform(0, LATEST_SECONDS if aim is not None else self.seconds[is_fresh]))
            assert run.wait() == 0, "it ended by itself, with an error"
            self.phases["ended before"] += 1
        except subprocess.TimeoutExpired:
            self.phases[self.phase(run.pid)] += 1
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()

    def close(self) -> None:
        """Says what was done."""
        if self.server is not None:
            self.server.communicate()
        where = ", ".join(f"{phase}: {count}" for phase, count in self.phases.most_common())
        runs = {True: "from nothing", False: "forked"}
        runs = ", ".join(f"{runs[is_fresh]} {seconds:.1f} s" for is_fresh, seconds in self.seconds.items())
        took = f"{time.monotonic() - self.begun:.0f} s"
        print(f"\n{self.module}: {self.killed} kills in {took} ({where}); a whole run: {runs or 'not measured'}")


def has_loaded(pid: int, library: str) -> bool:
    """Whether a process has a compiled library in memory, as far as the system tells."""
    try:
        return library in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def serve(module: str) -> None:
    """Runs a module's `main` with each line's arguments in a forked process; prints its id, then its exit status.

    Nothing runs here besides: threads that a library has started do not survive a fork.
    """
    main = importlib.import_module(module).main
    for name in IMPORTED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    for line in sys.stdin:
        arguments = json.loads(line)
        pid = os.fork()
        if not pid:
            status = 1
            try:
                os.dup2(nothing, 0)
                status = main(arguments)
            finally:
                os._exit(status)
        os.setpgid(pid, pid)
        print(pid, file=answers, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
