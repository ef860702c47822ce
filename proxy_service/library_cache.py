"""Libraries on the proxy's disk: which versions a set of requirements means, and one tar file a package.

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
from proxy_service.archives import pack, read_fresh, touch, write
from proxy_service.errors import LibraryError
from proxy_service.npm_cache import NpmCache
from proxy_service.uv import Target

log = logging.getLogger(__name__)

T = TypeVar("T")

STALE_WORK_S = 3600.0
COMPILE_TIMEOUT_S = 300.0


class LibraryCache:
    """Give resolutions and archives, made at most once at a time each."""

    def __init__(self, directory: Path, *, max_bytes: int, timeout_s: float) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._locks: dict[str, asyncio.Lock] = {}
        self._compiling: set[asyncio.Task[None]] = set()
        self.npm = NpmCache(self)

    async def resolve(self, requirements: Iterable[str], constraints: Iterable[str], target: Target) -> list[str]:
        """Return the pins of a set of requirements; a recent answer is taken again. Raises LibraryError."""
        wanted, fixed = sorted(set(requirements)), sorted(constraints)
        content = json.dumps([wanted, fixed, target.python, target.platform])
        path = self.resolution("python", content)
        async with self.lock(path.name):
            known = await asyncio.to_thread(read_fresh, path)
            if known is None:
                work = await asyncio.to_thread(self.work_directory)
                try:
                    known = await self.bounded(uv.resolve(wanted, fixed, target, work))
                finally:
                    await asyncio.to_thread(shutil.rmtree, work, True)
                await asyncio.to_thread(write, path, json.dumps(known).encode())
        return [str(pin) for pin in known]

    async def archives(self, pins: Iterable[str], target: Target) -> list[Path]:
        """Return a tar file (without its end) for each pin; those that are missing are made. Raises LibraryError."""
        wanted = {pin: self._archive(pin, target) for pin in sorted(pins)}
        async with self.lock(f"{target.python} {target.platform}"):
            missing = {pin: path for pin, path in wanted.items() if not path.exists()}
            if missing:
                await self._make(missing, target)
        await asyncio.to_thread(touch, wanted.values())
        return list(wanted.values())

    async def close(self) -> None:
        """Give up what is still being improved."""
        for task in self._compiling:
            task.cancel()
        await asyncio.gather(*self._compiling, return_exceptions=True)

    async def _make(self, missing: dict[str, Path], target: Target) -> None:
        work = await asyncio.to_thread(self.work_directory)
        compiles = False
        try:
            await self.bounded(uv.install(list(missing), target, work))
            await asyncio.to_thread(_pack_all, work / "site", missing)
            compiles = target.python == f"{sys.version_info.major}.{sys.version_info.minor}"
        finally:
            if compiles:
                task = asyncio.create_task(self._compile(work, missing))
                self._compiling.add(task)
                task.add_done_callback(self._compiling.discard)
            else:
                await asyncio.to_thread(shutil.rmtree, work, True)
                await asyncio.to_thread(self.evict)

    async def _compile(self, work: Path, made: dict[str, Path]) -> None:
        """Add bytecode to archives that are in use already: it saves seconds at every first import of a session."""
        command = [sys.executable, "-I", "-m", "compileall", "-q", "-x", "/tests?/"]
        try:
            process = await asyncio.create_subprocess_exec(
                *(*command, "--invalidation-mode", "unchecked-hash", "-s", str(work / "site"), str(work / "site")),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                os.setpriority(os.PRIO_PROCESS, process.pid, 10)
                await asyncio.wait_for(process.wait(), COMPILE_TIMEOUT_S)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            await asyncio.to_thread(_pack_all, work / "site", made)
        except (OSError, TimeoutError) as error:
            log.warning("libraries stay without bytecode: %r", error)
        finally:
            await asyncio.to_thread(shutil.rmtree, work, True)
        await asyncio.to_thread(self.evict)

    # --- what npm's packages are kept by too

    async def bounded(self, work: Awaitable[T]) -> T:
        """Wait for something that asks a registry. Raises LibraryError when it takes too long."""
        try:
            return await asyncio.wait_for(work, self._timeout_s)
        except TimeoutError:
            raise LibraryError(f"The package registry took longer than {self._timeout_s:g} s.") from None

    def lock(self, key: str) -> asyncio.Lock:
        """Return the lock of one thing of the cache."""
        return self._locks.setdefault(key, asyncio.Lock())

    def resolution(self, kind: str, content: str) -> Path:
        """Return where the answer to a question to a registry is kept."""
        return self._directory / "resolutions" / f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:40]}.json"

    def archive_path(self, platform: str, name: str) -> Path:
        """Return where an archive is kept."""
        return self._directory / "archives" / platform / f"{name}.tar"

    def _archive(self, pin: str, target: Target) -> Path:
        name = "".join(char if char.isalnum() or char in "-._+=" else "_" for char in pin.split(" ")[0])
        return self.archive_path(f"{target.python}-{target.platform}", name)

    def work_directory(self) -> Path:
        """Make a directory to work in; what dead proxies left is removed."""
        for name in ("archives", "resolutions"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        for left in self._directory.glob("work-*"):
            if time.time() - left.stat().st_mtime > STALE_WORK_S:
                shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix="work-", dir=self._directory))

    def evict(self) -> None:
        """Remove the archives that were not used for longest, until the rest fits."""
        found = [(path, path.stat()) for path in (self._directory / "archives").rglob("*.tar")]
        found.sort(key=lambda item: item[1].st_mtime)
        excess = sum(stat.st_size for _, stat in found) - self._max_bytes
        for path, stat in found:
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= stat.st_size


def _pack_all(site: Path, pins: dict[str, Path]) -> None:
    """Pack each distribution that is unpacked in `site` into its own archive. Raises LibraryError."""
    infos = {_normal(path.name.split("-")[0]): path for path in site.glob("*.dist-info")}
    for pin, archive in pins.items():
        info = infos.get(_normal(pin.split("==")[0]))
        if info is None:
            raise LibraryError(f"{pin} was not unpacked.")
        pack(site, _files(site, info), archive)


def _files(site: Path, info: Path) -> Iterator[str]:
    """Yield the files that a distribution's RECORD names, and their bytecode; nothing outside of `site`."""
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
        if path.suffix == ".py":
            for compiled in (real.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc"):
                yield str(path.parent / "__pycache__" / compiled.name)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
