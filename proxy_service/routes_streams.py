"""Streams into and out of a session: all that happens in it, and standard input for code that runs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy_service.bounded_stream import BoundedStream
from proxy_service.errors import InvalidRequest
from proxy_service.executions import Executions
from proxy_service.routes import KEEP_ALIVE_S, NDJSON, answer, read_body, service, session_of
from proxy_service.schemas import EXECUTION_ID, parse_execution_id

SINCE = re.compile(rf"({EXECUTION_ID.pattern}):([0-9]{{1,15}})")


async def session_events(request: Request) -> Response:
    """GET /sessions/{id}/events?since=EXECUTION:SEQ: every event of the session's executions, in order, for ever.

    Begins with what runs now, and says `place` with the execution before it; or after the event that `since` names,
    and says `gap` when that execution is not known any more. Ends with the session, or when the proxy stops.
    """
    executions = session_of(request).executions
    text, since = request.query_params.get("since"), None
    if text is not None:
        found = SINCE.fullmatch(text)
        if found is None:
            raise InvalidRequest("`since` must be the id of an execution, a colon and a number.", field="since")
        since = found[1], int(found[2])
    patience_s = service(request).settings.reader_silence_s
    return BoundedStream(_lines(executions, since), media_type=NDJSON, patience_s=patience_s)


async def _lines(executions: Executions, since: tuple[str, int] | None) -> AsyncIterator[bytes]:
    with executions.watched(since) as watcher:
        async for piece in watcher.lines(keep_alive_s=KEEP_ALIVE_S):
            yield piece


async def send_stdin(request: Request) -> Response:
    """POST /sessions/{id}/executions/{eid}/stdin?eof=true: the body's bytes for code that runs, and perhaps the end."""
    execution_id = parse_execution_id(request.path_params["execution_id"])
    eof = request.query_params.get("eof", "false").lower() in ("true", "1", "yes")
    executions = session_of(request).executions
    waiting = await executions.send_stdin(execution_id, await read_body(request), eof=eof)
    return answer({"execution_id": execution_id, "unread_bytes": waiting, "eof": eof})


STREAM_ROUTES = [
    Route("/sessions/{session_id}/events", session_events, methods=["GET"]),
    Route("/sessions/{session_id}/executions/{execution_id}/stdin", send_stdin, methods=["POST"]),
]
