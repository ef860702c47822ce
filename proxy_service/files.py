"""The files of a workspace: every operation bounded, streamed, and confined by the agent to what the code may touch."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, Literal

from proxy_service.backends.base import FileRefused, Sandbox
from proxy_service.errors import (
    BodyTooLarge,
    FileConflict,
    FileMissing,
    InvalidRequest,
    NoSpace,
    ProxyError,
    SandboxBroken,
)
from proxy_service.file_entries import OWN_DIRECTORY, Entry, entry_of, explained, field, lied, shown, text

log = logging.getLogger(__name__)

CHUNK_BYTES = 1024 * 1024
LOOK_AGAIN_BYTES = 64 * 1024 * 1024
"""After how much of an upload the room that is left is asked for anew: code may fill the disk at the same time."""
UPLOADS = f"{OWN_DIRECTORY}/uploads"

ArchiveKind = Literal["tar", "zip"]

_cleanups: set[asyncio.Task[None]] = set()


class Files:
    """Read and write the workspace of one session."""

    def __init__(self, sandbox: Sandbox, *, max_upload_bytes: int, max_members: int) -> None:
        self._sandbox = sandbox
        self._max_upload_bytes = max_upload_bytes
        self._max_members = max_members
        self._uploads = 0
        self._announced: dict[object, int] = {}
        """What each upload may still bring, so that two at once do not count on the same room."""
        self._tidying = asyncio.Lock()

    # --- looking

    async def stat(self, path: str) -> tuple[Entry, str]:
        """Describe what a path leads to, links followed, and name its present version.

        Raises FileMissing, FileConflict, InvalidRequest.
        """
        header, _ = await self._do("file_stat", path, follow=True)
        return entry_of(path, header.get("entry")), text(header.get("version"))[:64]

    async def list(self, path: str, *, offset: int, limit: int) -> dict[str, Any]:
        """Return the entries of a directory by name, `limit` at most from number `offset` on."""
        header, body = await self._do("file_list", path, offset=offset, limit=limit)
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        count, following = header.get("count"), header.get("next")
        if not isinstance(found, list) or type(count) is not int or type(following) not in (int, type(None)):
            raise lied()
        above = f"{path}/" if path else ""
        entries = [entry_of(above + text(field(item, "name")), item) for item in found[:limit]]
        hidden = [entry for entry in entries if entry.path != OWN_DIRECTORY]
        return {
            "path": shown(path),
            "entries": [entry.describe() for entry in hidden],
            "count": count - len(entries) + len(hidden),
            "truncated": following is not None,
            "next_offset": following,
        }

    # --- reading

    async def read(self, path: str, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """Yield `length` bytes of a file; the next piece is fetched while one is being sent.

        Raises SandboxBroken when the file has become shorter meanwhile.
        """
        end = start + length
        following: asyncio.Task[bytes] | None = None
        try:
            while start < end:
                data = await following if following is not None else await self._read(path, start, end)
                if not data:
                    raise SandboxBroken("The file became shorter while it was read.")
                start += len(data)
                following = asyncio.create_task(self._read(path, start, end)) if start < end else None
                yield data
        finally:
            if following is not None:
                following.cancel()

    async def _read(self, path: str, start: int, end: int) -> bytes:
        _, data = await self._do("file_read", path, offset=start, length=min(CHUNK_BYTES, end - start))
        if len(data) > end - start:
            raise lied()
        return data

    async def pack(self, path: str, kind: ArchiveKind) -> AsyncGenerator[bytes, None]:
        """Yield a directory as an archive."""
        header, _ = await self._do("pack", path, kind=kind)
        handle = header.get("handle")
        try:
            while True:
                header, data = await self._do("pack_read", path, handle=handle)
                if header.get("eof"):
                    handle = None
                    return
                if not data:
                    raise lied()
                yield data
        finally:
            if handle is not None:
                _clean_up(self._sandbox.file_operation("pack_close", handle=handle))

    # --- writing

    async def write(
        self, path: str, chunks: AsyncIterator[bytes], *, mode: int, size: int | None
    ) -> tuple[Entry, bool]:
        """Write a file, whole or not at all; return its entry and whether it is new.

        `size` is how many bytes will come, where that is known. Raises BodyTooLarge, NoSpace, FileConflict,
        InvalidRequest.
        """
        with suppress(FileMissing):
            found, _ = await self.stat(path)
            if found.type == "directory":
                raise FileConflict("is_a_directory", f"{found.describe()['path']!r} is a directory.")
        aside = f"{UPLOADS}/{secrets.token_hex(8)}"
        await self._begin_upload()
        written = 0
        try:
            async with aclosing(self._bounded(chunks, size)) as pieces:
                async for piece in pieces:
                    await self._do("file_write", aside, piece, offset=written, more=True, mode=None)
                    written += len(piece)
            header, _ = await self._do("file_commit", path, src=aside, dst=path, mode=mode)
        finally:
            _clean_up(self._end_upload(aside))
        return entry_of(path, header.get("entry")), header.get("created") is True

    async def unpack(self, path: str, chunks: AsyncIterator[bytes], *, size: int | None) -> int:
        """Unpack a tar stream beneath a directory; return how many members it had.

        What came before a member that is refused stays. Raises InvalidRequest, BodyTooLarge, NoSpace, FileConflict.
        """
        async with self._sandbox.unpacking:
            sent, done = 0, False
            try:
                async with aclosing(self._bounded(chunks, size)) as pieces:
                    async for piece in pieces:
                        header = await self._untar(path, piece, sent, more=True)
                        sent += len(piece)
                        if "members" in header:
                            raise lied()
                header = await self._untar(path, b"", sent, more=False)
                done = True
            finally:
                if not done and sent:
                    # The worker that unpacks learns in this way that nothing more will come.
                    with suppress(ProxyError):
                        await asyncio.shield(self._untar(path, b"", sent, more=False))
        members = header.get("members")
        return members if type(members) is int else 0

    async def _untar(self, path: str, piece: bytes, offset: int, *, more: bool) -> dict[str, Any]:
        fields: dict[str, Any] = {"more": more, "max_members": self._max_members}
        if offset:
            fields["offset"] = offset
        header, _ = await self._do("untar", path, piece, **fields)
        return header

    async def _bounded(self, chunks: AsyncIterator[bytes], size: int | None) -> AsyncGenerator[bytes, None]:
        """Yield pieces of a convenient size, at least one, for as long as there is room for them."""
        if size is not None and size > self._max_upload_bytes:
            raise BodyTooLarge(f"The body has {size} bytes; at most {self._max_upload_bytes} are taken.", field="body")
        upload = object()
        room = await self._room(upload)
        if size is not None and room is not None and size > room:
            raise NoSpace(f"The body has {size} bytes; the sandbox's disk has room for {room}.", field="body")
        self._announced[upload] = LOOK_AGAIN_BYTES if size is None else size
        buffer, taken, looked_at, given = bytearray(), 0, 0, False
        try:
            async for chunk in chunks:
                taken += len(chunk)
                if taken > self._max_upload_bytes:
                    raise BodyTooLarge(f"The body is longer than {self._max_upload_bytes} bytes.", field="body")
                if room is not None and taken - looked_at > room:
                    raise NoSpace("The sandbox's disk has no room for the whole body.", field="body")
                buffer += chunk
                while len(buffer) >= CHUNK_BYTES:
                    yield bytes(buffer[:CHUNK_BYTES])
                    del buffer[:CHUNK_BYTES]
                    given = True
                if size is not None:
                    self._announced[upload] = max(0, size - taken)
                if room is not None and taken - looked_at > LOOK_AGAIN_BYTES:
                    room, looked_at = await self._room(upload), taken
        finally:
            del self._announced[upload]
        if size is not None and taken != size:
            raise InvalidRequest(f"The body has {taken} bytes instead of {size}.", field="body")
        if buffer or not given:
            yield bytes(buffer)

    async def _room(self, upload: object) -> int | None:
        """Return how many bytes the sandbox's disk has room for beside other uploads, as far as that can be known."""
        stats = await self._sandbox.stats()
        used, limit = stats.get("disk_bytes"), stats.get("disk_limit_bytes")
        if type(used) is not int or type(limit) is not int or limit <= 0:
            return None
        return max(0, limit - used - sum(size for other, size in self._announced.items() if other is not upload))

    async def _begin_upload(self) -> None:
        async with self._tidying:
            self._uploads += 1

    async def _end_upload(self, aside: str) -> None:
        """Leave nothing of an upload beside its file; also nothing of those that an earlier proxy left half done."""
        async with self._tidying:
            self._uploads -= 1
            path, recursive = (aside, False) if self._uploads else (UPLOADS, True)
            with suppress(FileRefused, ProxyError):
                await self._sandbox.file_operation("file_remove", path=path, recursive=recursive)
            if not self._uploads:
                with suppress(FileRefused, ProxyError):
                    await self._sandbox.file_operation("file_remove", path=OWN_DIRECTORY, recursive=False)

    # --- changing

    async def make_directory(self, path: str) -> tuple[Entry, bool]:
        """Make a directory and those above it; return its entry and whether it is new."""
        created = False
        try:
            found, _ = await self.stat(path)
            if found.type != "directory":
                raise FileConflict("exists", f"{found.describe()['path']!r} is there already, and no directory.")
        except FileMissing:
            created = True
            await self._do("file_mkdir", path, parents=True)
            found, _ = await self.stat(path)
        return found, created

    async def move(self, path: str, target: str, *, overwrite: bool) -> Entry:
        """Rename a file, directory or link; not over something else, unless `overwrite` says so."""
        if not path or not target:
            raise FileConflict("forbidden", "The workspace itself stays where it is.")
        header, _ = await self._do("file_move", path, src=path, dst=target, keep=not overwrite, parents=True)
        return entry_of(target, header.get("entry"))

    async def remove(self, path: str, *, recursive: bool) -> None:
        """Remove a file, link or directory; one that is not empty only if it is `recursive`."""
        if not path:
            raise FileConflict("forbidden", "The workspace itself stays.")
        await self._do("file_remove", path, recursive=recursive)

    # --- the agent

    async def _do(self, op: str, path: str, body: bytes = b"", **fields: Any) -> tuple[dict[str, Any], bytes]:
        try:
            return await self._sandbox.file_operation(op, body, path=path, **fields)
        except FileRefused as error:
            raise explained(error, path) from error


def _clean_up(work: Coroutine[Any, Any, object]) -> None:
    """Do what must be done also when the request that it belongs to was given up."""

    async def run() -> None:
        try:
            await work
        except (FileRefused, ProxyError) as error:
            log.info("could not clean up after a transfer: %s", error)

    task = asyncio.create_task(run())
    _cleanups.add(task)
    task.add_done_callback(_cleanups.discard)
