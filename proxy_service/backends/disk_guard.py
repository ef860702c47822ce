"""Stop code that fills the disk where a sandbox's files are plain directories of this machine."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from proxy_service.backends.workspaces import usage

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 2.0
MAX_ENTRIES = 200_000
FREE_FLOOR_BYTES = 512 * 1024 * 1024
"""Below this much free space code that runs is stopped whatever its own limit: what it deleted while it was open is
not seen beneath its directory."""


class DiskGuard:
    """Look at a directory for as long as code runs, and call for help once it holds more than it may."""

    def __init__(
        self,
        directory: Path,
        limit_bytes: int,
        *,
        busy: Callable[[], Awaitable[bool]],
        over: Callable[[], Awaitable[None]],
    ) -> None:
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._busy = busy
        self._over = over
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Begin to look, often at first: code has been started."""
        self.stop()
        self._task = asyncio.create_task(self._look())

    def stop(self) -> None:
        """Cease to look."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _look(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            began = time.monotonic()
            if await asyncio.to_thread(self._is_over):
                await self._over()
            elif not await self._busy():
                return
            # A tree that takes long to walk is walked less often: at most a tenth of a thread's time goes there.
            pause_s = max(min(1.2 * pause_s, LONGEST_PAUSE_S), 9 * (time.monotonic() - began))

    def used_bytes(self) -> int:
        """Return how much the directory holds."""
        return usage(self._directory, max_entries=MAX_ENTRIES)[0]

    def _is_over(self) -> bool:
        size, entries = usage(self._directory, max_entries=MAX_ENTRIES)
        if size > self._limit_bytes or entries > MAX_ENTRIES:
            return True
        return shutil.disk_usage(self._directory).free < FREE_FLOOR_BYTES
