"""Senders on WebSockets wait for clients that do not read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from sandboxweb.backpressure import Backpressure, Flow


class Transport:
    """Twisted's side of a connection."""

    producer: Flow | None = None

    def unregisterProducer(self) -> None:  # noqa: N802
        self.producer = None

    def registerProducer(self, producer: Flow, streaming: bool) -> None:  # noqa: N802
        assert streaming and self.producer is None
        self.producer = producer

    def getHandle(self) -> None:  # noqa: N802
        return None


class Protocol:
    """Daphne's side of a socket."""

    STATE_OPEN = state = 3

    def __init__(self) -> None:
        self.transport = Transport()
        self.sent: list[str] = []
        self.closed: list[tuple[int, str]] = []

    def sendClose(self, code: int, reason: str) -> None:  # noqa: N802
        self.closed.append((code, reason))


async def handle_reply(protocol: Protocol, message: Mapping[str, Any]) -> None:
    """Send as daphne does: at once."""
    protocol.sent.append(message["type"].removeprefix("websocket."))


async def receive() -> Mapping[str, Any]:
    """Have nothing to say."""
    raise NotImplementedError


async def talk(scope: Any, receive: Any, send: Any) -> None:
    """Accept, send twice, and close."""
    await send({"type": "websocket.accept"})
    for text in ("a", "b"):
        await send({"type": "websocket.send", "text": text})
    await send({"type": "websocket.close", "code": 4000, "reason": "enough"})


@pytest.mark.parametrize("news", ["resumeProducing", "stopProducing"])
async def test_a_sender_waits_for_room_or_the_end(news: str) -> None:
    protocol = Protocol()

    async def fill_up(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        assert protocol.transport.producer is not None
        protocol.transport.producer.pauseProducing()
        for text in ("a", "b"):
            await send({"type": "websocket.send", "text": text})

    serving = asyncio.create_task(Backpressure(fill_up)({}, receive, partial(handle_reply, protocol)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert (protocol.sent, serving.done()) == (["accept", "send"], False)
    getattr(protocol.transport.producer, news)()
    await asyncio.wait_for(serving, 5)
    assert protocol.sent == ["accept", "send", "send"]


async def test_a_close_tells_its_reason() -> None:
    protocol = Protocol()
    await Backpressure(talk)({}, receive, partial(handle_reply, protocol))
    assert protocol.sent == ["accept", "send", "send"]
    assert protocol.closed == [(4000, "enough")]


async def test_another_server_is_left_alone() -> None:
    sent: list[str] = []

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message["type"])

    await Backpressure(talk)({}, receive, send)
    assert sent == ["websocket.accept", "websocket.send", "websocket.send", "websocket.close"]
