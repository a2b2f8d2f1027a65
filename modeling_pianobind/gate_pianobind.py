"""Limits of the page and the endpoint: size of requests, and requests at once, so that memory stays bounded."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on one user's requests.

    Attributes:
        file_megabytes (`float`): size of a file.
        midi_share (`float`): limit of MIDI files as a share of it: their notes take far more memory.
        minutes (`float`): length of a piece.
        notes (`int`): of a MIDI file.
        characters (`int`): of a description; the text tower reads far fewer.
        running, waiting (`int`): requests that are worked on at once, and that may wait for their turn.
        patience_seconds (`float`): how long one may wait.
    """

    file_megabytes: float = 20.0
    midi_share: float = 0.1
    minutes: float = 15.0
    notes: int = 20_000
    characters: int = 500
    running: int = 2
    waiting: int = 16
    patience_seconds: float = 20.0

    @property
    def midi_megabytes(self) -> float:
        return self.file_megabytes * self.midi_share


class BusyError(TimeoutError):
    """Too many requests at once; the message is for the user."""


class Gate:
    """Runs some requests, lets some more wait for their turn, and refuses all others.

    Args:
        running, waiting (`int`): requests that are worked on at once, and that may wait for their turn.
        patience_seconds (`float`): how long one may wait.
    """

    def __init__(self, running: int, waiting: int, patience_seconds: float):
        self._patience_seconds = patience_seconds
        self._places = threading.BoundedSemaphore(running + waiting)
        self._running = threading.BoundedSemaphore(running)

    @contextmanager
    def turn(self) -> Iterator[None]:
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
