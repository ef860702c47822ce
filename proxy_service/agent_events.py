"""The events of executions as an agent tells them, checked, and kept for readers that may be slow.

Exception
├── AgentBroken           the agent lied or flooded us: its sandbox must be destroyed
│   └── AgentGone         the stream ended; the agent itself may still be alive
│       └── AgentSilent   nothing comes over the stream, because of the agent or of what is between us
└── AgentError            the agent answered a request with an error
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

QUEUE_BYTES = 4 * 1024 * 1024
EVENT_SLACK_BYTES = 2 * 1024 * 1024
EVENT_OVERHEAD_BYTES = 256
EVENT_TYPES = frozenset({"started", "stdout", "stderr", "truncated", "result", "error", "exit"})


class AgentBroken(Exception):
    """The agent cannot be trusted or heard any more."""


class AgentGone(AgentBroken):
    """The stream to the agent ended."""


class AgentSilent(AgentGone):
    """Nothing came over the stream for too long."""


class AgentError(Exception):
    """The agent refused a request."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class AgentEvent:
    """One journalled event of an execution; `seq` counts from 1 without a gap."""

    seq: int
    type: str
    at: float
    fields: dict[str, Any]
    body: bytes


def parse_event(header: dict[str, Any], body: bytes) -> AgentEvent:
    """Return the event that a frame tells of. Raises AgentBroken when it is not well-formed."""
    kind, seq, at = header.pop("ev"), header.pop("seq", None), header.pop("at", None)
    if not isinstance(kind, str) or kind not in EVENT_TYPES or type(seq) is not int or seq < 1:
        raise AgentBroken("the agent sent an event without a type or a number")
    # An int too long for a float is as false an instant as infinity is.
    if type(at) not in (int, float) or not (abs(at) < 1e12 and math.isfinite(at)):
        raise AgentBroken("the agent sent an event without its time")
    if kind in ("stdout", "stderr") and not body:
        raise AgentBroken("the agent sent output without a byte")
    return AgentEvent(seq, kind, float(at), header, body)


class Journal(Protocol):
    """Where a stream gets again what it had to let go."""

    broken: AgentBroken | None

    def fail(self, error: AgentBroken) -> AgentBroken: ...
    def unfollow(self, execution_id: str, stream: EventStream) -> None: ...
    async def replay(self, execution_id: str, stream: EventStream) -> None: ...


class EventStream:
    """The events of one execution in order, ending with `exit`; a slow reader costs a bounded amount of memory.

    What does not fit the queue is let go and fetched again from the agent's journal once the reader has caught up.
    `wanted` says that the agent was asked for the events from `next_seq` on, `live` that it has agreed.
    """

    def __init__(self, journal: Journal, execution_id: str, after: int) -> None:
        self._journal = journal
        self._execution_id = execution_id
        self._queue: deque[AgentEvent] = deque()
        self._queued_bytes = 0
        self.next_seq = after + 1
        self._resumed_at = 0
        self._wake = asyncio.Event()
        self.live = False
        self.wanted = False
        self.done = False
        self.closed = False
        self.joined = False

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> AgentEvent:
        while not self._queue:
            if self.done:
                raise StopAsyncIteration
            if self._journal.broken is not None:
                raise self._journal.broken
            if not self.live:
                await self._catch_up()
                continue
            self._wake.clear()
            await self._wake.wait()
        event = self._queue.popleft()
        self._queued_bytes -= len(event.body) + EVENT_OVERHEAD_BYTES
        return event

    def close(self) -> None:
        """Stop following; what still comes for this execution is dropped."""
        self.live, self.closed = False, True
        self._journal.unfollow(self._execution_id, self)

    def wake(self) -> None:
        """Let the reader look again: the link broke."""
        self._wake.set()

    def begin(self) -> None:
        """Take events from now on, those from the next number wanted."""
        self.live = not self.closed

    def offer(self, event: AgentEvent) -> None:
        """Queue an event if it is the next one. Raises AgentBroken when one was left out."""
        if not self.live or self.done or event.seq < self.next_seq:
            return
        if event.seq > self.next_seq:
            raise AgentBroken("the agent left out an event")
        if self._queued_bytes > QUEUE_BYTES:
            self.live = self.wanted = False
            self._wake.set()
            return
        self.next_seq += 1
        self._queue.append(event)
        self._queued_bytes += len(event.body) + EVENT_OVERHEAD_BYTES
        self.done = event.type == "exit"
        self._wake.set()

    async def _catch_up(self) -> None:
        if self._resumed_at == self.next_seq:
            raise self._journal.fail(AgentBroken("the agent does not give the event that was asked for"))
        self._resumed_at = self.next_seq
        await self._journal.replay(self._execution_id, self)


@dataclass(slots=True)
class Followed:
    """What the link knows of one execution: who follows it and how many bytes it may still send."""

    max_bytes: int
    budget_bytes: int = 0
    streams: list[EventStream] = field(default_factory=list)

    def allow_replay(self) -> None:
        """Let the agent send everything once more."""
        self.budget_bytes += self.max_bytes + EVENT_SLACK_BYTES

    def replay_after(self) -> int:
        """Return the number from which the agent must go on so that no stream misses an event.

        The agent keeps one place an execution: a reader that is ahead must not move it past another's needs.
        """
        return min(stream.next_seq for stream in self.streams if stream.wanted) - 1
