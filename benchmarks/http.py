"""A small kept-alive JSON client: as little as possible between the clock and the server."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any


class Client:
    """Speak JSON to one server over one kept-alive connection (not thread-safe)."""

    def __init__(self, port: int, token: str) -> None:
        """Connect lazily to 127.0.0.1:`port` and send `token` as the bearer."""
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def connect(self) -> None:
        """Open the connection now, so that the first request does not pay for it."""
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None, expect: int = 200) -> Any:
        """Send one request; raise RuntimeError with the answer when the status is not `expect`."""
        payload = None if body is None else json.dumps(body)
        if self._connection.sock is None:
            self.connect()
        self._connection.request(method, path, payload, self._headers)
        response = self._connection.getresponse()
        raw = response.read()
        if response.status != expect:
            raise RuntimeError(f"{method} {path}: {response.status} {raw[:500]!r}")
        return json.loads(raw) if raw else None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
