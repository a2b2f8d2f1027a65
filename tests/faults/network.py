"""A network between a client and a server of this machine that is slow, counts, and can be cut."""

import contextlib
import socket
import threading
import time

CHUNK_BYTES = 16_384


class Network:
    """Carries connections to a port; `with Network(port) as network` and `network.port` is where clients connect.

    Attributes:
        carried (`int`): bytes that clients have sent so far.
        cut_after (`int` or None): of these bytes; then every connection ends, in the middle of whatever it carries.
        stays_down (`bool`): whether a cut network refuses all that follows, until `mend`.
    """

    def __init__(self, port: int, chunk_seconds: float = 0.0):
        self.server_port, self.chunk_seconds = port, chunk_seconds
        self.carried, self.cut_after, self.stays_down, self.is_down = 0, None, True, False
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.listener.close()

    def cut(self, after: int, stays_down: bool = True) -> None:
        """Ends the connections once clients have sent `after` more bytes."""
        with self.lock:
            self.cut_after, self.stays_down = self.carried + after, stays_down

    def mend(self) -> None:
        with self.lock:
            self.cut_after, self.is_down = None, False

    def _listen(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:  # closed
                return
            if self.is_down:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.server_port))
            for ends in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source, target, is_sent):
        try:
            while chunk := source.recv(CHUNK_BYTES):
                time.sleep(self.chunk_seconds)
                left = self._count(len(chunk)) if is_sent else len(chunk)
                target.sendall(chunk[:left])
                if left < len(chunk):
                    break
        except OSError:  # the other direction has ended it
            pass
        for side in (source, target):
            with contextlib.suppress(OSError):  # it is closed already
                side.shutdown(socket.SHUT_RDWR)
            side.close()

    def _count(self, size) -> int:
        """How many of `size` bytes go through."""
        with self.lock:
            left = size if self.cut_after is None else min(size, max(0, self.cut_after - self.carried))
            self.carried += left
            if left < size:
                self.cut_after, self.is_down = None, self.stays_down
            return left
