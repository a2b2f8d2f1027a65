"""How much work a `kill -9` of a first index costs: `python -m tests.faults.lost_work` kills one at 20 random moments.

The runs are forked side by side from a process that has imported the libraries. Each embeds copies of one file with a
tiny model and pauses after each, so that it lasts minutes and hardly keeps the processor busy. Lost is what the next
start has to do again: the time since the last file that the saved index holds was done.
"""

import argparse
import json
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path

from modeling_pianobind import EmbeddingIndex, cli, embedding_pianobind
from modeling_pianobind.index import build
from modeling_pianobind.service.examples import EXAMPLES

from ..conftest import save_tiny_checkpoint

PAUSE_SECONDS = 0.25  # after each file
MAX_LOST_SECONDS = 60.0  # of work, by a kill


def measure(folder: Path, kills: int, longest: float, seed: int = 0) -> dict:
    """Starts `kills` runs and kills each at a random moment of its first `longest` seconds.

    Returns:
        `dict`: of each run, by the time of its kill: seconds until it, files that were done, files that were saved,
        and the seconds of work that were lost.
    """
    music, checkpoint = folder / "music", folder / "checkpoint"
    music.mkdir()
    for number in range(round(longest / PAUSE_SECONDS) + 10):
        shutil.copyfile(EXAMPLES / "carreno-little-waltz.mid", music / f"{number:04}.mid")
    save_tiny_checkpoint(checkpoint)
    chance, waiting = random.Random(seed), []
    for number in range(kills):
        output = folder / f"index-{number:02}"
        begun, pid = time.monotonic(), _start(music, output, checkpoint)
        waiting.append((begun + chance.uniform(0, longest), begun, pid, output))
    ended = []
    for moment, begun, pid, output in sorted(waiting):
        time.sleep(max(0.0, moment - time.monotonic()))
        os.kill(pid, signal.SIGKILL)
        ended.append((time.monotonic(), begun, output))
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            raise RuntimeError(f"{output}: the run ended by itself, with {status}")
    return {"runs": [_judged(*run) for run in ended]}


def _start(music: Path, output: Path, checkpoint: Path) -> int:
    """Forks a run that writes down when each file is done; its process id."""
    if pid := os.fork():
        return pid
    status, embed = 1, embedding_pianobind.embed_files
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        log = os.open(_log_of(output), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def slowly(model, processor, paths, **settings):
            os.write(log, struct.pack("d", time.monotonic()))
            for position, path in enumerate(paths):
                for _, file in embed(model, processor, [path], **settings):
                    time.sleep(PAUSE_SECONDS)
                    os.write(log, struct.pack("d", time.monotonic()))
                    yield position, file

        embedding_pianobind.embed_files = slowly
        command = ["index", str(music), "--output", str(output), "--checkpoint", str(checkpoint), "--device", "cpu"]
        status = cli.main(command)
    finally:
        os._exit(status)


def _log_of(output: Path) -> Path:
    return output.with_suffix(".log")


def _judged(killed: float, begun: float, output: Path) -> dict:
    """What a killed run had done and had saved; the index has to be whole."""
    log = _log_of(output).read_bytes() if _log_of(output).is_file() else b""
    times = struct.unpack(f"{len(log) // 8}d", log)  # when the work began, then when each file was done
    saved = len(EmbeddingIndex.load(output, verify=True)) if (output / "index.json").exists() else 0
    lost = killed - times[saved] if times else 0.0
    seconds = {"killed_after": killed - begun, "done": max(0, len(times) - 1), "saved": saved, "lost_seconds": lost}
    return {name: round(value, 1) for name, value in seconds.items()}


def main(argv=None) -> int:
    """Prints what was lost as JSON; the exit status is 1 if it was more than a minute."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.lost_work", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument("--longest", type=float, default=150.0, metavar="S", help="the latest moment (default: 150 s)")
    parser.add_argument(
        "--save-seconds", type=float, default=build.SAVE_SECONDS, metavar="S", help="between two saves"
    )
    args = parser.parse_args(argv)
    build.SAVE_SECONDS = args.save_seconds
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args.kills, args.longest)
    result["most_lost_seconds"] = max(run["lost_seconds"] for run in result["runs"])
    print(json.dumps(result, indent=1))
    return 1 if result["most_lost_seconds"] > MAX_LOST_SECONDS else 0


if __name__ == "__main__":
    sys.exit(main())
