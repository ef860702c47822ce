"""Find the containers of an earlier proxy by their labels, and attach to their agents again."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

import requests
from docker.errors import DockerException

from proxy_service.agent_events import AgentBroken, AgentGone
from proxy_service.backends import containment
from proxy_service.backends.base import SandboxSpec
from proxy_service.backends.container_making import ContainerMaker
from proxy_service.backends.container_sandbox import ContainerSandbox, Engine, engine_error
from proxy_service.backends.fifo_channel import remove_pipes
from proxy_service.errors import BackendAway
from proxy_service.settings import Settings

log = logging.getLogger(__name__)

PARALLEL_ATTACHES = 64
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0


class ContainerFinder:
    """Attaches to all at the same time; one whose agent does not answer holds up none of the others."""

    def __init__(self, settings: Settings, engine: Engine, maker: ContainerMaker) -> None:
        self._settings = settings
        self._engine = engine
        self._maker = maker
        self._limit = asyncio.Semaphore(PARALLEL_ATTACHES)
        self._removals: set[asyncio.Task[None]] = set()

    async def find(self, known: Collection[str]) -> AsyncIterator[ContainerSandbox]:
        """Yield each sandbox once its agent has answered, but for the containers that are known already.

        What is broken, or silent for as long as an agent may be, is removed in the background. Raises BackendAway.
        """
        try:
            found = await self.containers()
        except (DockerException, requests.RequestException) as error:
            raise BackendAway(f"The {self._engine.name} engine does not answer: {engine_error(error)}") from error
        attaching = [asyncio.create_task(self._attach(item)) for item in found if item["Id"] not in known]
        given: set[ContainerSandbox] = set()
        try:
            for attached in asyncio.as_completed(attaching):
                if (sandbox := await attached) is not None:
                    given.add(sandbox)
                    yield sandbox
        finally:
            for task in attaching:
                task.cancel()
            for result in await asyncio.gather(*attaching, return_exceptions=True):
                if isinstance(result, ContainerSandbox) and result not in given:
                    await result.let_go()

    async def containers(self) -> list[dict[str, Any]]:
        """Return the engine's descriptions of all containers of this instance. Raises as the engine's client does."""
        filters = {"label": [f"{containment.MANAGED}=true", f"{containment.INSTANCE}={self._settings.instance}"]}
        return await self._engine.call(lambda: self._engine.client.api.containers(all=True, filters=filters))

    def remove(self, container: Mapping[str, Any], why: str) -> None:
        """Remove a container in the background, with all that was made for it."""
        log.warning("container %s is removed: %s", container["Id"][:12], why)
        removal = asyncio.create_task(self._remove(container["Id"], container["Labels"], container["Image"]))
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def _attach(self, container: Mapping[str, Any]) -> ContainerSandbox | None:
        try:
            async with self._limit, asyncio.timeout(self._settings.agent_silence_s):
                return await self._attach_patiently(container)
        except TimeoutError:
            why = f"its agent did not answer within {self._settings.agent_silence_s:g} s"
        except (AgentBroken, KeyError, TypeError, ValueError) as error:
            why = str(error)
        self.remove(container, why)
        return None

    async def _attach_patiently(self, container: Mapping[str, Any]) -> ContainerSandbox:
        """Attach, again while the engine has let go of the last attachment. Raises AgentBroken, BackendAway."""
        labels, container_id = container["Labels"], container["Id"]
        if containment.PLAIN in labels:
            raise AgentBroken("it has no agent, so nobody can go on with it")
        spec = SandboxSpec.from_dict(json.loads(labels[containment.SPEC]))
        name, created_at = labels[containment.NAME], float(labels[containment.CREATED_AT])
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                if not await self._engine.running(container_id):
                    raise AgentBroken("it does not run any more")
                sandbox = await self._maker.attach(
                    spec,
                    name,
                    container_id,
                    created_at=created_at,
                    drop_image=_drop_image(labels, container["Image"]),
                    pipes=_pipes(labels),
                )
                sandbox.shares_libraries = self._maker.sees_libraries(labels)
                return sandbox
            except AgentGone as error:
                log.info("container %s: not attached yet: %s", container_id[:12], error)
            except OSError as error:
                raise BackendAway(f"The {self._engine.name} engine does not answer: {error}") from error
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _remove(self, container_id: str, labels: Mapping[str, str], image: str) -> None:
        await self._engine.remove(container_id, drop_image=_drop_image(labels, image))
        if (pipes := _pipes(labels)) is not None:
            await asyncio.to_thread(remove_pipes, pipes)

    async def settle(self, timeout_s: float) -> None:
        """Wait until what is removed is gone, so long at most: the next proxy finds what is left."""
        if self._removals:
            _, late = await asyncio.wait(self._removals, timeout=timeout_s)
            for task in late:
                task.cancel()


def _drop_image(labels: Mapping[str, str], image: str) -> str | None:
    return image if containment.DROP_IMAGE in labels else None


def _pipes(labels: Mapping[str, str]) -> Path | None:
    return Path(labels[containment.PIPES]) if containment.PIPES in labels else None
