"""Talk ASGI to an application without a server, so that a test decides when the caller reads and when it goes away."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import ASGIApp, Message

PATIENCE_S = 10.0


class Call:
    """One request whose answer arrives piece by piece."""

    def __init__(
        self,
        app: ASGIApp,
        method: str,
        path: str,
        *,
        token: str,
        body: Any = None,
        query: str = "",
        accept: str = "application/x-ndjson",
    ) -> None:
        self._body = b"" if body is None else json.dumps(body).encode()
        self._gone = asyncio.Event()
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self._asked = False
        self._buffer = b""
        headers = {"authorization": f"Bearer {token}", "accept": accept, "host": "proxy"}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("proxy", 80),
        }
        self._task = asyncio.create_task(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._sent.put)
        finally:
            await self._sent.put({"type": "end"})

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _next(self) -> Message:
        return await asyncio.wait_for(self._sent.get(), PATIENCE_S)

    async def status(self) -> int:
        """Return the status, once it is there."""
        message = await self._next()
        assert message["type"] == "http.response.start"
        return int(message["status"])

    async def line(self) -> dict[str, Any] | None:
        """Return the next line of NDJSON that is not blank; None at the end."""
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                if line.strip():
                    return dict(json.loads(line))
                continue
            message = await self._next()
            if message["type"] == "end":
                return None
            self._buffer += message.get("body", b"")

    async def lines(self) -> list[dict[str, Any]]:
        """Return all lines up to the end."""
        found = []
        while (line := await self.line()) is not None:
            found.append(line)
        return found

    def hang_up(self) -> None:
        """Close the connection; the server goes on until it looks."""
        self._gone.set()

    async def leave(self) -> None:
        """Go away as a caller does whose connection breaks, and wait until the server has noticed."""
        self._gone.set()
        await asyncio.sleep(0)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
