"""Sandboxes as containers of Docker or Podman; they outlive the proxy and are found again by their labels."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from docker.errors import DockerException, ImageNotFound
from llm_sandbox.exceptions import ImagePullError

from proxy_service.agent_events import AgentBroken
from proxy_service.backends import containment
from proxy_service.backends.agent_sandbox import AgentSandbox, agent_config
from proxy_service.backends.base import Backend, Sandbox, SandboxSpec
from proxy_service.backends.container_sandbox import ContainerSandbox, Engine, engine_error
from proxy_service.backends.container_sessions import AgentDockerSession
from proxy_service.backends.engine import EngineName, connect, engine_is_local, engine_url
from proxy_service.backends.languages import LANGUAGES
from proxy_service.errors import (
    BackendUnavailable,
    ProxyError,
    SandboxStartFailed,
    UnsupportedLanguage,
    UnsupportedSpec,
)
from proxy_service.images import AGENT_FILE, AGENT_LABEL, VERSION_LABEL, agent_digest, image_name
from proxy_service.settings import Settings

log = logging.getLogger(__name__)

THREADS = 12
PARALLEL_STARTS = 4
PARALLEL_ATTACHES = 16
ENGINE_TIMEOUT_S = 30.0


class ContainerBackend(Backend):
    """Make sandboxes on a container engine, through llm-sandbox's session."""

    def __init__(self, settings: Settings, engine: EngineName) -> None:
        self.name = engine
        self._settings = settings
        self._engine_name = engine
        self._starts = asyncio.Semaphore(PARALLEL_STARTS)
        self._sandboxes: set[Sandbox] = set()
        self._abandoned: set[asyncio.Task[None]] = set()
        self._languages: dict[str, str | None] = {}
        self._limits: list[str] = []
        self._without_python: set[str] = set()
        self._agent_mountable = False
        self._platform: str | None = None
        self._engine: Engine | None = None

    # --- starting, and finding again

    async def start(self) -> list[Sandbox]:
        self._engine = await asyncio.to_thread(self._connect)
        await self._engine.call(self._look_around)
        if "python" not in self._languages:
            image = image_name(self._settings, "python")
            flag = "" if self._engine_name == "docker" else f" --backend {self._engine_name}"
            raise BackendUnavailable(
                f"{self._engine_name.capitalize()} has no image {image}.",
                mend=f"Build it: python -m proxy_service build-images{flag}",
            )
        return await self._find_again()

    def _connect(self) -> Engine:
        url = engine_url(self._engine_name, self._settings)
        client = connect(self._engine_name, self._settings, timeout_s=ENGINE_TIMEOUT_S, connections=THREADS)
        self._agent_mountable = engine_is_local(url)
        return Engine(
            self._engine_name,
            url,
            client,
            ThreadPoolExecutor(THREADS, thread_name_prefix=self._engine_name),
            attach_timeout_s=self._settings.start_timeout_s,
            ping_interval_s=self._settings.agent_ping_s,
            silence_s=self._settings.agent_silence_s,
        )

    def _look_around(self) -> None:
        client = self._ready().client
        for lang in LANGUAGES:
            try:
                labels = client.images.get(image_name(self._settings, lang)).labels
                self._languages[lang] = labels.get(VERSION_LABEL)
            except ImageNotFound:
                continue
        info = client.info()
        known = {"memory": "MemoryLimit", "pids": "PidsLimit", "cpu": "CpuCfsQuota"}
        self._limits = sorted([name for name, key in known.items() if info.get(key, True)] + ["disk"])
        self._platform = f"{info.get('Architecture', 'x86_64')}-manylinux_2_28"

    async def _find_again(self) -> list[Sandbox]:
        engine = self._ready()
        filters = {"label": [f"{containment.MANAGED}=true", f"{containment.INSTANCE}={self._settings.instance}"]}
        found = await engine.call(lambda: engine.client.api.containers(all=True, filters=filters))
        limit = asyncio.Semaphore(PARALLEL_ATTACHES)

        async def again(container: Mapping[str, Any]) -> Sandbox | None:
            async with limit:
                return await self._attach_again(container)

        sandboxes = [sandbox for sandbox in await asyncio.gather(*map(again, found)) if sandbox is not None]
        self._sandboxes.update(sandboxes)
        return sandboxes

    async def _attach_again(self, container: Mapping[str, Any]) -> Sandbox | None:
        engine, labels = self._ready(), container["Labels"]
        drop_image = container["Image"] if containment.DROP_IMAGE in labels else None
        try:
            if container["State"] != "running" or containment.PLAIN in labels:
                raise AgentBroken(f"its container is {container['State']}")
            spec = SandboxSpec.from_dict(json.loads(labels[containment.SPEC]))
            name, created_at = labels[containment.NAME], float(labels[containment.CREATED_AT])
            return await self._attach(spec, name, container["Id"], created_at, drop_image)
        except (AgentBroken, KeyError, TypeError, ValueError) as error:
            log.warning("container %s is removed: %s", container["Id"][:12], error)
            await engine.remove(container["Id"], drop_image=drop_image)
            return None

    async def _attach(
        self, spec: SandboxSpec, name: str, container_id: str, created_at: float, drop_image: str | None
    ) -> ContainerSandbox:
        engine, secret = self._ready(), self._settings.agent_secret(name)
        link = await engine.link(container_id, secret)
        sandbox = ContainerSandbox(
            name,
            spec,
            link,
            engine=engine,
            container_id=container_id,
            secret=secret,
            drop_image=drop_image,
            created_at=created_at,
        )
        sandbox.capabilities = {**self.capabilities(), "python": link.hello.get("python")}
        return sandbox

    # --- making

    async def create(self, spec: SandboxSpec, name: str) -> Sandbox:
        making = asyncio.create_task(self._make(spec, name))
        try:
            sandbox = await asyncio.shield(making)
        except asyncio.CancelledError:
            # A thread cannot be called back: whatever it makes is removed once it is there.
            task = asyncio.create_task(_undo(making))
            self._abandoned.add(task)
            task.add_done_callback(self._abandoned.discard)
            raise
        self._sandboxes.add(sandbox)
        return sandbox

    async def _make(self, spec: SandboxSpec, name: str) -> Sandbox:
        engine, created_at = self._ready(), time.time()
        session: AgentDockerSession | None = None
        try:
            async with self._starts:
                session = await engine.call(lambda: self._session(spec, name, created_at))
                await engine.call(session.open)
            drop_image = str(session.docker_image.id) if session.drops_image else None
            sandbox = await self._attach(spec, name, session.container.id, created_at, drop_image)
        except (AgentBroken, ImagePullError, DockerException, requests.RequestException) as error:
            if session is not None and session.container is not None:
                await engine.remove(session.container.id)
            if isinstance(error, ImagePullError):
                raise UnsupportedSpec(f"There is no image {spec.image}: {error}", field="image") from error
            if isinstance(error, requests.RequestException):
                raise BackendUnavailable(f"The {self._engine_name} engine does not answer: {error}") from error
            raise SandboxStartFailed(f"The sandbox could not be started: {engine_error(error)}") from error
        try:
            await sandbox.ready(self._settings.start_timeout_s)
        except ProxyError:
            await sandbox.destroy()
            raise
        return sandbox

    def _session(self, spec: SandboxSpec, name: str, created_at: float) -> AgentDockerSession:
        image = spec.image or image_name(self._settings, spec.lang)
        labels = containment.labels(self._settings.instance, name, spec, created_at)
        config = agent_config(
            self._settings.agent_secret(name),
            spec,
            user=containment.CODE_USER,
            rlimits=containment.agent_rlimits(spec),
            env=containment.CODE_ENV,
        )
        profile = containment.with_agent(
            spec, config, runtime=self._settings.sandbox_runtime, agent_file=self._agent_file(image, spec)
        )
        return AgentDockerSession(
            self._ready().client,
            profile={**profile, "name": name, "labels": labels},
            engine=self._engine_name,
            image=image,
            lang=spec.lang if spec.lang != "bash" else "python",
            keep_template=spec.keep_template,
        )

    def _agent_file(self, image: str, spec: SandboxSpec) -> str | None:
        """Return the agent to mount over the image's, or None when the image's own is to run."""
        try:
            baked = self._ready().client.images.get(image).labels.get(AGENT_LABEL)
        except ImageNotFound:
            if spec.image is None:
                raise UnsupportedLanguage(spec.lang, sorted(self._languages)) from None
            baked = None
        if baked == agent_digest():
            return None
        if self._agent_mountable:
            return str(AGENT_FILE)
        if baked is None:
            detail = f"The engine is on another machine, and {image} has no agent: build it from a sandboxweb image."
            raise UnsupportedSpec(detail, field="image")
        return None

    # --- the rest

    def _ready(self) -> Engine:
        if self._engine is None:
            raise BackendUnavailable(f"The {self._engine_name} backend was not started.")
        return self._engine

    async def close(self) -> None:
        if self._engine is None:
            return
        await asyncio.gather(*self._abandoned, return_exceptions=True)
        linked = [sandbox for sandbox in self._sandboxes if isinstance(sandbox, AgentSandbox)]
        await asyncio.gather(*(sandbox.let_go() for sandbox in linked), return_exceptions=True)
        self._sandboxes.clear()
        await asyncio.to_thread(self._engine.threads.shutdown, wait=True)
        self._engine.client.close()
        self._engine = None

    def languages(self) -> list[dict[str, str | None]]:
        return [{"lang": lang, "version": version} for lang, version in sorted(self._languages.items())]

    def capabilities(self) -> dict[str, Any]:
        return {
            "backend": self.name,
            "contexts": False,
            "resume": True,
            "files": True,
            "libraries": True,
            "stdin": True,
            "python": self._languages.get("python"),
            "python_platform": self._platform,
            "limits": self._limits,
        }


async def _undo(making: asyncio.Task[Sandbox]) -> None:
    try:
        sandbox = await making
    except Exception as error:
        log.info("a sandbox that nobody waited for was not made: %s", error)
    else:
        await sandbox.destroy()
