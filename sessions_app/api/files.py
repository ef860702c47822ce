"""The files of a session over HTTP: raw bytes, streamed both ways through this server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import IO, Any, cast
from urllib.parse import parse_qs, quote, unquote_to_bytes

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls.converters import StringConverter
from rest_framework import status
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from sessions_app.api import docs_files as docs
from sessions_app.api.errors import BodyTooLargeError
from sessions_app.api.sessions import Links, session_links
from sessions_app.api.views import ApiView, own_session
from sessions_app.exceptions import ProxyUnavailable
from sessions_app.limits import MAX_BODY_BYTES
from sessions_app.models import Actor
from sessions_app.services.files import Transfer, transfer
from sessions_app.threads import in_thread

RELAYED = ("Content-Length", "Content-Range", "ETag", "Last-Modified", "Accept-Ranges", "X-File-Type", "X-File-Mode")
ASKED = ("Range", "If-Range", "If-None-Match")
PARAMETERS = ("limit", "offset", "archive", "list", "stat", "recursive", "mode")
# Whatever a file holds, a browser shows nothing of it as a page of this server.
SAFETY = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}


class AnyPath(StringConverter):
    """The rest of an address, whatever characters it has; what it means is read from the raw address."""

    regex = "(?s:.*)"


class Unnegotiated(BaseContentNegotiation):
    """Answer bytes, and errors in JSON, whatever a client says that it accepts."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """Take the first one."""
        return parsers[0]

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Take JSON."""
        return JSONRenderer(), "application/json"


# --- Reading the request --------------------------------------------------------------------------------------------


def address_path(request: HttpRequest, decoded: str) -> bytes:
    """Return the path of a file as the bytes that its address has.

    File names are bytes; what the server decoded for us has lost those that are no text.
    """
    raw: bytes | None = getattr(request, "scope", {}).get("raw_path")
    if raw is None:
        return decoded.encode("utf-8", "surrogateescape")
    # Leave out the prefix that this application may be mounted at.
    start = raw.find(b"/sessions/")
    parts = raw[start:].split(b"?", 1)[0].split(b"/", 4)
    return unquote_to_bytes(parts[4]) if len(parts) > 4 else b""


def parameters(request: HttpRequest) -> dict[str, str]:
    """Return those of the query that the proxy knows; the path goes another way."""
    return {name: value for name in PARAMETERS if (value := request.GET.get(name)) is not None}


def query_path(request: HttpRequest) -> bytes:
    """Return the query's `path`, as bytes."""
    query = request.META.get("QUERY_STRING", "")
    found = parse_qs(query, keep_blank_values=True, encoding="latin-1", max_num_fields=1000).get("path")
    return found[-1].encode("latin-1") if found else b""


# --- The views ------------------------------------------------------------------------------------------------------


class FilesView(ApiView):
    """What listing and single files have in common."""

    def ask(
        self, request: Request, method: str, path: bytes, *, more: Mapping[str, str] | None = None, **options: Any
    ) -> Transfer:
        """Ask the proxy about the caller's session."""
        asked = {name: value for name in ASKED if (value := request.headers.get(name)) is not None}
        return transfer(
            session=own_session(request, self.kwargs["session_id"]),
            method=method,
            path=path,
            actor=Actor.API,
            params={**parameters(request._request), **(more or {})},
            headers=asked,
            **options,
        )

    def upload(self, request: Request, path: bytes) -> Response:
        """Give the body to the proxy as it is read."""
        http = request._request
        declared = http.META.get("CONTENT_LENGTH") or ""
        size = int(declared) if declared.isdigit() else None
        return _json(self.ask(request, "PUT", path, body=cast(IO[bytes], http), size=size))

    def download(self, found: Transfer, name: str) -> HttpResponseBase:
        """Give the answer's bytes on as they come."""
        headers = {key: value for key in RELAYED if (value := found.headers.get(key)) is not None}
        headers |= SAFETY | {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
        kind = found.headers.get("Content-Type", "application/octet-stream")
        if found.status == status.HTTP_416_REQUESTED_RANGE_NOT_SATISFIABLE:
            return _unsatisfiable(found)
        if found.status == status.HTTP_304_NOT_MODIFIED:
            found.close()
            return HttpResponse(status=304, headers=headers)
        answer = StreamingHttpResponse(_relayed(found), status=found.status, content_type=kind, headers=headers)
        # Also when nobody reads it: whoever asked may be gone.
        answer._resource_closers.append(found.close)  # type: ignore[attr-defined]
        return answer

    def links(self, data: Any) -> Links:
        """Lead back to the session."""
        return session_links(self.kwargs["session_id"])


class SessionFiles(FilesView):
    """The workspace of a session."""

    name = "Files"

    @docs.list_files
    def get(self, request: Request, session_id: str) -> HttpResponseBase:
        """List a directory, or pack it."""
        path = query_path(request._request)
        if "archive" in request.query_params:
            found = self.ask(request, "GET", path)
            return self.download(found, f"{_last(path) or 'sandbox'}.{request.query_params['archive']}")
        return _json(self.ask(request, "GET", path, more={"list": "true"}))

    @docs.unpack_files
    def put(self, request: Request, session_id: str) -> Response:
        """Unpack an archive."""
        return self.upload(request, query_path(request._request))


class SessionFile(FilesView):
    """One file or directory of a session's workspace."""

    name = "File"
    content_negotiation_class = Unnegotiated

    @property
    def path(self) -> bytes:
        """Return the path in the address."""
        return address_path(self.request._request, self.kwargs["path"])

    @docs.get_file
    def get(self, request: Request, session_id: str, path: str) -> HttpResponseBase:
        """Download."""
        found = self.ask(request, "GET", self.path)
        if found.headers.get("Content-Type") == "application/json" and found.status == status.HTTP_200_OK:
            return _json(found)
        kind = request.query_params.get("archive")
        return self.download(found, f"{_last(self.path)}.{kind}" if kind else _last(self.path))

    @docs.head_file
    def head(self, request: Request, session_id: str, path: str) -> HttpResponseBase:
        """Describe in headers."""
        # Not a HEAD to the proxy: an error without its body would not say what is missing, the file or the sandbox.
        found = self.ask(request, "GET", self.path, more={"stat": "true"})
        headers = {key: value for key in RELAYED[1:] if (value := found.headers.get(key)) is not None}
        entry = json.loads(found.whole())
        if entry["type"] == "file":
            headers["Content-Length"] = str(entry["size"])
        return HttpResponse(headers=headers | SAFETY, content_type="application/octet-stream")

    @docs.put_file
    def put(self, request: Request, session_id: str, path: str) -> Response:
        """Upload."""
        return self.upload(request, self.path)

    @docs.make_directory
    def post(self, request: Request, session_id: str, path: str) -> Response:
        """Make a directory."""
        return _json(self.ask(request, "POST", self.path, body=_small(request)))

    @docs.move_file
    def patch(self, request: Request, session_id: str, path: str) -> Response:
        """Move."""
        return _json(self.ask(request, "PATCH", self.path, body=_small(request)))

    @docs.delete_file
    def delete(self, request: Request, session_id: str, path: str) -> HttpResponseBase:
        """Remove."""
        self.ask(request, "DELETE", self.path).close()
        return HttpResponse(status=204)


def _small(request: Request) -> bytes:
    http = request._request
    body = http.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLargeError
    return body


def _last(path: bytes) -> str:
    return path.rstrip(b"/").rpartition(b"/")[2].decode("utf-8", "replace")


def _json(found: Transfer) -> Response:
    try:
        return Response(json.loads(found.whole()), status=found.status)
    except ValueError as error:
        raise ProxyUnavailable("The sandbox service gave an answer that is not JSON.") from error


def _unsatisfiable(found: Transfer) -> HttpResponse:
    said = json.loads(found.whole())
    error = {"code": said["error"], "detail": said["detail"], "attr": "Range"}
    body = {"type": "client_error", "errors": [error]}
    headers = {"Content-Range": found.headers.get("Content-Range", "")}
    return HttpResponse(json.dumps(body), status=416, headers=headers, content_type="application/json")


async def _relayed(found: Transfer) -> AsyncIterator[bytes]:
    while data := await in_thread(found.read):
        yield data
