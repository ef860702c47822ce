"""npm packages on the proxy's disk: where each goes for a set of requirements, and one tar file of what is to be sent.

What two sets need in common lies in the same place only by chance, so a tar file holds all that one set adds to
another; its name is made from the contents' own digests.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from proxy_service import npm
from proxy_service.archives import answered, pack, touch
from proxy_service.errors import LibraryError
from proxy_service.npm import Lock

if TYPE_CHECKING:
    from proxy_service.library_cache import LibraryCache


class NpmCache:
    """Give resolutions and archives of npm packages, in the directories of the cache that also holds Python's."""

    def __init__(self, cache: LibraryCache) -> None:
        self._cache = cache

    async def resolve(self, requirements: Mapping[str, str], before: Lock, cpu: str) -> Lock:
        """Return where each package goes; a recent answer is taken again. Raises LibraryError."""
        content = json.dumps([sorted(requirements.items()), before, cpu], sort_keys=True)
        path = self._cache.resolution("npm", content)

        async def ask() -> Lock:
            work = await asyncio.to_thread(self._cache.work_directory)
            try:
                return await self._cache.bounded(npm.resolve(requirements, before, cpu, work))
            finally:
                await asyncio.to_thread(shutil.rmtree, work, True)

        async with self._cache.lock(path.name):
            return dict(await answered(path, ask))

    async def archive(self, requirements: Mapping[str, str], lock: Lock, added: Lock, cpu: str) -> Path:
        """Return a tar file (without its end) of the packages that are added. Raises LibraryError."""
        content = json.dumps([(path, entry.get("integrity")) for path, entry in sorted(added.items())])
        path = self._cache.archive_path(f"npm-{cpu}", hashlib.sha256(content.encode()).hexdigest()[:40])
        async with self._cache.lock(path.name):
            if not await asyncio.to_thread(path.exists):
                await self._make(path, requirements, lock, added, cpu)
        await asyncio.to_thread(touch, [path])
        return path

    async def _make(self, archive: Path, requirements: Mapping[str, str], lock: Lock, added: Lock, cpu: str) -> None:
        work = await asyncio.to_thread(self._cache.work_directory)
        try:
            # Again, from the lock: it changes nothing, and tells npm what to unpack.
            await self._cache.bounded(npm.resolve(requirements, lock, cpu, work))
            await self._cache.bounded(npm.install(cpu, work))
            await asyncio.to_thread(_check_built, work, added)
            await asyncio.to_thread(lambda: pack(work / "node_modules", _files(work, added), archive))
        finally:
            await asyncio.to_thread(shutil.rmtree, work, True)
        await asyncio.to_thread(self._cache.evict)


def _check_built(work: Path, added: Lock) -> None:
    """Refuse what would be compiled at its installation, unless it brings what that would make."""
    for path, entry in added.items():
        directory = work / path
        if not entry.get("hasInstallScript") or not (directory / "binding.gyp").exists():
            continue
        if not (directory / "prebuilds").is_dir():
            detail = f"{npm.name_of(path)} is compiled when it is installed, and nothing is built from source here."
            raise LibraryError(detail)


def _files(work: Path, added: Lock) -> Iterator[str]:
    """Yield the files of the packages that are added, relative to node_modules; no links, and nothing outside."""
    root = work / "node_modules"
    for package in sorted(added):
        # What is for another platform was not unpacked; what lies deeper is a package of its own.
        for directory, names, files in os.walk(work / package):
            names[:] = sorted(name for name in names if name != "node_modules")
            for path in (Path(directory, name) for name in sorted(files)):
                if path.is_file() and not path.is_symlink():
                    yield str(path.relative_to(root))
