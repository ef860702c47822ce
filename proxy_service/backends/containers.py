"""Sandboxes as containers of Docker or Podman; they outlive the proxy and are found again by their labels."""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests
from docker.errors import DockerException, ImageNotFound

from proxy_service.backends.agent_sandbox import AgentSandbox
from proxy_service.backends.base import Backend, Sandbox, SandboxSpec
from proxy_service.backends.container_finding import ContainerFinder
from proxy_service.backends.container_making import ContainerMaker
from proxy_service.backends.container_sandbox import ContainerSandbox, Engine, engine_error
from proxy_service.backends.container_sweeping import ContainerSweeper
from proxy_service.backends.creations import Creations
from proxy_service.backends.engine import EngineName, connect, engine_is_local, engine_url
from proxy_service.backends.languages import LANGUAGES
from proxy_service.errors import BackendAway, BackendUnavailable, UnsupportedLanguage
from proxy_service.images import VERSION_LABEL, image_name
from proxy_service.settings import Settings

log = logging.getLogger(__name__)

THREADS = 12
PARALLEL_STARTS = 4
ENGINE_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = 3.0
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class ContainerBackend(Backend):
    """Make sandboxes on a container engine, and find them again."""

    def __init__(self, settings: Settings, engine: EngineName) -> None:
        self.name = engine
        self._settings = settings
        self._engine_name = engine
        self._starts = asyncio.Semaphore(PARALLEL_STARTS)
        self._sandboxes: set[Sandbox] = set()
        self._creations = Creations()
        self._languages: dict[str, str | None] = {}
        self._limits: list[str] = []
        self._platform: str | None = None
        self._is_local = False
        self._engine: Engine | None = None
        self._maker: ContainerMaker | None = None
        self._finder: ContainerFinder | None = None
        self._sweeper: ContainerSweeper | None = None
        self._making: set[str] = set()

    async def start(self) -> None:
        engine, maker = await asyncio.to_thread(self._connect)
        self._engine, self._maker = engine, maker
        try:
            await engine.call(self._look_around)
            self._require_python()
        except BaseException as error:
            await self.close()
            if isinstance(error, DockerException | requests.RequestException):
                detail = f"The {self._engine_name} engine does not do its work: {engine_error(error)}"
                raise BackendAway(detail) from error
            raise
        self._finder = ContainerFinder(self._settings, engine, maker)
        self._sweeper = ContainerSweeper(self._finder, engine, self._owned)

    def _owned(self) -> set[str]:
        return self._making | {sandbox.name for sandbox in self._sandboxes}

    def _connect(self) -> tuple[Engine, ContainerMaker]:
        url = engine_url(self._engine_name, self._settings)
        client = connect(self._engine_name, self._settings, timeout_s=ENGINE_TIMEOUT_S, connections=THREADS)
        engine = Engine(
            self._engine_name,
            url,
            client,
            ThreadPoolExecutor(THREADS, thread_name_prefix=self._engine_name),
            attach_timeout_s=self._settings.start_timeout_s,
            ping_interval_s=self._settings.agent_ping_s,
            silence_s=self._settings.agent_silence_s,
            patience_s=self._settings.engine_patience_s,
        )
        local = self._is_local = engine_is_local(url)
        maker = ContainerMaker(
            self._settings,
            engine,
            mountable=local,
            security_opt=self._security_opt(local=local),
            pipes_dir=self._pipes_dir(local=local),
        )
        return engine, maker

    def _security_opt(self, *, local: bool) -> tuple[str, ...]:
        """Return what this engine must be told beside the profile that all share."""
        return ()

    def _pipes_dir(self, *, local: bool) -> Path | None:
        """Return where pipes to the agents are made, for an engine whose attach cannot be made twice."""
        return None

    def _look_around(self) -> None:
        client = self._ready()[0].client
        for lang in LANGUAGES:
            try:
                labels = client.images.get(image_name(self._settings, lang)).labels
                self._languages[lang] = labels.get(VERSION_LABEL)
            except ImageNotFound:
                continue
        info = client.info()
        self._check_runtime(info)
        known = {"memory": "MemoryLimit", "pids": "PidsLimit", "cpu": "CpuCfsQuota"}
        self._limits = sorted([name for name, key in known.items() if info.get(key, True)] + ["disk"])
        machine = str(info.get("Architecture") or platform.machine())
        self._platform = f"{MACHINES.get(machine, machine)}-manylinux_2_28"

    def _check_runtime(self, info: Mapping[str, Any]) -> None:
        """Make sure that the engine knows the runtime that is wanted. Raises BackendUnavailable."""
        wanted, known = self._settings.sandbox_runtime, info.get("Runtimes") or {}
        if wanted and wanted not in known:
            detail = f"The {self._engine_name} engine has no runtime {wanted}; it has {', '.join(sorted(known))}."
            raise BackendUnavailable(detail, mend=f"Install {wanted} and name it among the engine's runtimes.")

    def _require_python(self) -> None:
        if "python" not in self._languages:
            image, engine = image_name(self._settings, "python"), self._engine_name
            flag = "" if engine == "docker" else f" --backend {engine}"
            mend = f"Build it: python -m proxy_service build-images{flag}"
            raise BackendUnavailable(f"{engine.capitalize()} has no image {image}.", mend=mend)

    # --- finding again

    async def find_again(self) -> AsyncIterator[Sandbox]:
        self._ready()
        assert self._finder is not None and self._sweeper is not None  # noqa: S101
        known = {sandbox.container_id for sandbox in self._sandboxes if isinstance(sandbox, ContainerSandbox)}
        async for sandbox in self._finder.find(known):
            self._sandboxes.add(sandbox)
            yield self._described(sandbox)
        self._sweeper.begin()

    # --- making

    async def create(self, spec: SandboxSpec, name: str) -> Sandbox:
        return await self._creations.run(self._make(spec, name))

    async def _make(self, spec: SandboxSpec, name: str) -> Sandbox:
        _, maker = self._ready()
        self._making.add(name)
        try:
            async with self._starts:
                sandbox = await maker.make(spec, name)
            self._sandboxes.add(sandbox)
        except UnsupportedLanguage:
            raise UnsupportedLanguage(spec.lang, sorted(self._languages)) from None
        finally:
            self._making.discard(name)
        return self._described(sandbox)

    def _described(self, sandbox: Sandbox) -> Sandbox:
        if isinstance(sandbox, AgentSandbox):
            contexts = sandbox.can_keep_contexts()
            sandbox.capabilities = {**self.capabilities(), "python": sandbox.python, "contexts": contexts}
        sandbox.forget = self._sandboxes.discard
        return sandbox

    # --- the rest

    def _ready(self) -> tuple[Engine, ContainerMaker]:
        if self._engine is None or self._maker is None:
            raise BackendUnavailable(f"The {self._engine_name} backend was not started.")
        return self._engine, self._maker

    async def close(self) -> None:
        if self._engine is None:
            return
        await self._creations.settle(SETTLE_TIMEOUT_S)
        if self._sweeper is not None:
            await self._sweeper.stop()
        if self._finder is not None:
            await self._finder.settle(SETTLE_TIMEOUT_S)
        linked = [sandbox for sandbox in self._sandboxes if isinstance(sandbox, AgentSandbox)]
        await asyncio.gather(*(sandbox.let_go() for sandbox in linked), return_exceptions=True)
        self._sandboxes.clear()
        with suppress(TimeoutError):
            # A call that the engine does not answer is not waited for.
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                await asyncio.to_thread(self._engine.threads.shutdown, wait=True, cancel_futures=True)
        self._engine.client.close()
        self._engine = self._maker = self._finder = self._sweeper = None

    def languages(self) -> list[dict[str, str | None]]:
        return [{"lang": lang, "version": version} for lang, version in sorted(self._languages.items())]

    def capabilities(self) -> dict[str, Any]:
        return {
            "backend": self.name,
            "contexts": True,
            "resume": True,
            "files": True,
            "libraries": True,
            "stdin": True,
            "python": self._languages.get("python"),
            "python_platform": self._platform,
            "limits": self._limits,
        }
