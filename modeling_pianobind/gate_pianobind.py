"""How many are served at once: the page and the endpoint refuse what is too much, so that memory stays bounded."""

import threading
from contextlib import contextmanager


class BusyError(TimeoutError):
    """Too many ask at once; the message is for the one who was refused."""


class Gate:
    """Lets some requests run and some more wait for their turn; refuses all others at once.

    Args:
        running, waiting (`int`): requests that are worked on at once, and that may wait for their turn.
        patience_seconds (`float`): how long one may wait.
    """

    def __init__(self, running: int, waiting: int, patience_seconds: float):
        self._patience_seconds = patience_seconds
        self._places = threading.BoundedSemaphore(running + waiting)
        self._running = threading.BoundedSemaphore(running)

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


__all__ = ["BusyError", "Gate"]
