"""Sandboxes without any engine: one bubblewrap namespace a sandbox, with the agent as its first process.

They end with the proxy that holds them. Their files are directories of this machine; memory, processes and CPU are
bounded by a cgroup where this user may make one, else by what rlimits can do, and `capabilities` says which.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from proxy_service.agent_events import AgentBroken, AgentEvent, AgentGone
from proxy_service.agent_link import AgentLink
from proxy_service.backends.agent_sandbox import WORKDIR, AgentSandbox, agent_config
from proxy_service.backends.base import Backend, Limits, Sandbox, SandboxEvent, SandboxSpec
from proxy_service.backends.bwrap import SYSTEM_PATH, Launcher, Python, find_bwrap
from proxy_service.backends.cgroups import PREFIX, Cgroups
from proxy_service.backends.creations import Creations
from proxy_service.backends.disk_guard import DiskGuard
from proxy_service.backends.languages import installed_languages, versions
from proxy_service.backends.local_process import LocalProcess, kill_half_started, remove_rest
from proxy_service.backends.workspaces import Workspaces
from proxy_service.errors import BackendUnavailable, SandboxStartFailed, UnsupportedLanguage, UnsupportedSpec
from proxy_service.library_links import store_of
from proxy_service.settings import Settings

log = logging.getLogger(__name__)

AGENT_MEMORY_BYTES = 32 * 1024 * 1024
AGENT_PIDS = 4
SETTLE_TIMEOUT_S = 5.0
OPEN_FILES = 1024
LARGE_ADDRESS_SPACE = frozenset({"go", "java", "javascript"})
"""Languages that reserve far more addresses than they use: the rlimit, which counts those, would not let them start."""

_MENDS = (
    (
        ("uid map", "new namespace", "user namespace", "Creating new"),
        "This user may not create user namespaces. Allow it: sudo sysctl -w kernel.unprivileged_userns_clone=1 "
        "user.max_user_namespaces=10000. On Ubuntu 24.04 and newer install the system's own bubblewrap, which its "
        "AppArmor profile allows: sudo apt-get install bubblewrap.",
    ),
    (
        ("mount proc", "Can't mount", "pivot_root"),
        "In a container, bubblewrap needs `--privileged`, or `--security-opt seccomp=unconfined --security-opt "
        "apparmor=unconfined --security-opt systempaths=unconfined`; or use SANDBOX_BACKEND=docker.",
    ),
)


class BubblewrapSandbox(AgentSandbox):
    """A namespace held by one child process of the proxy."""

    def __init__(
        self,
        name: str,
        spec: SandboxSpec,
        link: AgentLink,
        *,
        process: LocalProcess,
    ) -> None:
        self.process = process
        self._running = ""
        self._over_disk: set[str] = set()
        limit = spec.limits.disk_bytes
        self._guard = DiskGuard(process.directory, limit, busy=self._has_processes, over=self._stop_code)
        super().__init__(name, spec, link)

    async def _relink(self, error: AgentGone) -> AgentLink | None:
        return None

    def _started(self, execution_id: str) -> None:
        self._running = execution_id
        self._guard.watch()

    async def _has_processes(self) -> bool:
        return bool((await super().stats()).get("processes"))

    async def _stop_code(self) -> None:
        """Kill what runs now; a sandbox whose disk is filled from the background is given up."""
        log.info("sandbox %s holds more than its %d bytes; its code is stopped", self.name, self.spec.limits.disk_bytes)
        if self._running in self._over_disk:
            self._link.fail(AgentBroken("its processes went on filling the disk"))
        self._over_disk.add(self._running)
        await self._ask("cancel", execution_id=self._running, force=True)

    def _told(self, execution_id: str, event: AgentEvent) -> SandboxEvent:
        told = super()._told(execution_id, event)
        if event.type != "exit" or execution_id not in self._over_disk:
            return told
        message = f"The sandbox's disk is full: its limit is {self.spec.limits.disk_bytes} bytes."
        return replace(told, data={**told.data, "reason": "killed", "message": message})

    async def stats(self) -> dict[str, Any]:
        """Return the agent's numbers, but for the disk: the agent sees all of the machine's."""
        used = await asyncio.to_thread(self._guard.used_bytes)
        return {**await super().stats(), "disk_bytes": used, "disk_limit_bytes": self.spec.limits.disk_bytes}

    async def _remove(self) -> None:
        self._guard.stop()
        await self.process.remove()


@dataclass(frozen=True)
class _Host:
    """What was found out about this machine when the backend started."""

    launcher: Launcher
    cgroups: Cgroups
    languages: dict[str, str | None]


class BubblewrapBackend(Backend):
    name = "bubblewrap"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workspaces = Workspaces(settings.data_dir / "sandboxes")
        self._sandboxes: set[AgentSandbox] = set()
        self._creations = Creations()
        self._host: _Host | None = None

    async def start(self) -> None:
        try:
            await self.prepare()
            host = self._ready()
            host.languages.update(await asyncio.to_thread(versions, installed_languages(SYSTEM_PATH), SYSTEM_PATH))
            await self._probe()
        except BaseException:
            await self.close()
            raise

    async def find_again(self) -> AsyncIterator[Sandbox]:
        found: tuple[Sandbox, ...] = ()  # they end with the proxy that holds them
        for sandbox in found:
            yield sandbox

    async def prepare(self) -> None:
        """Do what `start` does, but without the proof that a sandbox can be made, which takes its time."""
        self._host = await asyncio.to_thread(self._look_around)

    def _look_around(self) -> _Host:
        bwrap = find_bwrap()
        if removed := self._workspaces.open():
            kill_half_started(self._workspaces.directory.parent / name for name in removed)
            log.info("removed the sandboxes of %d dead proxies", len(removed))
        own = self._workspaces.directory
        launcher = Launcher(bwrap, Python.of_this_process(), own / "support", store_of(self._settings.libraries_dir))
        launcher.prepare()
        languages = {"python": platform.python_version(), **dict.fromkeys(installed_languages(SYSTEM_PATH))}
        cgroups = Cgroups(f"{PREFIX}{own.name}")
        cgroups.remove_dead()
        return _Host(launcher, cgroups, languages)

    async def _probe(self) -> None:
        try:
            sandbox = await self.create(SandboxSpec(lang="python", limits=self._settings.default_limits), "probe")
        except SandboxStartFailed as error:
            mend = next((mend for words, mend in _MENDS if any(word in error.detail for word in words)), "")
            raise BackendUnavailable(f"bubblewrap cannot make a sandbox here. {error.detail}", mend=mend) from error
        await sandbox.destroy()

    async def create(self, spec: SandboxSpec, name: str) -> Sandbox:
        host = self._ready()
        if spec.lang not in host.languages:
            raise UnsupportedLanguage(spec.lang, sorted(host.languages))
        if spec.image is not None:
            raise UnsupportedSpec("The bubblewrap backend has no images; it runs what this machine has.", field="image")
        return await self._creations.run(self._make(host, spec, name))

    async def _make(self, host: _Host, spec: SandboxSpec, name: str) -> Sandbox:
        process = await self._start_process(host, spec, name)
        try:
            link = await self._attach(process, name)
            sandbox = BubblewrapSandbox(name, spec, link, process=process)
        except BaseException:
            await process.remove()
            raise
        self._sandboxes.add(sandbox)
        sandbox.shares_libraries = spec.lang == "python"
        sandbox.forget = self._sandboxes.discard
        try:
            await sandbox.ready(self._settings.start_timeout_s)
        except BaseException:
            await sandbox.destroy()
            raise
        sandbox.capabilities = {
            **self.capabilities(),
            "python": sandbox.python,
            "limits": self._limits(spec.lang),
            "contexts": sandbox.can_keep_contexts(),
        }
        return sandbox

    async def _start_process(self, host: _Host, spec: SandboxSpec, name: str) -> LocalProcess:
        directory = self._workspaces.create(name)
        cgroup = None
        seccomp = host.launcher.open_seccomp()
        try:
            if host.cgroups.limits:
                cgroup = host.cgroups.create(name, _with_agent(spec.limits))
            argv = host.launcher.argv(spec, directory, seccomp, cgroup)
            env = {**self._code_env(host), "SBX_AGENT": self._agent_config(host, spec, name)}
            return await LocalProcess.start(argv, env, seccomp=seccomp, directory=directory, cgroup=cgroup)
        except BaseException as error:
            await remove_rest(directory, cgroup)
            if isinstance(error, OSError):
                raise SandboxStartFailed(f"The sandbox could not be started: {error}.") from error
            raise
        finally:
            if seccomp is not None:
                os.close(seccomp)

    async def _attach(self, process: LocalProcess, name: str) -> AgentLink:
        reader, writer = process.process.stdout, process.process.stdin
        assert reader is not None and writer is not None  # noqa: S101
        try:
            link = await AgentLink.attach(
                reader,
                writer,
                secret=self._settings.agent_secret(name),
                timeout_s=self._settings.start_timeout_s,
                ping_interval_s=self._settings.agent_ping_s,
                silence_s=self._settings.agent_silence_s,
            )
        except AgentBroken as error:
            reason = process.complaint() or str(error)
            raise SandboxStartFailed(f"The sandbox could not be started: {reason}") from error
        process.listen()
        return link

    def _agent_config(self, host: _Host, spec: SandboxSpec, name: str) -> str:
        bound = host.cgroups.limits
        return agent_config(
            self._settings.agent_secret(name),
            spec,
            user=None,
            rlimits={
                "as": None if "memory" in bound or spec.lang in LARGE_ADDRESS_SPACE else spec.limits.memory_bytes,
                "nproc": None if "pids" in bound else spec.limits.pids,
                "fsize": spec.limits.disk_bytes,
                "nofile": OPEN_FILES,
            },
            env=self._code_env(host),
            ends_with_proxy=True,
        )

    @staticmethod
    def _code_env(host: _Host) -> dict[str, str]:
        """Return what code meets; the agent must start with the same, or it starts twice."""
        return {"PATH": host.launcher.python.path, "HOME": WORKDIR, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}

    def _ready(self) -> _Host:
        if self._host is None:
            raise BackendUnavailable("The bubblewrap backend was not started.")
        return self._host

    async def close(self) -> None:
        await self._creations.settle(SETTLE_TIMEOUT_S)
        await asyncio.gather(*(sandbox.destroy() for sandbox in tuple(self._sandboxes)), return_exceptions=True)
        if self._host is not None:
            self._host.cgroups.close()
            self._host = None
        await asyncio.to_thread(self._workspaces.close)

    def languages(self) -> list[dict[str, str | None]]:
        return [{"lang": lang, "version": version} for lang, version in sorted(self._ready().languages.items())]

    def capabilities(self) -> dict[str, Any]:
        return {
            "backend": self.name,
            "contexts": True,
            "resume": False,
            "files": True,
            "libraries": True,
            "stdin": True,
            "python": platform.python_version(),
            "limits": self._limits("python"),
        }

    def _limits(self, lang: str) -> list[str]:
        """Return the names of the limits that bind: by cgroups all together, by rlimits each process for itself."""
        bound = {"disk", *(self._host.cgroups.limits if self._host is not None else ())}
        if lang not in LARGE_ADDRESS_SPACE:
            bound.add("memory")
        if os.geteuid() != 0:
            # How many processes root has no rlimit counts.
            bound.add("pids")
        return sorted(bound)


def _with_agent(limits: Limits) -> Limits:
    """Return the limits of the whole: what the code was promised, and what the agent needs."""
    return Limits(limits.memory_bytes + AGENT_MEMORY_BYTES, limits.cpus, limits.pids + AGENT_PIDS, limits.disk_bytes)
