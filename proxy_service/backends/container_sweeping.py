"""Remove the containers of this proxy that it does not know: an engine that dies while it makes one may keep it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

import requests
from docker.errors import DockerException

from proxy_service.backends import containment
from proxy_service.backends.container_finding import ContainerFinder
from proxy_service.backends.container_sandbox import Engine, engine_error

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0


class ContainerSweeper:
    """Looks again and again, and removes what two looks in a row have found without an owner.

    It may only run once every container of an earlier proxy was taken over or given up: the others are then this
    proxy's own, and nobody else can tell whether they are needed.

    Args:
        owned: returns the names of the sandboxes that exist for this proxy, or are being made.
    """

    def __init__(self, finder: ContainerFinder, engine: Engine, owned: Callable[[], Collection[str]]) -> None:
        self._finder = finder
        self._engine = engine
        self._owned = owned
        self._suspects: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start to look; a second call changes nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except (DockerException, requests.RequestException) as error:
                log.info("no look at the containers: %s", engine_error(error))
            except Exception:
                log.exception("no look at the containers")

    async def look(self) -> None:
        """Look once."""
        found = {item["Id"]: item for item in await self._finder.containers()}
        owned = self._owned()
        unknown = {
            key
            for key, item in found.items()
            if item["Labels"].get(containment.NAME) not in owned and key not in self._engine.removing
        }
        for key in unknown & self._suspects:
            self._finder.remove(found[key], "no sandbox of this proxy belongs to it")
        self._suspects = unknown
