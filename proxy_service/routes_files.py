"""The workspace's files over HTTP: raw bytes, streamed both ways.

The path in an address is percent-encoded bytes, as file names are bytes: the server's own decoding would lose some.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from email.utils import format_datetime
from typing import Annotated, Literal, cast
from urllib.parse import parse_qs, unquote_to_bytes

from pydantic import Field
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from proxy_service.byte_ranges import Unsatisfiable, wanted_part
from proxy_service.errors import FileConflict, InvalidRequest, UnsupportedSpec
from proxy_service.events import dump
from proxy_service.file_entries import Entry, shown, workspace_path
from proxy_service.files import ArchiveKind, Files
from proxy_service.schemas import Body, Text, parse, parse_session_id
from proxy_service.service import Service

BINARY = "application/octet-stream"
ARCHIVE_TYPES = {"tar": "application/x-tar", "zip": "application/zip"}
DEFAULT_LISTED = 1000
MAX_BODY_BYTES = 64 * 1024


class AnyPath(Convertor[str]):
    """The rest of an address, whatever characters it has."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        """Return it as it is; it is read anew from the raw address."""
        return value

    def to_string(self, value: str) -> str:
        """Return it as it is."""
        return value


register_url_convertor("any", AnyPath())


class PostBody(Body):
    type: Literal["directory"]


class PatchBody(Body):
    path: Annotated[Text, Field(min_length=1)]
    overwrite: bool = False


# --- Reading the request --------------------------------------------------------------------------------------------


def _files(request: Request) -> Files:
    session = cast(Service, request.app.state.service).sessions.get(parse_session_id(request.path_params["session_id"]))
    if not session.sandbox.capabilities.get("files"):
        detail = "The sandbox of this session cannot handle files: its image has no Python, which the agent needs."
        raise UnsupportedSpec(detail, field="path")
    session.executions.last_activity_at = time.time()
    return session.files


def _given(request: Request) -> bytes:
    """Return the path in the address, else that of the query; without both that of the workspace itself."""
    raw: bytes = request.scope["raw_path"]
    parts = raw.split(b"?", 1)[0].split(b"/", 4)
    return (unquote_to_bytes(parts[4]) if len(parts) > 4 else b"") or _query(request, "path") or b""


def _query(request: Request, name: str) -> bytes | None:
    query = request.scope["query_string"].decode("latin-1")
    found = parse_qs(query, keep_blank_values=True, encoding="latin-1", max_num_fields=100).get(name)
    return None if found is None else found[-1].encode("latin-1")


def _path(request: Request) -> str:
    return workspace_path(_given(request))


def _flag(request: Request, name: str) -> bool:
    value = (_query(request, name) or b"").decode("latin-1").lower()
    if value not in ("", "0", "1", "false", "true", "no", "yes"):
        raise InvalidRequest(f"`{name}` must be true or false.", field=name)
    return value in ("1", "true", "yes")


def _number(request: Request, name: str, default: int, most: int) -> int:
    value = _query(request, name)
    if value is None:
        return min(default, most)
    if not value.isdigit() or len(value) > 12:
        raise InvalidRequest(f"`{name}` must be a whole number from 0.", field=name)
    if int(value) > most:
        raise InvalidRequest(f"`{name}` may be at most {most}.", field=name)
    return int(value)


def _archive(request: Request, kinds: tuple[str, ...]) -> ArchiveKind | None:
    value = _query(request, "archive")
    if value is None:
        return None
    kind = value.decode("latin-1")
    if kind not in kinds:
        raise InvalidRequest(f"`archive` must be {' or '.join(kinds)}.", field="archive")
    return cast(ArchiveKind, kind)


def _mode(request: Request) -> int:
    value = _query(request, "mode")
    if value is None:
        return 0o644
    try:
        mode = int(value, 8) if value.isdigit() else -1
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise InvalidRequest("`mode` must be an octal number up to 777, such as 755.", field="mode")
    return mode


def _declared(request: Request) -> int | None:
    value = request.headers.get("content-length", "")
    return int(value) if value.isdigit() and len(value) < 19 else None


async def _small_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise InvalidRequest(f"The body may have at most {MAX_BODY_BYTES} bytes.", field="body")
    return bytes(body)


async def _body(request: Request) -> AsyncIterator[bytes]:
    """Yield the body as it comes; a sender that falls silent is given up."""
    patience_s = cast(Service, request.app.state.service).settings.upload_silence_s
    async with aclosing(request.stream()) as stream:
        while True:
            try:
                async with asyncio.timeout(patience_s):
                    chunk = await anext(stream, None)
            except TimeoutError:
                detail = f"The body stopped coming for {patience_s:g} s."
                raise InvalidRequest(detail, field="body") from None
            if chunk is None:
                return
            if chunk:
                yield chunk


# --- Answering ------------------------------------------------------------------------------------------------------


def _json(value: object, status_code: int = 200) -> Response:
    return Response(dump(value), status_code=status_code, media_type="application/json")


def _headers(entry: Entry, version: str) -> dict[str, str]:
    tag = hashlib.sha256(version.encode("utf-8", "replace")).hexdigest()[:32]
    changed = datetime.fromisoformat(str(entry.describe()["mtime"]))
    return {
        "ETag": f'"{tag}"',
        "Last-Modified": format_datetime(changed, usegmt=True),
        "Accept-Ranges": "bytes",
        "X-File-Type": entry.type,
        "X-File-Mode": f"{entry.mode:04o}",
    }


async def list_files(request: Request) -> Response:
    """GET /sessions/{id}/files?path=&limit=&offset=: the entries of a directory; or with `archive` all of it."""
    files, path = _files(request), _path(request)
    kind = _archive(request, ("tar", "zip"))
    if kind is not None:
        return await _packed(files, path, kind)
    most = cast(Service, request.app.state.service).settings.max_listed_files
    limit = _number(request, "limit", DEFAULT_LISTED, most)
    offset = _number(request, "offset", 0, 10**9)
    return _json(await files.list(path, offset=offset, limit=max(1, limit)))


async def get_file(request: Request) -> Response:
    """GET /sessions/{id}/files/{path}: the bytes, whole or a range.

    `stat=true` describes it instead; a directory is listed by `list=true` and packed by `archive`.
    """
    if _flag(request, "list"):
        return await list_files(request)
    files, path = _files(request), _path(request)
    kind = _archive(request, ("tar", "zip"))
    if kind is not None:
        return await _packed(files, path, kind)
    entry, version = await files.stat(path)
    headers = _headers(entry, version)
    if _flag(request, "stat"):
        return Response(dump(entry.describe()), headers=headers, media_type="application/json")
    if request.method == "HEAD":
        if entry.type == "file":
            headers["Content-Length"] = str(entry.size)
        return Response(headers=headers, media_type=BINARY)
    if entry.type == "directory":
        detail = "This is a directory: list it with ?path=, or load it with ?archive=tar or ?archive=zip."
        raise FileConflict("is_a_directory", detail)
    if entry.type != "file":
        raise FileConflict("not_a_file", "This is no regular file: it cannot be read.")
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return await _content(request, files, path, entry.size, headers)


async def _content(request: Request, files: Files, path: str, size: int, headers: dict[str, str]) -> Response:
    asked = request.headers.get("range")
    if request.headers.get("if-range", headers["ETag"]) not in (headers["ETag"], headers["Last-Modified"]):
        asked = None
    try:
        part = wanted_part(asked, size)
    except Unsatisfiable:
        return Response(
            dump({"error": "range_not_satisfiable", "detail": f"The file has {size} bytes.", "field": "Range"}),
            status_code=416,
            headers={"Content-Range": f"bytes */{size}"},
            media_type="application/json",
        )
    start, length = (part.start, part.length) if part else (0, size)
    headers["Content-Length"] = str(length)
    if part is not None:
        headers["Content-Range"] = part.content_range
    content = files.read(path, start, length)
    first = await anext(content, b"")  # so that what goes wrong at once is said with a status
    return StreamingResponse(
        _from(first, content), status_code=206 if part else 200, headers=headers, media_type=BINARY
    )


async def _packed(files: Files, path: str, kind: ArchiveKind) -> Response:
    content = files.pack(path, kind)
    first = await anext(content, b"")
    return StreamingResponse(_from(first, content), media_type=ARCHIVE_TYPES[kind])


async def _from(first: bytes, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(content):  # type: ignore[type-var]
        yield first
        async for data in content:
            yield data


async def put_file(request: Request) -> Response:
    """PUT /sessions/{id}/files/{path}?mode=: the body becomes the file; with `archive=tar` it is unpacked there."""
    files, path = _files(request), _path(request)
    kind = _archive(request, ("tar",))
    size = _declared(request)
    try:
        if kind is not None:
            return _json({"path": shown(path), "members": await files.unpack(path, _body(request), size=size)})
        if not path or _given(request).endswith(b"/"):
            raise InvalidRequest("`path` must be that of a file.", field="path")
        entry, created = await files.write(path, _body(request), mode=_mode(request), size=size)
    except ClientDisconnect:
        # Nobody is there to read this.
        return Response(status_code=400)
    return _json(entry.describe(), 201 if created else 200)


async def post_file(request: Request) -> Response:
    """POST /sessions/{id}/files/{path} {"type": "directory"}: 201, or 200 when it is there."""
    files, path = _files(request), _path(request)
    parse(PostBody, await _small_body(request))
    entry, created = await files.make_directory(path)
    return _json(entry.describe(), 201 if created else 200)


async def move_file(request: Request) -> Response:
    """PATCH /sessions/{id}/files/{path} {"path", "overwrite"?}: rename it."""
    files, path = _files(request), _path(request)
    body = parse(PatchBody, await _small_body(request))
    entry = await files.move(path, workspace_path(body.path.encode()), overwrite=body.overwrite)
    return _json(entry.describe())


async def delete_file(request: Request) -> Response:
    """DELETE /sessions/{id}/files/{path}?recursive=."""
    files, path = _files(request), _path(request)
    await files.remove(path, recursive=_flag(request, "recursive"))
    return Response(status_code=204)


FILE_ROUTES = [
    Route("/sessions/{session_id}/files", list_files, methods=["GET"]),
    Route("/sessions/{session_id}/files", put_file, methods=["PUT"]),
    Route("/sessions/{session_id}/files/{path:any}", get_file, methods=["GET"]),
    Route("/sessions/{session_id}/files/{path:any}", put_file, methods=["PUT"]),
    Route("/sessions/{session_id}/files/{path:any}", post_file, methods=["POST"]),
    Route("/sessions/{session_id}/files/{path:any}", move_file, methods=["PATCH"]),
    Route("/sessions/{session_id}/files/{path:any}", delete_file, methods=["DELETE"]),
]
