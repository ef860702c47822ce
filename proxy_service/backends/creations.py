"""Creations that nobody waits for any more are carried to their end, and what they made is removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from proxy_service.backends.base import Sandbox

log = logging.getLogger(__name__)


class Creations:
    """Runs creations that cannot be stopped half-way: a thread, or a process that is just being started."""

    def __init__(self) -> None:
        self._abandoned: set[asyncio.Task[None]] = set()

    async def run(self, making: Coroutine[Any, Any, Sandbox]) -> Sandbox:
        """Wait for a creation; if the waiting is cancelled, remove its sandbox in the background."""
        task = asyncio.create_task(making)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            undoing = asyncio.create_task(_undo(task))
            self._abandoned.add(undoing)
            undoing.add_done_callback(self._abandoned.discard)
            raise

    async def settle(self, timeout_s: float) -> None:
        """Wait until everything that was abandoned is gone, so long at most."""
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=timeout_s)


async def _undo(making: asyncio.Task[Sandbox]) -> None:
    try:
        sandbox = await making
    except Exception as error:
        log.info("a sandbox that nobody waited for was not made: %s", error)
    else:
        await sandbox.destroy()
