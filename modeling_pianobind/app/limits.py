"""What the page takes from its users, and how many it serves at once."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass


class BusyError(Exception):
    """Too many ask at once; the message is for the one who was refused."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what one user can ask for.

    Attributes:
        file_megabytes (`float`): size of an upload; a MIDI file may have a tenth of it.
        minutes (`float`): length of an upload.
        notes (`int`): of an uploaded MIDI file.
        characters (`int`): of a description; the text tower reads far fewer.
        running, waiting (`int`): requests that are worked on at once, and that may wait for their turn.
        patience_seconds (`float`): how long one may wait.
    """

    file_megabytes: float = 20.0
    minutes: float = 15.0
    notes: int = 20_000
    characters: int = 500
    running: int = 2
    waiting: int = 16
    patience_seconds: float = 20.0


class Gate:
    """Lets some requests run and some more wait for their turn; refuses all others at once."""

    def __init__(self, limits: Limits):
        self._patience_seconds = limits.patience_seconds
        self._places = threading.BoundedSemaphore(limits.running + limits.waiting)
        self._running = threading.BoundedSemaphore(limits.running)

    @contextmanager
    def turn(self):
        """Waits for a turn.

        Raises:
            BusyError: there is no place to wait in, or the turn did not come in time.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError("The server is busy: too many people ask at once. Please try again in a moment.")
        try:
            if not self._running.acquire(timeout=self._patience_seconds):
                raise BusyError("The server is busy, and your turn did not come in time. Please try again.")
            try:
                yield
            finally:
                self._running.release()
        finally:
            self._places.release()


__all__ = ["BusyError", "Gate", "Limits"]
