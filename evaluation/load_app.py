"""Many clients at once against a running `pianobind app`.

    pianobind app --port 7860 &
    python -m evaluation.load_app http://127.0.0.1:7860/ --clients 32 --seconds 120 --midi FILE

Each client searches, plays and uploads in turn, without a pause. Answers that say "busy" are refusals and count apart;
any other failure ends in exit status 1.
"""

import argparse
import collections
import itertools
import json
import statistics
import sys
import threading
import time

import httpx
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

QUERIES = ("slow and sad", "fast ragtime", "a calm, dreamy piece", "loud and grand", "a waltz")


def run_client(number: int, url: str, midi: str | None, until: float, record) -> None:
    """Asks until the time is up; `record(kind, outcome, seconds)` for each request."""
    client = Client(url, verbose=False)
    tasks = {
        "search": lambda turn: client.predict(QUERIES[(number + turn) % len(QUERIES)], 0.5, api_name="/search"),
        "play": lambda turn: _play(url, number + turn),
    }
    if midi:
        tasks["upload"] = lambda turn: client.predict(handle_file(midi), api_name="/upload")
    for turn, kind in enumerate(itertools.cycle(tasks)):
        start = time.monotonic()
        if start >= until:
            return
        try:
            tasks[kind](turn)
            outcome = "ok"
        except Exception as error:  # whatever it is, it is counted and named
            outcome = "busy" if isinstance(error, AppError) and "busy" in str(error) else f"failed: {error!r}"
        record(kind, outcome, time.monotonic() - start)


def _play(url, number):
    answer = httpx.get(f"{url}audio/{number % 20}.flac", timeout=60)
    if answer.status_code == 503:
        raise AppError(answer.text)
    answer.raise_for_status()


def main(argv: list[str] | None = None) -> int:
    """Runs the clients and prints one JSON object; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="with a slash at its end")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--midi", help="a MIDI file to upload")
    arguments = parser.parse_args(argv)

    outcomes, seconds, lock = (
        collections.defaultdict(collections.Counter),
        collections.defaultdict(list),
        threading.Lock(),
    )

    def record(kind, outcome, taken):
        with lock:
            outcomes[kind][outcome] += 1
            if outcome == "ok":
                seconds[kind].append(taken)

    until = time.monotonic() + arguments.seconds
    clients = [
        threading.Thread(target=run_client, args=(number, arguments.url, arguments.midi, until, record))
        for number in range(arguments.clients)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    medians = {kind: round(statistics.median(taken), 2) for kind, taken in seconds.items()}
    print(json.dumps({"clients": arguments.clients, "answers": outcomes, "median_seconds": medians}, indent=1))
    return int(any(outcome not in ("ok", "busy") for counts in outcomes.values() for outcome in counts))


if __name__ == "__main__":
    sys.exit(main())
