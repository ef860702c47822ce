"""What the proxy's refusals mean to the app."""

from __future__ import annotations

import json
import logging

import httpx

from sessions_app.exceptions import (
    ContextUnknown,
    ExecutionUnknown,
    FileConflict,
    FileMissing,
    InvalidInput,
    NoSpace,
    ProxyUnavailable,
    QueueFull,
    SandboxFailed,
    SandboxMissing,
    SandboxwebError,
    StdinClosed,
    TooLarge,
    TooManyContexts,
    Unsupported,
)
from sessions_app.http_pool import Answer

logger = logging.getLogger(__name__)


def answer_of(response: httpx.Response) -> Answer:
    """Return a response, read to its end, in the shape of the app's own client."""
    return Answer(response.status_code, response.headers, response.content)


def failure_of(response: httpx.Response) -> SandboxwebError:
    """Return what an answer that is no success, read to its end, means to the app."""
    return failure(answer_of(response), response.request.url.path)


def failure(answer: Answer, path: str) -> SandboxwebError:
    """Return what an answer that is no success means to the app."""
    try:
        body = json.loads(answer.content)
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    code, detail = str(body.get("error", "")), str(body.get("detail", "")) or f"HTTP {answer.status}"
    field = str(body.get("field") or "")
    match answer.status:
        case 404 if code == "unknown_execution":
            return ExecutionUnknown(detail)
        case 404 if code == "unknown_context":
            return ContextUnknown(detail)
        case 404 if code == "unknown_session":
            return SandboxMissing("The session's sandbox is gone.")
        case 404 if code == "file_not_found":
            return FileMissing(detail)
        case 409 if field == "path":
            return FileConflict(code, detail)
        case 413 if code == "no_space":
            return NoSpace(field or "body", detail)
        case 413:
            return TooLarge(field or "code", detail)
        case 422:
            return Unsupported(field or "lang", detail)
        case 429 if code == "too_many_contexts":
            return TooManyContexts(detail)
        case 429:
            return QueueFull(detail)
        case 502 | 504:
            return SandboxFailed(detail)
        case 408 | 503:
            return ProxyUnavailable(detail, retry_after_s=_retry_after(answer))
        case 409 if code == "stdin_closed":
            return StdinClosed(detail)
        case 400 | 409:
            return InvalidInput(field or "request", detail)
        case _:
            logger.error("The proxy answered %s to %s: %s", answer.status, path, detail)
            return ProxyUnavailable("The sandbox service failed to answer.")


def _retry_after(answer: Answer) -> int:
    value = answer.headers.get("Retry-After", "")
    return int(value) if value.isdigit() else 2
