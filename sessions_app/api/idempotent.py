"""`Idempotency-Key` around a request that makes something."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from rest_framework.request import Request
from rest_framework.response import Response

from sessions_app.api.errors import to_api_error
from sessions_app.exceptions import ProxyUnavailable, SandboxFailed, SandboxwebError
from sessions_app.models import Execution, IdempotencyRecord
from sessions_app.services import idempotency

if TYPE_CHECKING:
    from django.contrib.auth.models import User

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"

Answer = tuple[int, dict[str, Any]]
Begin = Callable[[IdempotencyRecord | None], Answer]
Resume = Callable[[IdempotencyRecord], Answer | None]


def once(request: Request, *, begin: Begin, resume: Resume) -> Response:
    """Answer with `begin`, or with the first answer that its `Idempotency-Key` got.

    `resume` answers from what an earlier request made before it died; None means that nothing came of that.
    """
    key = request.headers.get(HEADER)
    if key is None:
        status, body = begin(None)
        return Response(body, status=status)
    claim = _claim(request, key)
    if claim.answer is not None:
        status, body = claim.answer
        return Response(body, status=status, headers={REPLAYED: "true"})
    if claim.record.session_id is not None or claim.record.execution_id is not None:
        answer = _kept(claim.record, resume)
        if answer is not None:
            return Response(answer[1], status=answer[0], headers={REPLAYED: "true"})
        idempotency.release(claim.record)
        claim = _claim(request, key)
    status, body = cast(Answer, _kept(claim.record, begin))
    return Response(body, status=status)


def execution_once(request: Request, begin: Callable[[IdempotencyRecord | None], Execution]) -> Execution | Response:
    """Return the execution of `begin`, or the one that was begun under its `Idempotency-Key` before.

    An error that the key has got already is given again as the answer.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return begin(None)
    claim = _claim(request, key)
    if claim.record.execution is not None:
        return claim.record.execution
    if claim.answer is not None:
        status, body = claim.answer
        return Response(body, status=status, headers={REPLAYED: "true"})
    begun: list[Execution] = []
    _kept(claim.record, lambda record: begun.append(begin(record)))
    return begun[0]


def _claim(request: Request, key: str) -> idempotency.Claim:
    said = json.dumps(request.data, sort_keys=True, separators=(",", ":")).encode()
    mark = idempotency.fingerprint(method=str(request.method), path=request.path, body=said)
    return idempotency.claim(owner=cast("User", request.user), key=key, fingerprint=mark)


def _kept(record: IdempotencyRecord, work: Resume) -> Answer | None:
    """Work, and keep the answer. After an error the key is free again, unless code may have run under it."""
    try:
        answer = work(record)
    except SandboxwebError as error:
        execution = record.execution
        if execution is None:
            idempotency.release(record)
        elif isinstance(error, SandboxFailed):
            _keep_error(record, error)
        elif not (isinstance(error, ProxyUnavailable) and execution.is_live):
            idempotency.release(record)
        raise
    except Exception:
        if record.session_id is None and record.execution_id is None:
            idempotency.release(record)
        raise
    if answer is not None:
        idempotency.finish(record, status=answer[0], body=answer[1])
    return answer


def _keep_error(record: IdempotencyRecord, error: SandboxwebError) -> None:
    face = to_api_error(error)
    body = {"type": "server_error", "errors": [{"code": error.code, "detail": error.message, "attr": None}]}
    idempotency.finish(record, status=face.status_code, body=body)
