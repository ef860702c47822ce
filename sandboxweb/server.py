"""Daphne with bodies of any size: `python -m sandboxweb.server` takes the options of `daphne`.

Daphne keeps a request's body in memory, and sends as fast as the application gives, into memory if the client is slow.
Here a large body waits in a file on disk, which the handler reads, and the application waits for a slow client.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import tempfile
from collections.abc import Sequence
from typing import IO, Any

from daphne.cli import CommandLineInterface
from daphne.server import Server  # installs asyncio's reactor: before all of Twisted
from django.conf import settings

from sandboxweb.handler import BODY

import daphne.http_protocol  # isort: skip

BACKLOG = 4096
"""Connections that may wait to be taken; the kernel allows `net.core.somaxconn` of them."""
LARGE_BODY_BYTES = 1024 * 1024
FILE_ADDRESS = re.compile(rb"/sessions/[^/]+/files(?:[/?]|\Z)")


def most_bytes(command: bytes, path: bytes) -> int:
    """Return how long the body of a request may be."""
    is_upload = command == b"PUT" and FILE_ADDRESS.match(path)
    return settings.MAX_UPLOAD_BYTES if is_upload else settings.MAX_REQUEST_BYTES


def with_backlog(endpoint: str) -> str:
    """Return a description of where to listen with how many may wait there. A socket handed over has its own."""
    listens = endpoint.startswith(("tcp:", "ssl:", "unix:"))
    return f"{endpoint}:backlog={BACKLOG}" if listens and "backlog=" not in endpoint else endpoint


class Request(daphne.http_protocol.WebRequest):  # type: ignore[misc]
    """One request and its answer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Begin without a body."""
        super().__init__(*arguments, **options)
        self.large_body: IO[bytes] | None = None
        self.content: IO[bytes] = io.BytesIO()
        self._room = 0
        self._refused = False
        self._writable = asyncio.Event()
        self._writable.set()

    # --- the body

    def gotLength(self, length: int | None) -> None:  # noqa: N802  # Twisted's name, as those below
        """Choose where the body goes, before it comes."""
        self._most = self._room = most_bytes(self.channel._command, self.channel._path)
        if length is None or length > LARGE_BODY_BYTES:
            self.content = tempfile.TemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR)  # noqa: SIM115
        else:
            self.content = io.BytesIO()
        if length is not None and length > self._room:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        """Take a piece of the body, if there may be more of it."""
        self._room -= len(data)
        if self._room < 0 and not self._refused:
            self._refuse()
        if not self._refused:
            self.content.write(data)

    def _refuse(self) -> None:
        """Answer at once, and take no more."""
        self._refused = True
        # Or Twisted would say "go on" after it.
        self.requestHeaders.removeHeader(b"expect")
        error = {
            "code": "too_large",
            "detail": f"The body is too large: at most {self._most} bytes are taken.",
            "attr": None,
        }
        body = json.dumps({"type": "client_error", "errors": [error]}).encode()
        head = b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self.channel.transport.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.channel.loseConnection()

    def process(self) -> Any:
        """Hand the request over, without a large body: of that the application gets the file."""
        if self._refused:
            return None
        if not isinstance(self.content, io.BytesIO):
            self.large_body, self.content = self.content, io.BytesIO()
            self.large_body.seek(0)
        return super().process()

    # --- the answer

    def handle_reply(self, message: Any) -> None:
        """Send a piece of the answer; ask to be told when the client does not keep up."""
        if message["type"] == "http.response.body" and not self.finished and self.channel is not None:
            if message.get("more_body") and self.producer is None:
                self.registerProducer(self, True)
            elif not message.get("more_body") and self.producer is not None:
                self.unregisterProducer()
        super().handle_reply(message)

    async def keep_pace(self) -> None:
        """Wait until what was sent has room in the client's connection."""
        await self._writable.wait()

    def pauseProducing(self) -> None:  # noqa: N802
        """Be told that the client is slow."""
        self._writable.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        """Be told that the client has caught up."""
        self._writable.set()

    def stopProducing(self) -> None:  # noqa: N802
        """Be told that the client is gone."""
        self._writable.set()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        """Let nobody wait for a client that is gone."""
        self._writable.set()
        super().connectionLost(reason)

    def handle_exception(self, exception: BaseException) -> None:
        """Break an answer off that cannot be completed: its reader must not take the half of it for the whole."""
        if self._response_started and not self.finished:
            self.channel.forceAbortClient()
        else:
            super().handle_exception(exception)


class StreamingServer(Server):  # type: ignore[misc]
    """Daphne's server over requests of ours."""

    def __init__(self, application: Any, endpoints: Sequence[str] = (), **options: Any) -> None:
        """Take Daphne's options; let more clients than Twisted's 50 wait at the door, or the kernel sends them away."""
        super().__init__(application, [with_backlog(endpoint) for endpoint in endpoints], **options)

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        """Start the application of a connection."""
        if isinstance(protocol, Request) and protocol.large_body is not None:
            scope[BODY], protocol.large_body = protocol.large_body, None
        return super().create_application(protocol, scope)

    async def handle_reply(self, protocol: Any, message: Any) -> None:
        """Send a message, and come back when there is room for the next."""
        await super().handle_reply(protocol, message)
        if isinstance(protocol, Request) and message.get("more_body"):
            await protocol.keep_pace()


class CommandLine(CommandLineInterface):  # type: ignore[misc]
    """Daphne's command line."""

    server_class = StreamingServer


daphne.http_protocol.WebRequest = Request

if __name__ == "__main__":
    CommandLine.entrypoint()
