"""The contexts of a session over HTTP: made, listed, restarted, interrupted and deleted."""

from __future__ import annotations

import uuid

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy_service.backends.base import Sandbox
from proxy_service.errors import UnknownContext
from proxy_service.routes import answer, read_body, service
from proxy_service.schemas import ContextBody, parse, parse_context_id, parse_session_id
from proxy_service.service import check_contexts


async def create_context(request: Request) -> Response:
    """POST /sessions/{id}/contexts: 201, or 200 when it is there already."""
    sandbox = _sandbox(request)
    body = parse(ContextBody, await read_body(request))
    check_contexts(sandbox, lang=body.lang)
    context, made = await sandbox.create_context(body.context_id or str(uuid.uuid4()))
    return answer(context.to_dict(), 201 if made else 200)


async def list_contexts(request: Request) -> Response:
    """GET /sessions/{id}/contexts."""
    found = await _sandbox(request).contexts()
    return answer({"contexts": [context.to_dict() for context in found]})


async def get_context(request: Request) -> Response:
    """GET /sessions/{id}/contexts/{cid}."""
    sandbox, context_id = _named(request)
    for context in await sandbox.contexts():
        if context.context_id == context_id:
            return answer(context.to_dict())
    raise UnknownContext(context_id)


async def restart_context(request: Request) -> Response:
    """POST /sessions/{id}/contexts/{cid}/restart: a new interpreter; what ran in the old one ends."""
    sandbox, context_id = _named(request)
    return answer((await sandbox.restart_context(context_id)).to_dict())


async def interrupt_context(request: Request) -> Response:
    """POST /sessions/{id}/contexts/{cid}/interrupt: as Ctrl-C does; `interrupted` says whether anything ran."""
    sandbox, context_id = _named(request)
    return answer({"context_id": context_id, "interrupted": await sandbox.interrupt_context(context_id)})


async def delete_context(request: Request) -> Response:
    """DELETE /sessions/{id}/contexts/{cid}: end it and what runs in it."""
    sandbox, context_id = _named(request)
    await sandbox.delete_context(context_id)
    return answer({"context_id": context_id, "status": "deleted"})


def _sandbox(request: Request) -> Sandbox:
    return service(request).sessions.get(parse_session_id(request.path_params["session_id"])).sandbox


def _named(request: Request) -> tuple[Sandbox, str]:
    return _sandbox(request), parse_context_id(request.path_params["context_id"])


ROUTES = [
    Route("/sessions/{session_id}/contexts", create_context, methods=["POST"]),
    Route("/sessions/{session_id}/contexts", list_contexts, methods=["GET"]),
    Route("/sessions/{session_id}/contexts/{context_id}", get_context, methods=["GET"]),
    Route("/sessions/{session_id}/contexts/{context_id}", delete_context, methods=["DELETE"]),
    Route("/sessions/{session_id}/contexts/{context_id}/restart", restart_context, methods=["POST"]),
    Route("/sessions/{session_id}/contexts/{context_id}/interrupt", interrupt_context, methods=["POST"]),
]
