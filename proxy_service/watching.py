"""What happens in one session, as one stream: the events of its executions, in the order in which they run.

Any number may watch, and a watcher that comes again after a break goes on after the last event that it had, because
the executions of a session run one after the other and each has its journal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable

from proxy_service.events import Follower
from proxy_service.execution import Execution

MAX_BEHIND = 256
"""How many executions may run and end while a watcher does not read; then it has to come again."""
GAP = b'{"seq":0,"type":"gap"}\n'
"""What tells a watcher that the execution after which it wanted to go on is not known any more."""

PLACE = b'{"seq":0,"type":"place","execution_id":"%s"}\n'
"""What tells a watcher after which execution it begins, so that it can come again before it has heard anything."""


class Watcher:
    """One reader of a session: the executions that it has yet to be told of, each from a number on."""

    def __init__(
        self, first: Iterable[tuple[Execution, int]] = (), *, has_gap: bool = False, after: str | None = None
    ) -> None:
        self._coming: deque[tuple[Execution, int]] = deque(first)
        self._seen = {execution.id for execution, _ in self._coming}
        self._news = asyncio.Event()
        self._first_line = GAP if has_gap else b"\n" if after is None else PLACE % after.encode()
        self.closed = False

    def add(self, execution: Execution) -> None:
        """Tell of an execution that begins, or that ends without having begun; once is enough."""
        if execution.id in self._seen or self.closed:
            return
        if len(self._coming) >= MAX_BEHIND:
            return self.close()
        self._seen.add(execution.id)
        self._coming.append((execution, 0))
        self._news.set()

    def close(self) -> None:
        """Let the stream end after what is known now."""
        self.closed = True
        self._news.set()

    async def lines(self, *, keep_alive_s: float) -> AsyncIterator[bytes]:
        """Yield pieces of NDJSON, each line an event with its `execution_id`; a blank line is a sign of life."""
        yield self._first_line
        while True:
            if self._coming:
                execution, after = self._coming.popleft()
                async for piece in _told(execution, after, keep_alive_s):
                    yield piece
                self._seen.discard(execution.id)
            elif self.closed:
                return
            elif not await self._waited(keep_alive_s):
                yield b"\n"

    async def _waited(self, seconds: float) -> bool:
        self._news.clear()
        try:
            # Not `wait_for`, which may swallow the cancellation of a reader that left.
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True


async def _told(execution: Execution, after: int, keep_alive_s: float) -> AsyncIterator[bytes]:
    """Yield an execution's events to its end; one that nothing can be told of yields nothing."""
    follower = Follower(execution.transcript, after)
    mark = b',"execution_id":"%s"}\n' % execution.id.encode()
    while True:
        done = execution.done
        piece = b"".join(line[:-2] + mark for line in follower.lines())
        if piece:
            yield piece
        elif done or follower.done:
            return
        else:
            try:
                async with asyncio.timeout(keep_alive_s):
                    await execution.transcript.changed()
            except TimeoutError:
                yield b"\n"
