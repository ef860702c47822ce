"""Libraries for sandboxes without a network: resolved and unpacked on the proxy's side, then streamed in."""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from llm_sandbox.exceptions import ValidationError
from llm_sandbox.security.package_validators import validate_package_name

from proxy_service import archives, library_links, metrics, npm, package_managers
from proxy_service.backends.agent_sandbox import AgentSandbox
from proxy_service.backends.base import LIBRARIES_PATH, NODE_MODULES_PATH, Given, Sandbox
from proxy_service.errors import LibraryError, ProxyError, SandboxBroken, SandboxError
from proxy_service.library_cache import LibraryCache
from proxy_service.uv import Target

log = logging.getLogger(__name__)

CACHED_S = 0.5
MAX_RECALLED = 2000
_DIST_INFO = re.compile(r"([A-Za-z0-9][A-Za-z0-9._]*)-([0-9][A-Za-z0-9.!+_]*)\.dist-info")
LANGUAGES = ("javascript", "python")


def check_names(libraries: Sequence[str], lang: str) -> tuple[str, ...]:
    """Return the requirements, by llm-sandbox's own rules. Raises LibraryError for what is none."""
    try:
        return tuple(validate_package_name(library, lang) for library in libraries)
    except ValidationError:
        wrong = next(library for library in libraries if not _is_valid(library, lang))
        raise LibraryError(f"{wrong[:100]!r} is not a {lang} library's name, with or without a version.") from None


def _is_valid(library: str, lang: str) -> bool:
    try:
        validate_package_name(library, lang)
    except ValidationError:
        return False
    return True


def check(libraries: Sequence[str], lang: str, network: str = "none") -> tuple[str, ...]:
    """Return requirements that sandboxes of a language, with a network or without, can be given.

    Raises LibraryError.
    """
    if libraries and lang not in LANGUAGES:
        if lang not in package_managers.LANGUAGES:
            raise LibraryError(f"No libraries can be added for {lang}; use a template whose image has them.")
        if network == "none":
            raise LibraryError(
                f"Libraries of {lang} come by its own package manager, which needs a network, and this sandbox has "
                "none. Use a template that allows one, or whose image has the libraries."
            )
    return check_names(libraries, lang)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be unpacked where in a sandbox, and what it has afterwards."""

    archives: list[Path]
    path: str
    given: Given
    packages: int
    links: bytes = b""
    """An archive of links, instead of the archives of the packages themselves."""


class Installer(Protocol):
    """Say what a sandbox needs for a set of requirements, beside what it has."""

    async def __call__(self, cache: LibraryCache, sandbox: Sandbox, requirements: Sequence[str]) -> Plan:
        """Return the plan. Raises LibraryError."""


async def _plan_python(cache: LibraryCache, sandbox: Sandbox, requirements: Sequence[str]) -> Plan:
    given, target = sandbox.given, _target(sandbox)
    try:
        pins = await cache.resolve(requirements, given.pins, target)
    except LibraryError as error:
        if not given.pins or error.detail.startswith("There is no package"):
            raise
        versions = ", ".join(sorted(given.pins)[:20])
        raise LibraryError(f"{error.detail} This session has already: {versions}.") from error
    missing = [pin for pin in pins if pin not in given.pins]
    after = replace(given, pins=given.pins.union(missing))
    if sandbox.shares_libraries:
        packages = await cache.packages(missing, target)
        links = await asyncio.to_thread(library_links.archive, packages, cache.store)
        return Plan([], LIBRARIES_PATH, after, len(missing), links)
    return Plan(await cache.archives(missing, target), LIBRARIES_PATH, after, len(missing))


def _target(sandbox: Sandbox) -> Target:
    python = ".".join(str(sandbox.capabilities["python"]).split(".")[:2])
    own = sandbox.capabilities.get("python_platform") or f"{platform.machine()}-manylinux_2_28"
    return Target(python, str(own))


async def _plan_javascript(cache: LibraryCache, sandbox: Sandbox, requirements: Sequence[str]) -> Plan:
    given, cpu = sandbox.given, _target_cpu(sandbox)
    before = dict(given.lock)
    wanted = dict(map(npm.parts_of, (*sorted(given.requirements), *requirements)))
    lock = await cache.npm.resolve(wanted, before, cpu)
    changed = [path for path, entry in before.items() if lock.get(path, entry).get("version") != entry.get("version")]
    if changed:
        has = ", ".join(f"{npm.name_of(path)}@{before[path]['version']}" for path in changed[:20])
        raise LibraryError(f"This session has already: {has}. Another version needs a new session.")
    added = {path: entry for path, entry in lock.items() if path not in before}
    found = [await cache.npm.archive(wanted, lock, added, cpu)] if added else []
    return Plan(found, NODE_MODULES_PATH, replace(given, lock={**before, **added}), len(added))


def _target_cpu(sandbox: Sandbox) -> str:
    return str(sandbox.capabilities.get("python_platform") or platform.machine()).split("-")[0]


async def _install_inside(cache: LibraryCache, sandbox: Sandbox, requirements: Sequence[str]) -> Plan:
    missing = [requirement for requirement in requirements if requirement not in sandbox.given.requirements]
    if not isinstance(sandbox, AgentSandbox):
        raise LibraryError("The sandbox of this session cannot be given libraries.")
    await package_managers.install(sandbox, missing, timeout_s=cache.timeout_s)
    return Plan([], "", sandbox.given, len(missing))


INSTALLERS: dict[str, Installer] = {
    "python": _plan_python,
    "javascript": _plan_javascript,
    **dict.fromkeys(package_managers.LANGUAGES, _install_inside),
}


class SessionLibraries:
    """Bring libraries into one sandbox, which remembers what it was given.

    Libraries named in one execution stay for the later ones; a later set must agree with the versions that are there,
    because nothing that running code may have imported is changed under it.
    """

    def __init__(self, sandbox: Sandbox, cache: LibraryCache, *, found_again: bool = False) -> None:
        self._sandbox = sandbox
        self._cache = cache
        self._lock = asyncio.Lock()
        self._sending: set[asyncio.Task[None]] = set()
        # A proxy before this one may have sent some.
        self._found_again = found_again
        self._is_recalled = not found_again

    @property
    def present(self) -> bool:
        """Tell whether there may be any."""
        return self._found_again or bool(self._sandbox.given.requirements)

    @property
    def python_path(self) -> tuple[str, ...]:
        """Return what goes before the sandbox's own libraries."""
        return (LIBRARIES_PATH,) if self.present and self._sandbox.spec.lang == "python" else ()

    def has(self, requirements: Sequence[str]) -> bool:
        """Tell whether all of these are there already."""
        return self._sandbox.given.requirements.issuperset(requirements)

    def check(self, requirements: Sequence[str]) -> tuple[str, ...]:
        """Return valid requirements that this sandbox can be given. Raises LibraryError."""
        checked = check(requirements, self._sandbox.spec.lang, self._sandbox.spec.network)
        if checked and not self._sandbox.capabilities.get("libraries"):
            raise LibraryError("The sandbox of this session cannot be given libraries.")
        return checked

    async def provide(self, requirements: Sequence[str]) -> tuple[str, ...]:
        """Bring libraries into the sandbox; return its `python_path`. Raises LibraryError, SandboxBroken."""
        async with self._lock:
            if self._sending:
                # Somebody was cancelled while libraries were on their way; two streams would mix.
                await asyncio.wait(self._sending)
            if not self.has(requirements):
                if not self._is_recalled and self._sandbox.spec.lang == "python":
                    with suppress(ProxyError, ValueError, AttributeError, TypeError):
                        await self._recall()
                began = time.monotonic()
                cached = await self._install(requirements)
                metrics.count_libraries(time.monotonic() - began, cached=cached)
        return self.python_path

    async def _install(self, requirements: Sequence[str]) -> bool:
        began = time.monotonic()
        plan = await self._plan(requirements)
        cached = time.monotonic() - began < CACHED_S
        if plan.links:
            try:
                await self._send(plan.path, archives.once(plan.links))
            except SandboxBroken:
                raise
            except SandboxError as error:
                log.info("sandbox %s does not see the shared libraries: %s", self._sandbox.name, error.detail)
                self._sandbox.shares_libraries = False
                plan = await self._plan(requirements)
        if plan.archives:
            await self._check_size(plan.archives)
            await self._send(plan.path, archives.stream(plan.archives))
        self._sandbox.given = replace(plan.given, requirements=plan.given.requirements.union(requirements))
        log.info(
            "libraries were added",
            extra={
                "session_id": self._sandbox.session_id,
                "requirements": list(requirements),
                "packages": plan.packages,
            },
        )
        return cached

    async def _recall(self) -> None:
        """Learn which versions an earlier proxy has brought, from what lies in the sandbox; a lie harms nobody else."""
        self._is_recalled = True
        _, body = await self._sandbox.file_operation("file_list", path=LIBRARIES_PATH, offset=0, limit=MAX_RECALLED)
        names = [str(item.get("name")) for item in json.loads(body)]
        found = [match for name in names if (match := _DIST_INFO.fullmatch(name))]
        pins = frozenset(f"{re.sub('[-_.]+', '-', match[1]).lower()}=={match[2]}" for match in found)
        self._sandbox.given = replace(self._sandbox.given, pins=pins)

    async def _plan(self, requirements: Sequence[str]) -> Plan:
        return await INSTALLERS[self._sandbox.spec.lang](self._cache, self._sandbox, requirements)

    async def _send(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        # A stream that is cut in the middle would leave half a library: the sending ends even if the caller goes.
        task = asyncio.create_task(self._sandbox.put_tar(path, chunks), name="send libraries")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        await asyncio.shield(task)

    async def _check_size(self, archives: list[Path]) -> None:
        size = await asyncio.to_thread(lambda: sum(path.stat().st_size for path in archives))
        room = self._sandbox.spec.limits.disk_bytes
        if size > room:
            detail = f"The libraries take {size // 2**20} MiB; the sandbox has a disk of {room // 2**20} MiB."
            raise LibraryError(detail)
