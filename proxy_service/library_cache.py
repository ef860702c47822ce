"""Libraries on the proxy's disk: which versions a set of requirements means, and each package, unpacked or packed.

All files are written beside their place and renamed into it, so another proxy with the same directory never sees
half of one.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

from proxy_service import uv
from proxy_service.archives import answered, pack, touch
from proxy_service.errors import LibraryError, RegistryAway
from proxy_service.library_links import store_of
from proxy_service.npm_cache import NpmCache
from proxy_service.uv import Target

log = logging.getLogger(__name__)

T = TypeVar("T")

STALE_WORK_S = 3600.0
COMPILE_TIMEOUT_S = 300.0
IN_USE_S = 7 * 24 * 3600.0
"""For how long after a package was last asked for a session may still use it."""


class LibraryCache:
    """Give resolutions and archives, made at most once at a time each."""

    def __init__(self, directory: Path, *, max_bytes: int, timeout_s: float) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self.timeout_s = timeout_s
        self._locks: dict[str, asyncio.Lock] = {}
        self._compiling: set[asyncio.Task[None]] = set()
        self.npm = NpmCache(self)

    async def resolve(self, requirements: Iterable[str], constraints: Iterable[str], target: Target) -> list[str]:
        """Return the pins of a set of requirements; a recent answer is taken again. Raises LibraryError."""
        wanted, fixed = sorted(set(requirements)), sorted(constraints)
        content = json.dumps([wanted, fixed, target.python, target.platform])
        path = self.resolution("python", content)

        async def ask() -> list[str]:
            work = await asyncio.to_thread(self.work_directory)
            try:
                return await self.bounded(uv.resolve(wanted, fixed, target, work))
            finally:
                await asyncio.to_thread(shutil.rmtree, work, True)

        async with self.lock(path.name):
            return [str(pin) for pin in await answered(path, ask)]

    async def packages(self, pins: Iterable[str], target: Target) -> list[Path]:
        """Return a directory for each pin, with its files unpacked; those that are missing are made.

        Raises LibraryError.
        """
        wanted = {pin: self._package(pin, target) for pin in sorted(pins)}
        async with self.lock(f"{target.python} {target.platform}"):
            missing = {pin: path for pin, path in wanted.items() if not path.exists()}
            if missing:
                await self._make(missing, target)
        await asyncio.to_thread(touch, wanted.values())
        return list(wanted.values())

    async def archives(self, pins: Iterable[str], target: Target) -> list[Path]:
        """Return a tar file (without its end) for each pin; those that are missing are made. Raises LibraryError."""
        packages = await self.packages(pins, target)
        wanted = {package: self._archive(package) for package in packages}
        async with self.lock(f"archives {target.python} {target.platform}"):
            for package, path in wanted.items():
                if not path.exists():
                    await asyncio.to_thread(pack, package, _walk(package), path)
        await asyncio.to_thread(touch, wanted.values())
        return list(wanted.values())

    async def close(self) -> None:
        """Give up what is still being improved."""
        for task in self._compiling:
            task.cancel()
        await asyncio.gather(*self._compiling, return_exceptions=True)

    async def _make(self, missing: dict[str, Path], target: Target) -> None:
        work = await asyncio.to_thread(self.work_directory)
        try:
            await self.bounded(uv.install(list(missing), target, work))
            await asyncio.to_thread(_split, work / "site", missing)
        finally:
            await asyncio.to_thread(shutil.rmtree, work, True)
        if target.python == f"{sys.version_info.major}.{sys.version_info.minor}":
            task = asyncio.create_task(self._compile(list(missing.values())))
            self._compiling.add(task)
            task.add_done_callback(self._compiling.discard)
        await asyncio.to_thread(self.evict)

    async def _compile(self, packages: list[Path]) -> None:
        """Add bytecode to packages that are in use already: it saves seconds at every first import of a session."""
        command = [sys.executable, "-I", "-m", "compileall", "-q", "-x", "/tests?/"]
        command += ["--invalidation-mode", "unchecked-hash", "-s", str(self.store), *map(str, packages)]
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            try:
                os.setpriority(os.PRIO_PROCESS, process.pid, 10)
                await asyncio.wait_for(process.wait(), COMPILE_TIMEOUT_S)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            for package in packages:
                if (path := self._archive(package)).exists():
                    await asyncio.to_thread(pack, package, _walk(package), path)
        except (OSError, TimeoutError) as error:
            log.warning("libraries stay without bytecode: %r", error)

    # --- what npm's packages are kept by too

    async def bounded(self, work: Awaitable[T]) -> T:
        """Wait for something that asks a registry. Raises LibraryError when it takes too long."""
        try:
            return await asyncio.wait_for(work, self.timeout_s)
        except TimeoutError:
            raise RegistryAway(f"The package registry took longer than {self.timeout_s:g} s.") from None

    def lock(self, key: str) -> asyncio.Lock:
        """Return the lock of one thing of the cache."""
        return self._locks.setdefault(key, asyncio.Lock())

    def resolution(self, kind: str, content: str) -> Path:
        """Return where the answer to a question to a registry is kept."""
        return self._directory / "resolutions" / f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:40]}.json"

    def archive_path(self, platform: str, name: str) -> Path:
        """Return where an archive is kept."""
        return self._directory / "archives" / platform / f"{name}.tar"

    @property
    def store(self) -> Path:
        """Return the directory of unpacked packages, which sandboxes of this machine may see."""
        return store_of(self._directory)

    def _package(self, pin: str, target: Target) -> Path:
        name = "".join(char if char.isalnum() or char in "-._+=" else "_" for char in pin.split(" ")[0])
        return self.store / f"{target.python}-{target.platform}" / name

    def _archive(self, package: Path) -> Path:
        return self.archive_path(package.parent.name, package.name)

    def work_directory(self) -> Path:
        """Make a directory to work in; what dead proxies left is removed."""
        for name in ("archives", "resolutions"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        for left in self._directory.glob("work-*"):
            if time.time() - left.stat().st_mtime > STALE_WORK_S:
                shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix="work-", dir=self._directory))

    def evict(self) -> None:
        """Remove what was not used for longest, until the rest fits; what a live session may use stays.

        First go the downloads that uv and npm keep for themselves: all of it can be fetched again.
        """
        downloads = [path for name in ("uv", "npm") if (path := self._directory / name).is_dir()]
        archives = list((self._directory / "archives").rglob("*.tar"))
        packages = [path for path in self.store.glob("*/*") if not path.name.startswith(".")]
        excess = _room((*downloads, *archives, *packages)) - self._max_bytes
        in_use = {path for path in packages if time.time() - _used_at(path) < IN_USE_S}
        for path in (*downloads, *sorted((*archives, *packages), key=_used_at)):
            if excess <= 0:
                return
            if path not in in_use:
                excess -= _size(path)
                _remove(path)


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _stats(path: Path) -> list[os.stat_result]:
    found = path.rglob("*") if path.is_dir() else [path]
    return [one.lstat() for one in found if one.is_file()]


def _room(paths: Iterable[Path]) -> int:
    """Return how much room all of these take; what has two names, because uv links it, counts once."""
    return sum({(one.st_dev, one.st_ino): one.st_size for path in paths for one in _stats(path)}.values())


def _size(path: Path) -> int:
    """Return how much room would be free without it: a file that has another name too stays."""
    return sum(one.st_size for one in _stats(path) if one.st_nlink == 1)


def _remove(path: Path) -> None:
    gone = path.with_name(f".{path.name}.{os.getpid()}.gone")
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    if gone.is_dir():
        shutil.rmtree(gone, ignore_errors=True)
    else:
        gone.unlink(missing_ok=True)


def _walk(package: Path) -> list[str]:
    """Return a package's files, relative to its directory."""
    return sorted(str(path.relative_to(package)) for path in package.rglob("*") if path.is_file())


def _split(site: Path, pins: dict[str, Path]) -> None:
    """Move each distribution that is unpacked in `site` into a directory of its own. Raises LibraryError."""
    infos = {_normal(path.name.split("-")[0]): path for path in site.glob("*.dist-info")}
    for pin, package in pins.items():
        info = infos.get(_normal(pin.split("==")[0]))
        if info is None:
            raise LibraryError(f"{pin} was not unpacked.")
        package.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=package.parent))
        for name in _files(site, info):
            place = partial / name
            place.parent.mkdir(parents=True, exist_ok=True)
            # Linked, not moved: another distribution may name the same file.
            os.link(site / name, place)
            place.chmod(0o755 if place.stat().st_mode & 0o100 else 0o644)
        partial.chmod(0o755)
        try:
            partial.rename(package)
        except OSError:
            # Another proxy with the same directory was faster.
            shutil.rmtree(partial, ignore_errors=True)


def _files(site: Path, info: Path) -> Iterator[str]:
    """Yield the files that a distribution's RECORD names; nothing outside of `site`."""
    with (info / "RECORD").open(newline="", encoding="utf-8") as record:
        names = sorted({row[0] for row in csv.reader(record) if row})
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.parts[0] == "bin" or path.suffix == ".pyc":
            continue
        real = site / path
        if real.is_symlink() or not real.is_file():
            continue
        yield name


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
