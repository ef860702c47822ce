"""Kept-alive HTTP connections for short requests on many threads: as little as possible between two servers of ours.

A client for everything costs a millisecond of processor time a request, a third of what all of an execution's way
through the app costs. This one sends a body that is known and reads an answer that ends.
"""

from __future__ import annotations

import http.client
import select
import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_IDLE = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, read to its end."""

    status: int
    headers: Mapping[str, str] | http.client.HTTPMessage
    content: bytes


class ConnectFailed(OSError):
    """Nobody was reached: the request was not sent."""


class HttpPool:
    """Connections to one server. Any number of threads may use it; each request has a connection to itself."""

    def __init__(self, base_url: str, headers: Mapping[str, str], *, connect_timeout_s: float) -> None:
        """Connect lazily to `base_url`, http or https; send `headers` with every request."""
        address = urlsplit(base_url)
        self._secure = address.scheme == "https"
        self._host, self._port = address.hostname or "", address.port
        self._path = address.path.rstrip("/")
        self._headers = dict(headers)
        self._connect_timeout_s = connect_timeout_s
        self._idle: deque[http.client.HTTPConnection] = deque()

    def request(self, method: str, path: str, body: bytes | None, *, timeout_s: float) -> Answer:
        """Send one request; silence may last `timeout_s`.

        Raises ConnectFailed, TimeoutError, or OSError and HTTPException for a connection that broke.
        """
        connection = self._usable() or self._connect()
        try:
            connection.sock.settimeout(timeout_s)
            headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
            connection.request(method, self._path + path, body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        except BaseException:
            connection.close()
            raise
        if response.will_close or len(self._idle) >= MAX_IDLE:
            connection.close()
        else:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def _usable(self) -> http.client.HTTPConnection | None:
        """Return the connection that was used last; one that can be read though nothing was asked has ended."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                return None
            poll = select.poll()
            poll.register(connection.sock, select.POLLIN)
            if not poll.poll(0):
                return connection
            connection.close()
        return None

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._connect_timeout_s)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise ConnectFailed(str(error)) from error
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
