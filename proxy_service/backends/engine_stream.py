"""The stdin and stdout of a container over the engine's hijacked attach connection, on the event loop."""

from __future__ import annotations

import asyncio
import os
import ssl
import struct
from pathlib import Path
from urllib.parse import urlsplit

from proxy_service.agent_events import AgentGone

_HEADER = struct.Struct(">BxxxI")
_STDOUT = 1
_CONNECT_TIMEOUT_S = 10.0
_PING_TIMEOUT_S = 3.0
_MAX_ANSWER_BYTES = 64 * 1024


class DemuxReader:
    """Give what a container writes to stdout, without the engine's 8-byte headers and without its stderr."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._partial = b""
        self._left = 0
        self._wanted = False

    async def read(self, n: int = -1, /) -> bytes:
        """Return some bytes of stdout; nothing at the end of the stream."""
        while True:
            data = await self._reader.read(n)
            if not data:
                return b""
            if found := self._strip(data):
                return found

    def _strip(self, data: bytes) -> bytes:
        found = []
        view = memoryview(self._partial + data if self._partial else data)
        self._partial = b""
        while view:
            if self._left:
                part = view[: self._left]
                self._left -= len(part)
                if self._wanted:
                    found.append(part)
                view = view[len(part) :]
            elif len(view) < _HEADER.size:
                self._partial = bytes(view)
                break
            else:
                stream, self._left = _HEADER.unpack_from(view)
                self._wanted = stream == _STDOUT
                view = view[_HEADER.size :]
        return b"".join(found)


async def attach(url: str, container_id: str) -> tuple[DemuxReader, asyncio.StreamWriter]:
    """Attach to a running container's stdin and stdout.

    Raises:
        AgentGone: when the engine does not answer or does not attach.
    """
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            reader, writer = await _connect(url)
            try:
                # No detach keys: they would be looked for in binary frames.
                target = f"/v1.40/containers/{container_id}/attach?stream=1&stdin=1&stdout=1&stderr=0&detachKeys="
                request = f"POST {target} HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
                writer.write(request.encode())
                answer = await reader.readuntil(b"\r\n\r\n")
                status = answer.split(b" ", 2)[1]
                if status not in (b"101", b"200"):
                    body = await reader.read(1000)
                    raise AgentGone(f"the engine does not attach: {status.decode()} {body.decode(errors='replace')}")
            except BaseException:
                writer.close()
                raise
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError) as error:
        raise AgentGone(f"the engine does not attach: {error or 'time-out'}") from error
    return DemuxReader(reader), writer


async def ping(url: str, timeout_s: float = _PING_TIMEOUT_S) -> None:
    """Make sure that the engine answers, without waiting as its client does. Raises OSError."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _connect(url)
            try:
                writer.write(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
                if b" 200 " not in await reader.readline():
                    raise OSError("the engine is not well")
            finally:
                writer.close()
    except ValueError as error:
        raise OSError("the engine does not speak HTTP") from error


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.startswith("unix://"):
        return await asyncio.open_unix_connection(url.removeprefix("unix://"), limit=_MAX_ANSWER_BYTES)
    parts = urlsplit(url)
    if parts.scheme not in ("tcp", "http", "https") or not parts.hostname:
        raise OSError(f"cannot attach over {parts.scheme}://; use unix:// or tcp://")
    secure = parts.scheme == "https" or bool(os.environ.get("DOCKER_TLS_VERIFY"))
    port = parts.port or (2376 if secure else 2375)
    context = _tls_context() if secure else None
    return await asyncio.open_connection(parts.hostname, port, ssl=context, limit=_MAX_ANSWER_BYTES)


def _tls_context() -> ssl.SSLContext:
    """Return the client's side of the engine's TLS, from where its own tools keep it."""
    directory = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return context
