"""Many clients at once against a running `pianobind app`, or against the endpoint of a published checkpoint.

    pianobind app --port 7860 &
    python -m evaluation.load_app http://127.0.0.1:7860/ --clients 32 --seconds 120 --pid PID
    python evaluation/serve_endpoint.py FOLDER --port 7861 &
    python -m evaluation.load_app http://127.0.0.1:7861/ --endpoint --clients 32 --seconds 120 --pid PID

Each client sends good and bad requests in turn, without a pause. Bad ones have to be refused for what is wrong with
them. Answers that say "busy" count apart; any other ends in exit status 1.
"""

import argparse
import collections
import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable

from .load_requests import Requests, app_requests, endpoint_requests
from .process_memory import memory_kilobytes

BUSY = "is busy"
SHOWN_CHARACTERS = 200


def run_client(
    number: int,
    requests_of: Callable[[str], Requests],
    url: str,
    until: float,
    record: Callable[[str, str, float], None],
) -> None:
    """Sends requests until the time is up; `record(kind, outcome, seconds)` for each request."""
    try:
        requests = requests_of(url)
    except Exception as error:  # any error is counted and named
        return record("start", f"failed: {error!r}", 0.0)
    kinds = collections.deque(requests)
    kinds.rotate(number)  # so that not all send the same at once
    for turn, kind in enumerate(itertools.cycle(kinds)):
        start = time.monotonic()
        if start >= until:
            return None
        try:
            answer, expected = requests[kind](number + turn)
            right = expected.casefold() in answer.casefold()
            outcome = "busy" if BUSY in answer else "right" if right else f"wrong: {answer}"
        except Exception as error:
            outcome = f"failed: {error!r}"
        record(kind, outcome[:SHOWN_CHARACTERS], time.monotonic() - start)


def main(argv: list[str] | None = None) -> int:
    """Runs the clients and prints one JSON object; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="with a slash at its end")
    parser.add_argument("--endpoint", action="store_true", help="the address is that of evaluation/serve_endpoint.py")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--pid", type=int, help="of the server, whose memory is printed (Linux)")
    arguments = parser.parse_args(argv)

    outcomes, seconds, lock = (
        collections.defaultdict(collections.Counter),
        collections.defaultdict(list),
        threading.Lock(),
    )

    def record(kind, outcome, taken):
        with lock:
            outcomes[kind][outcome] += 1
            if outcome == "right":
                seconds[kind].append(taken)

    memory = {}

    def measure(when, **field):
        if arguments.pid:
            memory[when] = round(memory_kilobytes(arguments.pid, **field) / 1024)

    measure("before")
    start = time.monotonic()
    requests_of = endpoint_requests if arguments.endpoint else app_requests
    clients = [
        threading.Thread(
            target=run_client, args=(number, requests_of, arguments.url, start + arguments.seconds, record)
        )
        for number in range(arguments.clients)
    ]
    for client in clients:
        client.start()
    time.sleep(arguments.seconds / 2)
    measure("halfway")
    for client in clients:
        client.join()
    measure("after")
    measure("peak", field="VmHWM")
    result = {
        "clients": arguments.clients,
        "seconds": round(time.monotonic() - start),
        "answers": outcomes,
        "totals": sum(outcomes.values(), collections.Counter()),
        "median_seconds": {kind: round(statistics.median(taken), 2) for kind, taken in seconds.items()},
        "memory_megabytes": memory,
    }
    print(json.dumps(result, indent=1))
    return int(bool(set(result["totals"]) - {"right", "busy"}))


if __name__ == "__main__":
    sys.exit(main())
