"""A sandbox in a container: its agent is reached by attaching, again after whatever ended the attachment."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from proxy_service.agent_events import AgentBroken, AgentGone, AgentSilent
from proxy_service.agent_link import AgentLink, ByteReader, ByteWriter
from proxy_service.backends.agent_sandbox import AgentSandbox
from proxy_service.backends.base import SandboxSpec
from proxy_service.backends.engine import EngineName
from proxy_service.backends.engine_stream import attach, ping
from proxy_service.backends.fifo_channel import PipesWriter, open_pipes, remove_pipes

log = logging.getLogger(__name__)

T = TypeVar("T")

REMOVE_TIMEOUT_S = 60.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
LOOK_PAUSE_S = 0.3
MIN_ANSWER_S = 2.0
MAX_REFUSALS = 3


@dataclass(frozen=True)
class Engine:
    """A container engine: its blocking client, and the threads that its calls may take."""

    name: EngineName
    url: str
    client: docker.DockerClient
    threads: ThreadPoolExecutor
    attach_timeout_s: float = 30.0
    ping_interval_s: float = 5.0
    silence_s: float = 15.0
    patience_s: float = 120.0
    """How long it may be away before what runs on it is given up."""
    removing: set[str] = field(default_factory=set)
    """The containers that somebody is removing now."""

    async def call(self, work: Callable[[], T]) -> T:
        """Run a blocking call to the engine in one of its threads."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)

    async def link(
        self, container_id: str, secret: bytes, pipes: Path | None, *, timeout_s: float | None = None
    ) -> AgentLink:
        """Attach to a running container's agent, over its pipes when it has any. Raises AgentBroken."""
        reader: ByteReader
        writer: ByteWriter
        if pipes is None:
            reader, writer = await attach(self.url, container_id)
        else:
            reader, writer = await self._open_pipes(container_id, pipes)
        return await AgentLink.attach(
            reader,
            writer,
            secret=secret,
            timeout_s=timeout_s or self.attach_timeout_s,
            ping_interval_s=self.ping_interval_s,
            silence_s=self.silence_s,
        )

    async def _open_pipes(self, container_id: str, pipes: Path) -> tuple[asyncio.StreamReader, PipesWriter]:
        opening = asyncio.create_task(open_pipes(pipes))
        try:
            while not (await asyncio.wait({opening}, timeout=LOOK_PAUSE_S))[0]:
                if not await self.running(container_id):
                    raise AgentGone("its container ended")
            return await opening
        except OSError as error:
            raise AgentGone(f"the engine does not answer: {error}") from error
        finally:
            opening.cancel()

    async def exit_code(self, container_id: str) -> int | None:
        """Return what a container ended with; None while it runs."""
        state = (await self.call(lambda: self.client.api.inspect_container(container_id)))["State"]
        return None if state["Running"] else int(state["ExitCode"])

    async def running(self, container_id: str) -> bool:
        """Tell whether a container runs and is not paused. Raises OSError when the engine does not answer."""
        try:
            state = (await self.call(lambda: self.client.api.inspect_container(container_id)))["State"]
        except NotFound:
            return False
        except (DockerException, requests.RequestException) as error:
            raise OSError(str(error)) from error
        return bool(state["Running"]) and not state.get("Paused")

    async def remove(self, container_id: str, *, drop_image: str | None = None) -> None:
        """Kill and remove a container, trying again while the engine is away.

        After a minute it is left to who looks for containers without an owner (`container_sweeping`).
        """
        pause_s, deadline = FIRST_PAUSE_S, time.monotonic() + REMOVE_TIMEOUT_S
        self.removing.add(container_id)
        try:
            while not await self.call(lambda: self._removed(container_id)):
                if time.monotonic() > deadline:
                    log.error("container %s could not be removed; it is tried again later", container_id)
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        finally:
            self.removing.discard(container_id)
        if drop_image is not None:
            await self.call(lambda: self._drop_image(drop_image))

    def _removed(self, container_id: str) -> bool:
        try:
            self.client.api.remove_container(container_id, v=True, force=True)
        except NotFound:
            return True
        except (DockerException, requests.RequestException) as error:
            log.info("container %s: not removed yet: %s", container_id, error)
            return False
        return True

    def _drop_image(self, image: str) -> None:
        """Remove an image that was pulled for a sandbox that was not to keep it, unless another container uses it."""
        try:
            if not self.client.containers.list(all=True, filters={"ancestor": image}):
                self.client.images.remove(image)
        except (APIError, requests.RequestException) as error:
            log.info("image %s stays: %s", image, error)


class ContainerSandbox(AgentSandbox):
    """A container whose main process is an agent. It outlives the proxy."""

    def __init__(
        self,
        name: str,
        spec: SandboxSpec,
        link: AgentLink,
        *,
        engine: Engine,
        container_id: str,
        secret: bytes,
        pipes: Path | None = None,
        drop_image: str | None = None,
        created_at: float | None = None,
    ) -> None:
        self.container_id = container_id
        self._engine = engine
        self._secret = secret
        self._pipes = pipes
        self._drop_image = drop_image
        super().__init__(name, spec, link, created_at=created_at)

    async def _relink(self, error: AgentGone) -> AgentLink | None:
        """Attach again: the engine may have been stopped or restarted, or have dropped the connection.

        Silence is the agent's own only if the engine answers: then the agent has one more chance, and a short one.
        """
        silent, refusals = isinstance(error, AgentSilent), 0
        answer_s = max(self._engine.ping_interval_s, MIN_ANSWER_S) if silent else self._engine.attach_timeout_s
        pause_s, deadline = FIRST_PAUSE_S, time.monotonic() + self._engine.patience_s
        while time.monotonic() < deadline and not self._destroyed and not self.broken.is_set():
            try:
                await ping(self._engine.url)
                if not await self._engine.running(self.container_id):
                    return None
                return await self._engine.link(self.container_id, self._secret, self._pipes, timeout_s=answer_s)
            except (OSError, AgentGone) as away:
                log.info("sandbox %s: not attached yet: %s", self.name, away)
                refusals += isinstance(away, AgentGone)
            except AgentBroken as broken:
                if await self._engine_answers():
                    log.warning("sandbox %s: %s", self.name, broken)
                    return None
            if silent and refusals == MAX_REFUSALS:
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return None

    async def _engine_answers(self) -> bool:
        try:
            await ping(self._engine.url)
        except OSError:
            return False
        return True

    async def _remove(self) -> None:
        await self._engine.remove(self.container_id, drop_image=self._drop_image)
        if self._pipes is not None:
            await asyncio.to_thread(remove_pipes, self._pipes)


def engine_error(error: Exception) -> str:
    """Return what an engine said, in one line."""
    said: Any = getattr(error, "explanation", None)
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said or error)
    return " ".join(text.split())
