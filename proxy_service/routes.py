"""The proxy's HTTP contract. What is on an execution's path is written without a framework's help."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy_service import __version__, metrics
from proxy_service.bounded_stream import BoundedStream
from proxy_service.errors import (
    BodyTooLarge,
    InvalidRequest,
    ProxyError,
    RequestTimeout,
    Unreachable,
    http_body,
    http_headers,
    http_status,
)
from proxy_service.events import Follower, dump, queued_line
from proxy_service.execution import Execution
from proxy_service.executions import RELINK_WAIT_S
from proxy_service.libraries import check as check_libraries
from proxy_service.schemas import (
    ExecuteBody,
    PoolBody,
    SessionBody,
    parse,
    parse_execution_id,
    parse_session_id,
)
from proxy_service.service import Service
from proxy_service.sessions import ProxySession

KEEP_ALIVE_S = 5.0
CANCEL_PATIENCE_S = 5.0
REVIVE_PATIENCE_S = 5.0
NDJSON = "application/x-ndjson"


def any_service(request: Request) -> Service:
    """Return what the server runs, whether or not it can serve."""
    return cast(Service, request.app.state.service)


def service(request: Request) -> Service:
    """Return what the server runs. Raises Unavailable, with the reason, while its backend is not there."""
    running = any_service(request)
    if running.startup.error is not None:
        raise running.startup.error
    return running


def answer(value: object, status_code: int = 200) -> Response:
    """Return a value as JSON."""
    return Response(dump(value), status_code=status_code, media_type="application/json")


async def health(request: Request) -> Response:
    """GET /: needs no token. 503 with the reason, and what mends it, while no sandbox can be made."""
    running = any_service(request)
    if (error := running.startup.error) is not None:
        about = {"status": "unavailable", "version": __version__, "backend": running.backend.name}
        body = {**about, **http_body(error), "mend": getattr(error, "mend", "")}
        return Response(dump(body), http_status(error), http_headers(error), media_type="application/json")
    return answer(
        {
            "status": "stopping" if running.sessions.stopping else "ok",
            "version": __version__,
            "backend": running.backend.name,
            "capabilities": running.backend.capabilities(),
            "sessions": len(running.sessions),
            "pool": running.pool(),
        }
    )


async def languages(request: Request) -> Response:
    """GET /languages."""
    return answer({"languages": service(request).backend.languages(), "default": "python"})


async def show_metrics(request: Request) -> Response:
    """GET /metrics: Prometheus text."""
    return Response(metrics.render(any_service(request)), media_type="text/plain; version=0.0.4")


async def put_pool(request: Request) -> Response:
    """PUT /pool: the whole wish; templates that it does not name are emptied.

    A template that this server cannot make keeps no other from its pool: its `error` says why.
    """
    running = service(request)
    body = parse(PoolBody, await read_body(request))
    wishes, refused = [], {}
    for item in body.templates:
        try:
            spec = item.spec(running.settings, running.languages)
        except ProxyError as error:
            refused[item.template] = (item.warm_pool_size, error.detail)
        else:
            wishes.append((item.template, spec, item.warm_pool_size))
    running.sessions.pool.set_targets(wishes, refused)
    return answer({"pool": running.pool()})


# --- Sessions --------------------------------------------------------------------------------------------------------


async def create_session(request: Request) -> Response:
    """POST /sessions: 201, or 200 when the same request made it before."""
    running = service(request)
    body = parse(SessionBody, await read_body(request))
    spec = body.spec(running.settings, running.languages)
    libraries = check_libraries(body.more_libraries, spec.lang, spec.network)
    content = spec.digest() + json.dumps([body.env, *sorted(libraries)], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    session_id = body.session_id or str(uuid.uuid4())
    session, made = await running.sessions.create(session_id, spec, body.env, digest, libraries=libraries)
    return answer(session.describe(), 201 if made else 200)


async def list_sessions(request: Request) -> Response:
    """GET /sessions: all that this proxy's backend really runs."""
    items = [session.describe() for session in service(request).sessions.complete()]
    return answer({"sessions": [item["session_id"] for item in items], "items": items})


async def get_session(request: Request) -> Response:
    """GET /sessions/{id}."""
    return answer(session_of(request).describe())


async def delete_session(request: Request) -> Response:
    """DELETE /sessions/{id}: answers at once; the sandbox is removed in the background."""
    session_id = parse_session_id(request.path_params["session_id"])
    service(request).sessions.end(session_id)
    return answer({"session_id": session_id, "status": "terminated"})


async def session_stats(request: Request) -> Response:
    """GET /sessions/{id}/stats."""
    return answer(await session_of(request).sandbox.stats())


# --- Executions ------------------------------------------------------------------------------------------------------


async def execute(request: Request) -> Response:
    """POST /sessions/{id}/execute: the result, or with `Accept: application/x-ndjson` the live events."""
    running = service(request)
    session_id = parse_session_id(request.path_params["session_id"])
    body = parse(ExecuteBody, await read_body(request))
    body.check(running.settings)
    execution = running.sessions.kept.get(session_id, body.execution_id) if body.execution_id else None
    if execution is None:
        session = running.sessions.get(session_id)
        if not await session.sandbox.reachable(RELINK_WAIT_S):
            raise Unreachable
        execution = running.submit(session, body.execution_id or str(uuid.uuid4()), body)
    if NDJSON in request.headers.get("accept", ""):
        patience_s = running.settings.reader_silence_s
        return BoundedStream(_lines(execution, 0), media_type=NDJSON, patience_s=patience_s)
    await execution.wait()
    result = answer(execution.result())
    if not await request.is_disconnected():
        running.sessions.was_read(session_id, execution.id)
    return result


async def execution_events(request: Request) -> Response:
    """GET /sessions/{id}/executions/{eid}/events?after=SEQ&follow=true: replay, then follow.

    A stream that ends without an `exit` is not whole: the proxy stops, or the reader was too slow. Whoever asks again
    with the number of the last event as `after`, the next proxy if need be, is told the rest.
    """
    sessions, session_id = service(request).sessions, parse_session_id(request.path_params["session_id"])
    execution = sessions.find_execution(session_id, parse_execution_id(request.path_params["execution_id"]))
    after = request.query_params.get("after", "0")
    if not after.isascii() or not after.isdigit() or len(after) > 15:
        raise InvalidRequest("`after` must be a whole number from 0.", field="after")
    # An unknown execution is a 404, which must be said before the stream begins.
    while execution.request is None and not execution.done and not execution.transcript.last_seq:
        await execution.transcript.changed()
    if execution.error is not None and not execution.transcript.last_seq:
        raise execution.error
    if request.query_params.get("follow", "true").lower() in ("false", "0", "no"):
        if execution.is_revived:
            # It has ended: half of its journal would look as if it still ran.
            with suppress(TimeoutError):
                async with asyncio.timeout(REVIVE_PATIENCE_S):
                    await execution.wait()
        return Response(b"".join(Follower(execution.transcript, int(after)).lines()), media_type=NDJSON)
    lines = _lines(execution, int(after), partial(sessions.was_read, session_id, execution.id))
    return BoundedStream(lines, media_type=NDJSON, patience_s=service(request).settings.reader_silence_s)


async def cancel_execution(request: Request) -> Response:
    """DELETE /sessions/{id}/executions/{eid}: kill it with all its processes; answers when it has ended."""
    sessions, session_id = service(request).sessions, parse_session_id(request.path_params["session_id"])
    execution_id = parse_execution_id(request.path_params["execution_id"])
    execution, cancelled = sessions.find_execution(session_id, execution_id), False
    if not execution.done:
        cancelled = await sessions.get(session_id).executions.cancel(execution_id)
    with suppress(TimeoutError):
        await asyncio.wait_for(execution.wait(), CANCEL_PATIENCE_S)
    end = execution.transcript.end or {}
    return answer({"execution_id": execution_id, "cancelled": cancelled, "status": end.get("status", "running")})


async def _lines(execution: Execution, after: int, was_read: Callable[[], None] = lambda: None) -> AsyncIterator[bytes]:
    """Yield the events as lines, and a blank one where nothing happened for a while."""
    transcript = execution.transcript
    follower = Follower(transcript, after)
    if not transcript.last_seq and not execution.done:
        yield queued_line()
    while True:
        done = execution.done
        batch = b"".join(follower.lines())
        if batch:
            yield batch
        elif done or follower.done:
            if follower.done:
                was_read()
            return
        else:
            try:
                # Not `wait_for`, which may swallow the cancellation of a reader that left.
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await transcript.changed()
            except TimeoutError:
                yield b"\n"


# --- What all have in common -----------------------------------------------------------------------------------------


def session_of(request: Request) -> ProxySession:
    """Return the session of the path. Raises UnknownSession, InvalidRequest."""
    return service(request).sessions.get(parse_session_id(request.path_params["session_id"]))


async def read_body(request: Request) -> bytes:
    """Return the body, read no further than it may be long and wait no longer than it may take.

    Raises BodyTooLarge, RequestTimeout.
    """
    settings = service(request).settings
    limit = settings.max_body_bytes
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise BodyTooLarge(f"The body has {declared} bytes; at most {limit} are taken.", field="body")
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise BodyTooLarge(f"The body is longer than {limit} bytes.", field="body")
    except TimeoutError:
        detail = f"The body did not arrive within {settings.body_timeout_s:g} s."
        raise RequestTimeout(detail, field="body") from None
    return bytes(body)


ROUTES = [
    Route("/", health, methods=["GET"]),
    Route("/languages", languages, methods=["GET"]),
    Route("/metrics", show_metrics, methods=["GET"]),
    Route("/pool", put_pool, methods=["PUT"]),
    Route("/sessions/{session_id}/execute", execute, methods=["POST"]),
    Route("/sessions", create_session, methods=["POST"]),
    Route("/sessions", list_sessions, methods=["GET"]),
    Route("/sessions/{session_id}", get_session, methods=["GET"]),
    Route("/sessions/{session_id}", delete_session, methods=["DELETE"]),
    Route("/sessions/{session_id}/stats", session_stats, methods=["GET"]),
    Route("/sessions/{session_id}/executions/{execution_id}/events", execution_events, methods=["GET"]),
    Route("/sessions/{session_id}/executions/{execution_id}", cancel_execution, methods=["DELETE"]),
]
