"""Bringing the backend up and taking over what an earlier proxy left, however long the backend's engine is away."""

from __future__ import annotations

import asyncio
import logging

from proxy_service.backends.base import Backend
from proxy_service.errors import BackendAway, BackendUnavailable, ProxyError, Unavailable
from proxy_service.sessions import Sessions

log = logging.getLogger(__name__)

FIRST_WAIT_S = 10.0
"""How long the server waits before it listens: what goes wrong by then ends it with the mend."""
FIND_WAIT_S = 2.0
"""How long finding sandboxes again may hold up everybody; those that are slow to answer are waited for apart."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


class Startup:
    """The way of a backend from nothing to work; `error` says why nothing can be served yet."""

    def __init__(self, backend: Backend, sessions: Sessions) -> None:
        self._backend = backend
        self._sessions = sessions
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._listening = False
        self.error: Unavailable | None = Unavailable("The proxy is starting. Try again in a few seconds.")

    async def begin(self) -> None:
        """Come up; go on with it in the background while an engine is away or slow.

        Raises:
            BackendUnavailable: for what waiting does not mend.
        """
        self._sessions.finding = True
        self._task = asyncio.create_task(self._come_up())
        settled = asyncio.create_task(self._settled.wait())
        await asyncio.wait({self._task, settled}, timeout=FIRST_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        settled.cancel()
        self._listening = True
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Give up what has not come up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _come_up(self) -> None:
        await self._start()
        finding = asyncio.create_task(self._find())
        try:
            await asyncio.wait({finding}, timeout=FIND_WAIT_S)
            self.error = None
            self._settled.set()
            await finding
        finally:
            finding.cancel()

    async def _start(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self._backend.start()
            except BackendUnavailable as error:
                # What is wrong at the start is most often a setting, and the administrator looks on.
                if not isinstance(error, BackendAway) and not self._listening:
                    raise
                if self.error is None or error.detail != self.error.detail:
                    log.error("no sandbox can be made: %s %s", error.detail, error.mend)
                self.error = error
                self._settled.set()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _find(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async for sandbox in self._backend.find_again():
                    self._sessions.adopt(sandbox)
            except ProxyError as error:
                log.warning("not all sandboxes could be found again yet: %s", error.detail)
            except Exception:
                log.exception("not all sandboxes could be found again yet")
            else:
                self._sessions.finding = False
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
