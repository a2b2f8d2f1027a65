"""Progress lines on stderr, for work without a progress bar."""

import sys
import threading
import time

from .errors import complain

LINE_SECONDS = 30.0


class ProgressLines:
    """Prints a line every half minute while files are worked on: for logs, where a bar would be noise.

    Used as a context manager; `begin` and `step` are what `build.embed_folder` calls.
    """

    def __init__(self):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._doing, self._done, self._files, self._begun = "", 0, 0, time.monotonic()

    def __enter__(self) -> "ProgressLines":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def begin(self, doing: str, files: int) -> None:
        """`files` are going to be `doing`: "read" or "embedded"."""
        self._doing, self._done, self._files, self._begun = doing, 0, files, time.monotonic()

    def step(self) -> None:
        """One of them is done."""
        self._done += 1

    def _run(self) -> None:
        while not self._stop.wait(LINE_SECONDS):
            # On a terminal only the embedding has a progress bar, not the reading of files.
            if self._done < self._files and (self._doing == "read" or not sys.stderr.isatty()):
                complain(f"{self._done} of {self._files} files are {self._doing}{self._rest()}")

    def _rest(self) -> str:
        if not self._done:
            return ""
        seconds = (time.monotonic() - self._begun) / self._done * (self._files - self._done)
        return f"; about {seconds / 60:.0f} min to go" if seconds >= 60 else "; less than a minute to go"


__all__ = ["ProgressLines"]
