"""The other end of a link, played by a test: an agent that says whatever the test wants."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from proxy_service.agent_link import MAGIC, PREFIX, RESYNC, AgentLink, encode_frame

SECRET = bytes(range(16))


class FakeAgent:
    """One end of a socket pair, whose other end a link is attached to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        self.writer.write(encode_frame(header, body))

    def event(self, kind: str, seq: int, body: bytes = b"", *, execution_id: str = "e", **fields: Any) -> None:
        self.send({"ev": kind, "execution_id": execution_id, "seq": seq, "at": 1.5, **fields}, body)

    def output(self, first: int, last: int) -> None:
        for seq in range(first, last + 1):
            self.event("stdout", seq, b"%d\n" % seq)

    async def receive(self) -> tuple[dict[str, Any], bytes]:
        """Return the next request that is no ping, answering those."""
        while True:
            magic, header_len, body_len = PREFIX.unpack(await self.reader.readexactly(PREFIX.size))
            assert magic == MAGIC
            header = json.loads(await self.reader.readexactly(header_len))
            body = await self.reader.readexactly(body_len)
            if header["op"] != "ping":
                return header, body
            self.send({"re": header["id"], "ok": True})

    async def expect(self, op: str, **answer: Any) -> dict[str, Any]:
        """Receive a request of a kind and say yes to it."""
        header, _ = await self.receive()
        assert header["op"] == op
        self.send({"re": header["id"], "ok": True, **answer})
        return header

    async def hello(self, **answer: Any) -> None:
        """Do as an honest agent does at a fresh attach."""
        await self.reader.readuntil(RESYNC + SECRET)
        header, _ = await self.receive()
        self.writer.write(RESYNC + bytes.fromhex(header["nonce"]))
        self.send({"re": header["id"], "ok": True, "protocol": 1, "assigned": None, "executions": [], **answer})


async def pair() -> tuple[FakeAgent, asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a fake agent and the two ends that a link is attached to."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    return FakeAgent(*await asyncio.open_connection(sock=theirs)), reader, writer


async def attach(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **options: Any) -> AgentLink:
    """Attach a link with the test's secret."""
    return await AgentLink.attach(reader, writer, secret=SECRET, **{"timeout_s": 5.0, **options})
