"""Libraries for sandboxes without a network: resolved and unpacked on the proxy's side, then streamed in."""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from llm_sandbox.exceptions import ValidationError
from llm_sandbox.security.package_validators import validate_package_name

from proxy_service import library_cache, metrics
from proxy_service.backends.base import LIBRARIES_PATH, Sandbox
from proxy_service.errors import LibraryError
from proxy_service.library_cache import LibraryCache
from proxy_service.uv import Target

log = logging.getLogger(__name__)


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


class SessionLibraries:
    """What one session's sandbox has been given.

    Libraries named in one execution stay for the later ones; a later set must agree with the versions that are there,
    because nothing that running code may have imported is changed under it.
    """

    def __init__(self, sandbox: Sandbox, cache: LibraryCache, *, found_again: bool = False) -> None:
        self._sandbox = sandbox
        self._cache = cache
        self._requirements: set[str] = set()
        self._pins: set[str] = set()
        self._lock = asyncio.Lock()
        self._sending: set[asyncio.Task[None]] = set()
        # A proxy before this one may have sent some.
        self.present = found_again and sandbox.spec.lang == "python"

    @property
    def python_path(self) -> tuple[str, ...]:
        """Return what goes before the sandbox's own libraries."""
        return (LIBRARIES_PATH,) if self.present else ()

    def has(self, requirements: Sequence[str]) -> bool:
        """Tell whether all of these are there already."""
        return self._requirements.issuperset(requirements)

    def check(self, requirements: Sequence[str]) -> tuple[str, ...]:
        """Return valid requirements that this sandbox can be given. Raises LibraryError."""
        lang = self._sandbox.spec.lang
        if lang != "python":
            raise LibraryError(f"Libraries can be added for python only, not for {lang}.")
        if not self._sandbox.capabilities.get("libraries") or not self._sandbox.capabilities.get("python"):
            raise LibraryError("The sandbox of this session cannot be given libraries.")
        return check_names(requirements, lang)

    async def provide(self, requirements: Sequence[str]) -> tuple[str, ...]:
        """Bring libraries into the sandbox; return its `python_path`. Raises LibraryError, SandboxBroken."""
        async with self._lock:
            if self._sending:
                # Somebody was cancelled while libraries were on their way; two streams would mix.
                await asyncio.wait(self._sending)
            if not self.has(requirements):
                began = time.monotonic()
                cached = await self._install(requirements)
                metrics.count_libraries(time.monotonic() - began, cached=cached)
        return self.python_path

    async def _install(self, requirements: Sequence[str]) -> bool:
        target = _target(self._sandbox)
        pins = await self._resolve(requirements, target)
        missing = [pin for pin in pins if pin not in self._pins]
        began = time.monotonic()
        archives = await self._cache.archives(missing, target)
        cached = time.monotonic() - began < 0.5
        await self._check_size(archives)
        if archives:
            # A stream that is cut in the middle would leave half a library: the sending ends even if the caller goes.
            task = asyncio.create_task(
                self._sandbox.put_tar(LIBRARIES_PATH, library_cache.stream(archives)), name="send libraries"
            )
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
            await asyncio.shield(task)
        self._pins.update(missing)
        self._requirements.update(requirements)
        self.present = True
        log.info(
            "libraries were added",
            extra={
                "session_id": self._sandbox.session_id,
                "requirements": list(requirements),
                "packages": len(missing),
            },
        )
        return cached

    async def _resolve(self, requirements: Sequence[str], target: Target) -> list[str]:
        try:
            return await self._cache.resolve(requirements, self._pins, target)
        except LibraryError as error:
            if not self._pins or error.detail.startswith("There is no package"):
                raise
            versions = ", ".join(sorted(self._pins)[:20])
            raise LibraryError(f"{error.detail} This session has already: {versions}.") from error

    async def _check_size(self, archives: list[Path]) -> None:
        size = await asyncio.to_thread(lambda: sum(path.stat().st_size for path in archives))
        room = self._sandbox.spec.limits.disk_bytes
        if size > room:
            detail = f"The libraries take {size // 2**20} MiB; the sandbox has a disk of {room // 2**20} MiB."
            raise LibraryError(detail)


def _target(sandbox: Sandbox) -> Target:
    python = ".".join(str(sandbox.capabilities["python"]).split(".")[:2])
    own = sandbox.capabilities.get("python_platform") or f"{platform.machine()}-manylinux_2_28"
    return Target(python, str(own))
