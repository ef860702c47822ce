"""Removing sandboxes in the background, watched until they are gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from proxy_service.backends.base import Sandbox

log = logging.getLogger(__name__)

DESTROY_TIMEOUT_S = 30.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0


class Teardown:
    """Destroy sandboxes, again and again if need be; who ends a session does not wait for it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        """Return how many sandboxes are not gone yet."""
        return len(self._tasks)

    def begin(self, sandbox: Sandbox, first: Callable[[], Awaitable[None]] | None = None) -> None:
        """Destroy a sandbox, after `first` has ended what runs in it."""
        task = asyncio.create_task(self._remove(sandbox, first))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _remove(self, sandbox: Sandbox, first: Callable[[], Awaitable[None]] | None) -> None:
        if first is not None:
            try:
                await first()
            except Exception:
                log.exception("what ran in a sandbox could not be ended first", extra={"sandbox": sandbox.name})
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await asyncio.wait_for(sandbox.destroy(), DESTROY_TIMEOUT_S)
                return
            except Exception as error:
                log.warning("a sandbox could not be removed yet: %r", error, extra={"sandbox": sandbox.name})
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def wait(self, timeout_s: float) -> None:
        """Wait until all are gone, so long at most; what is left is given up."""
        tasks = set(self._tasks)
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=timeout_s)
            for task in left:
                task.cancel()
            if left:
                log.error("%d sandboxes were not removed in time", len(left))
                await asyncio.wait(left, timeout=1)
