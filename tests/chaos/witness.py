"""Count from outside how often code really ran: every program says its mark to this listener when it starts."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter

BACKLOG = 512
LONGEST_MARK_BYTES = 200
PATIENCE_S = 5.0


class Witness:
    """Listen on the loopback address. Sandboxes reach it because the template of this run has the host's network."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._runs: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._listen, name="witness", daemon=True)
        self._thread.start()

    def runs(self) -> dict[str, int]:
        """Return how often each mark was said."""
        with self._lock:
            return dict(self._runs)

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._hear(connection)

    def _hear(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        said = b""
        while not said.endswith(b"\n") and len(said) < LONGEST_MARK_BYTES:
            chunk = connection.recv(LONGEST_MARK_BYTES)
            if not chunk:
                return
            said += chunk
        with self._lock:
            self._runs[said.decode().strip()] += 1
        # The program goes on only once its mark is counted.
        connection.sendall(b"!")
