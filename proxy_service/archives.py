"""Tar files of libraries, and what else the cache of libraries writes: beside its place, then renamed into it."""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from proxy_service.errors import LibraryError, RegistryAway

FRESH_S = 24 * 3600.0
CHUNK_BYTES = 1024 * 1024
END_OF_TAR = bytes(1024)


async def stream(archives: Iterable[Path]) -> AsyncIterator[bytes]:
    """Yield one tar stream of several archives. Raises LibraryError when one was evicted meanwhile."""
    for path in archives:
        try:
            with path.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError:
            raise LibraryError("The libraries went out of the cache meanwhile. Try again.") from None
    yield END_OF_TAR


async def once(archive: bytes) -> AsyncIterator[bytes]:
    """Yield an archive that is whole already."""
    yield archive


def pack(root: Path, names: Iterable[str], archive: Path) -> None:
    """Write files beneath `root` into an archive without its end, as nobody's in particular."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(f"{archive.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        tar = tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
        for name in names:
            tar.add(root / name, arcname=name, recursive=False, filter=_anonymous)
        # Without its end, so that archives can follow one another in one stream.
        file.truncate(tar.offset)
    os.replace(partial, archive)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    return member


async def answered(path: Path, ask: Callable[[], Awaitable[Any]]) -> Any:
    """Return what a registry answered not longer ago than a day, else ask it; while it is away, what it said last.

    Raises LibraryError.
    """
    known = await asyncio.to_thread(_read, path)
    if known is not None and await asyncio.to_thread(_is_fresh, path):
        return known
    try:
        told = await ask()
    except RegistryAway:
        if known is None:
            raise
        return known
    await asyncio.to_thread(_write, path, json.dumps(told).encode())
    return told


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _is_fresh(path: Path) -> bool:
    return time.time() - path.stat().st_mtime < FRESH_S


def _write(path: Path, content: bytes) -> None:
    """Put a file in its place at once, so that nobody ever sees half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)


def touch(paths: Iterable[Path]) -> None:
    """Note that archives were used."""
    for path in paths:
        if path.exists():
            os.utime(path)
