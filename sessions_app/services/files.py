"""The files of a session's workspace: bytes on their way between a caller and the sandbox, never all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import monotonic
from typing import IO

import httpx

from sessions_app import clock
from sessions_app.exceptions import ProxyUnavailable, SandboxMissing, Unsupported
from sessions_app.models import Session
from sessions_app.proxy_client import AWAY, proxy
from sessions_app.services.connections import release_connection
from sessions_app.services.sessions import gone, require_active
from sessions_app.services.settlement import lose_session

CHUNK_BYTES = 256 * 1024
# How long the proxy may be silent: it may be removing a large directory, or waiting for a sandbox that is busy.
SILENCE_S = 120.0
# How often a transfer tells that its session is not idle; at least three times within the idle time-out.
SIGN_OF_LIFE_S = 20.0


class SignsOfLife:
    """Keep a session from being idle for as long as bytes move."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pause_s = min(SIGN_OF_LIFE_S, session.idle_timeout_s / 3)
        self._next = monotonic() + self._pause_s

    def give(self) -> None:
        """Start the idle clock again, if it is time to; the session's end is not this transfer's business."""
        if monotonic() >= self._next:
            self._next = monotonic() + self._pause_s
            self.give_now()

    def give_now(self) -> None:
        """Start the idle clock again, and keep no connection to the database."""
        self._session.touch(clock.now())
        release_connection()


class Transfer:
    """An answer of the proxy about files: status and headers at once, the body as it is read."""

    def __init__(self, response: httpx.Response, signs: SignsOfLife) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self._response = response
        self._signs = signs
        self._chunks = response.iter_bytes(CHUNK_BYTES)

    def read(self) -> bytes:
        """Return the next piece, b"" at the end. Raises ProxyUnavailable when the rest will not come."""
        try:
            data = next(self._chunks, b"")
        except httpx.HTTPError as error:
            raise ProxyUnavailable(AWAY) from error
        self._signs.give()
        return data

    def whole(self) -> bytes:
        """Read and return a body that is known to be short."""
        try:
            return b"".join(iter(self.read, b""))
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the answer; what was not read of it will not come."""
        self._response.close()
        self._signs.give_now()


def transfer(
    *,
    session: Session,
    method: str,
    path: bytes,
    actor: str,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: IO[bytes] | bytes | None = None,
    size: int | None = None,
) -> Transfer:
    """Do something with the files of a session; `path` is relative to the workspace, as bytes.

    `size` is the length of a `body` that is a file. Close what is returned. Raises InvalidInput, TooLarge,
    FileMissing, FileConflict, Unsupported, SessionNotActive, SessionGone, SandboxFailed or ProxyUnavailable.
    """
    require_active(session, actor=actor)
    if not session.capabilities.get("files"):
        raise Unsupported("path", "The sandbox of this session cannot handle files.")
    signs = SignsOfLife(session)
    signs.give_now()
    length = {} if size is None else {"Content-Length": str(size)}
    content = body if body is None or isinstance(body, bytes) else _pieces(body, signs)
    try:
        response = proxy().transfer(
            method,
            session.pk,
            path,
            params=params or {},
            headers={**(headers or {}), **length},
            content=content,
            timeout_s=SILENCE_S,
        )
    except SandboxMissing as error:
        lose_session(session, error=error.message, actor=actor)
        raise gone(session) from error
    return Transfer(response, signs)


def _pieces(body: IO[bytes], signs: SignsOfLife) -> Iterator[bytes]:
    while data := body.read(CHUNK_BYTES):
        signs.give()
        yield data
