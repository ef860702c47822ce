"""Speak frames with the agent of a sandbox: the only file on this side that knows them.

What comes out of a sandbox is hostile. Every size, count and wait is bounded, and a frame that breaks a rule ends
the link with `AgentBroken`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from proxy_service.agent_events import (
    EVENT_OVERHEAD_BYTES,
    AgentBroken,
    AgentError,
    AgentGone,
    AgentSilent,
    EventStream,
    Followed,
    parse_event,
)

MAGIC = b"\xf5S"
RESYNC = b"\xf5R"
PREFIX = struct.Struct(">2sII")
MAX_HEADER_BYTES = 64 * 1024
MAX_BODY_BYTES = 1024 * 1024
MAX_RESULT_BODY_BYTES = 8 * 1024 * 1024 + MAX_HEADER_BYTES
"""What the longest frame of an agent holds: one rich result."""
READ_BYTES = 256 * 1024
MAX_KNOWN_EXECUTIONS = 256
ANSWER_TIMEOUT_S = 10.0
PROTOCOL = 1


class ByteReader(Protocol):
    """What the link reads from: an `asyncio.StreamReader`, or an engine's stream without its own framing."""

    async def read(self, n: int = -1, /) -> bytes: ...


class ByteWriter(Protocol):
    """What the link writes to: an `asyncio.StreamWriter` or its like."""

    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...


def encode_frame(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Return one frame."""
    packed = json.dumps(header, separators=(",", ":")).encode()
    return PREFIX.pack(MAGIC, len(packed), len(body)) + packed + body


class FrameParser:
    """Cut a byte stream into frames, refusing whatever is out of bounds before buffering it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[dict[str, Any], bytes]]:
        """Return the frames that `data` completes.

        Raises:
            AgentBroken: on a wrong magic, a size out of bounds or a header that is no JSON object.
        """
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= PREFIX.size:
            magic, header_len, body_len = PREFIX.unpack_from(self._buffer, start)
            if magic != MAGIC or header_len > MAX_HEADER_BYTES or body_len > MAX_RESULT_BODY_BYTES:
                raise AgentBroken("the agent sent a frame that is out of bounds")
            middle = start + PREFIX.size + header_len
            end = middle + body_len
            if len(self._buffer) < end:
                break
            frames.append((_parse_header(self._buffer[start + PREFIX.size : middle]), bytes(self._buffer[middle:end])))
            start = end
        del self._buffer[:start]
        return frames


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parse_header(raw: bytearray) -> dict[str, Any]:
    try:
        header = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise AgentBroken("the agent sent a header that is no JSON") from error
    if not isinstance(header, dict):
        raise AgentBroken("the agent sent a header that is no object")
    return header


@dataclass(slots=True)
class _Request:
    answer: asyncio.Future[tuple[dict[str, Any], bytes]]
    accepted: Callable[[dict[str, Any]], None] | None


class AgentLink:
    """One attachment to an agent: requests with answers, and streams of events."""

    def __init__(self, reader: ByteReader, writer: ByteWriter, *, ping_interval_s: float, silence_s: float) -> None:
        self.hello: dict[str, Any] = {}
        self.broken: AgentBroken | None = None
        self._reader = reader
        self._writer = writer
        self._parser = FrameParser()
        self._ids = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        self._executions: dict[str, Followed] = {}
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[AgentBroken] = self._loop.create_future()
        self._ping_interval_s = ping_interval_s
        self._max_missed_pings = max(1, round(silence_s / ping_interval_s))
        self._heard = True
        self._missed_pings = 0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def attach(
        cls,
        reader: ByteReader,
        writer: ByteWriter,
        *,
        secret: bytes,
        timeout_s: float,
        ping_interval_s: float = 5.0,
        silence_s: float = 15.0,
    ) -> AgentLink:
        """Say hello over a fresh stream, dropping what a former proxy left in it.

        Raises:
            AgentBroken: when no well-formed answer comes within `timeout_s` seconds.
        """
        link = cls(reader, writer, ping_interval_s=ping_interval_s, silence_s=silence_s)
        nonce = os.urandom(16)
        answer: asyncio.Future[tuple[dict[str, Any], bytes]] = link._loop.create_future()
        link._requests[0] = _Request(answer, None)
        try:
            async with asyncio.timeout(timeout_s):
                hello = encode_frame({"op": "hello", "id": 0, "nonce": nonce.hex(), "protocol": PROTOCOL})
                writer.write(RESYNC + secret + hello)
                await writer.drain()
                rest = await link._skip_to(RESYNC + nonce)
                link._task = asyncio.create_task(link._read(rest))
                link.hello, _ = await answer
        except (OSError, AgentError) as error:
            raise link.fail(AgentBroken(f"the agent did not answer hello: {error or 'time-out'}")) from error
        except BaseException:
            link.close()
            raise
        if link.hello.get("protocol") != PROTOCOL:
            raise link.fail(AgentBroken("the agent speaks another protocol"))
        link._beat()
        return link

    async def _skip_to(self, marker: bytes) -> bytes:
        seen = b""
        while True:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise AgentGone("the stream to the agent ended before hello")
            seen += data
            found = seen.find(marker)
            if found >= 0:
                return seen[found + len(marker) :]
            seen = seen[-(len(marker) - 1) :]

    async def request(
        self,
        op: str,
        body: bytes = b"",
        *,
        wait_s: float = ANSWER_TIMEOUT_S,
        accepted: Callable[[dict[str, Any]], None] | None = None,
        **fields: Any,
    ) -> tuple[dict[str, Any], bytes]:
        """Ask the agent and return the header and body of its answer.

        `accepted` is called with the header before any later frame is looked at.

        Raises:
            AgentError: when the agent refuses.
            AgentBroken: when it does not answer within `wait_s` seconds; the link is dead then.
        """
        if self.broken is not None:
            raise self.broken
        number = next(self._ids)
        answer: asyncio.Future[tuple[dict[str, Any], bytes]] = self._loop.create_future()
        self._requests[number] = _Request(answer, accepted)
        try:
            async with asyncio.timeout(wait_s):
                self._writer.write(encode_frame({"op": op, "id": number, **fields}, body))
                await self._writer.drain()
                return await answer
        except TimeoutError:
            raise self.fail(AgentSilent(f"the agent did not answer {op} within {wait_s:g} s")) from None
        except OSError as error:
            raise self.fail(AgentGone(f"the stream to the agent ended: {error}")) from error

    async def execute(self, execution_id: str, source: bytes, *, max_bytes: int, **fields: Any) -> EventStream:
        """Start an execution, or join it when the agent knows the id, and follow it from its first event.

        `max_bytes` bounds the bodies that the agent may send for it.
        """
        stream = self._follow(execution_id, 0, max_bytes)
        stream.wanted = True

        def accepted(header: dict[str, Any]) -> None:
            stream.joined = bool(header.get("joined"))
            if not stream.joined:
                stream.begin()

        try:
            fields.update(execution_id=execution_id)
            await self.request("exec", source, accepted=accepted, **fields)
            if stream.joined:
                await self.replay(execution_id, stream)
        except BaseException:
            stream.close()
            raise
        return stream

    async def resume(self, execution_id: str, after: int, *, max_bytes: int) -> EventStream:
        """Follow an execution from the event after number `after`, replayed from the agent's journal."""
        stream = self._follow(execution_id, after, max_bytes)
        try:
            await self.replay(execution_id, stream)
        except BaseException:
            stream.close()
            raise
        return stream

    async def replay(self, execution_id: str, stream: EventStream) -> None:
        """Ask for the journal again, for a stream that waits for its next event."""
        followed = self._executions[execution_id]
        followed.allow_replay()
        stream.wanted = True
        after = followed.replay_after()
        await self.request("resume", execution_id=execution_id, after=after, accepted=lambda _: stream.begin())

    def _follow(self, execution_id: str, after: int, max_bytes: int) -> EventStream:
        followed = self._executions.pop(execution_id, None) or Followed(max_bytes)
        followed.max_bytes = max(max_bytes, followed.max_bytes)
        followed.allow_replay()
        stream = EventStream(self, execution_id, after)
        followed.streams.append(stream)
        self._executions[execution_id] = followed
        self._forget_old_executions()
        return stream

    def _forget_old_executions(self) -> None:
        unused = [key for key, followed in self._executions.items() if not followed.streams]
        for key in unused[: max(0, len(self._executions) - MAX_KNOWN_EXECUTIONS)]:
            del self._executions[key]

    def unfollow(self, execution_id: str, stream: EventStream) -> None:
        """Stop giving events to a stream."""
        followed = self._executions.get(execution_id)
        if followed is not None and stream in followed.streams:
            followed.streams.remove(stream)

    async def _read(self, data: bytes) -> None:
        try:
            while True:
                for header, body in self._parser.feed(data):
                    self._dispatch(header, body)
                data = await self._reader.read(READ_BYTES)
                if not data:
                    raise AgentGone("the stream to the agent ended")
                self._heard = True
        except AgentBroken as error:
            self.fail(error)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.fail(AgentGone(f"the stream to the agent ended: {error}"))

    def _dispatch(self, header: dict[str, Any], body: bytes) -> None:
        if "re" in header:
            self._answer(header, body)
        elif "ev" in header:
            self._event(header, body)
        else:
            raise AgentBroken("the agent sent a frame that is neither an answer nor an event")

    def _answer(self, header: dict[str, Any], body: bytes) -> None:
        number = header.pop("re")
        request = self._requests.get(number) if type(number) is int else None
        if request is None:
            raise AgentBroken("the agent answered what was not asked")
        ok = header.pop("ok", None)
        if ok is True:
            if request.accepted is not None:
                request.accepted(header)
            if not request.answer.done():
                request.answer.set_result((header, body))
        elif ok is False and isinstance(header.get("error"), str):
            if not request.answer.done():
                message = header.get("message")
                request.answer.set_exception(AgentError(header["error"], message if isinstance(message, str) else ""))
        else:
            raise AgentBroken("the agent sent an answer that is neither yes nor no")
        del self._requests[number]

    def _event(self, header: dict[str, Any], body: bytes) -> None:
        execution_id = header.pop("execution_id", None)
        followed = self._executions.get(execution_id) if isinstance(execution_id, str) else None
        if followed is None:
            raise AgentBroken("the agent sent an event of an execution that nobody asked for")
        event = parse_event(header, body)
        followed.budget_bytes -= len(body) if event.type in ("stdout", "stderr") else len(body) + EVENT_OVERHEAD_BYTES
        if followed.budget_bytes < 0:
            raise AgentBroken("the agent sent more output than it may")
        for stream in tuple(followed.streams):
            stream.offer(event)

    def _beat(self) -> None:
        if self.broken is not None:
            return
        self._missed_pings = 0 if self._heard else self._missed_pings + 1
        self._heard = False
        if self._missed_pings >= self._max_missed_pings:
            # Pings are counted, not seconds: a proxy that was itself stopped for a minute must not condemn anyone.
            silence_s = self._ping_interval_s * self._max_missed_pings
            self.fail(AgentSilent(f"the agent has been silent for {silence_s:g} s"))
            return
        number = next(self._ids)
        self._requests[number] = _Request(self._loop.create_future(), None)
        try:
            self._writer.write(encode_frame({"op": "ping", "id": number}))
        except OSError as error:
            self.fail(AgentGone(f"the stream to the agent ended: {error}"))
            return
        self._timer = self._loop.call_later(self._ping_interval_s, self._beat)

    def fail(self, error: AgentBroken) -> AgentBroken:
        """End the link for a reason; return the first reason that it was ended for."""
        if self.broken is None:
            self.broken = error
            self._end()
        return self.broken

    def _end(self) -> None:
        assert self.broken is not None  # noqa: S101
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._writer.close()
        for request in self._requests.values():
            if not request.answer.done():
                request.answer.set_exception(self.broken)
                request.answer.exception()  # a ping, or a request given up, has nobody to retrieve it
        self._requests.clear()
        for followed in self._executions.values():
            for stream in followed.streams:
                stream.wake()
        if not self._ended.done():
            self._ended.set_result(self.broken)

    def close(self) -> None:
        """Let go of the stream; the agent and its executions go on."""
        self.fail(AgentGone("the link was closed"))

    async def wait_broken(self) -> AgentBroken:
        """Wait until the link has ended, and return why."""
        return await asyncio.shield(self._ended)
