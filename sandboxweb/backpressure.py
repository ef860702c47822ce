"""Backpressure for WebSockets: whoever sends waits until the client has taken most of what was sent before.

Daphne sends as fast as the application gives, into memory if the client does not read. Other servers wait by
themselves, and are left alone here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# What the kernel may hold of what a client has not read; by itself it would grow to megabytes.
SEND_BUFFER_BYTES = 128 * 1024


class Flow:
    """Be told by Twisted when a connection is full and when it has room again; the names are those of its producers."""

    def __init__(self) -> None:
        """Begin with room."""
        self._room = asyncio.Event()
        self._room.set()

    async def room(self) -> None:
        """Wait until there is room, or nobody left to send to."""
        await self._room.wait()

    def pauseProducing(self) -> None:  # noqa: N802
        """Be full."""
        self._room.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        """Have room again."""
        self._room.set()

    def stopProducing(self) -> None:  # noqa: N802
        """Have nobody left to send to."""
        self._room.set()


class Backpressure:
    """Wrap the WebSockets' application."""

    def __init__(self, app: Application) -> None:
        """Keep the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket."""
        protocol = _protocol_of(send)
        if protocol is None:
            return await self._app(scope, receive, send)
        flow = Flow()

        async def send_in_time(message: Mapping[str, Any]) -> None:
            if message["type"] == "websocket.close" and message.get("reason") and protocol.state == protocol.STATE_OPEN:
                # Daphne would keep the reason to itself.
                protocol.sendClose(message.get("code", 1000), message["reason"])
                return
            await send(message)
            if message["type"] == "websocket.accept":
                _attach(flow, protocol.transport)
            elif message["type"] == "websocket.send":
                await flow.room()

        await self._app(scope, receive, send_in_time)


def _protocol_of(send: Send) -> Any:
    """Return daphne's own side of a socket, which is bound into `send`; None under another server."""
    protocol = send.args[0] if isinstance(send, partial) and send.args else None
    return protocol if hasattr(protocol, "transport") else None


def _attach(flow: Flow, transport: Any) -> None:
    # The HTTP channel that the socket began as is still told, and does nothing with it.
    transport.unregisterProducer()
    transport.registerProducer(flow, True)
    handle = transport.getHandle()
    if isinstance(handle, socket.socket):
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
