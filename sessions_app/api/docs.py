"""The words and examples of `/docs`, one constant a request; the views wear them as decorators."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema

from sessions_app.api import answers, serializers

SESSION_ID = "8f14e45f-ceea-467f-a8d1-3b2f1c9d7e52"
EXECUTION_ID = "45c48cce-2e2d-4fbd-9d1a-0c7f5f2a6b11"

SESSION_EXAMPLE: dict[str, Any] = {
    "session_id": SESSION_ID,
    "status": "active",
    "lang": "python",
    "template": "python",
    "expires_at": "2026-01-05T10:05:00Z",
    "capabilities": {"resume": True},
    "metadata": {"agent": "researcher"},
    "idle_timeout": 300,
    "max_lifetime": 3600,
    "execution_timeout": 30,
    "keep_template": False,
    "libraries": [],
    "backend": "bubblewrap",
    "created_at": "2026-01-05T10:00:00Z",
    "started_at": "2026-01-05T10:00:00Z",
    "last_activity_at": "2026-01-05T10:00:00Z",
    "finished_at": None,
    "termination_reason": None,
    "error": None,
}
RESULT_EXAMPLE: dict[str, Any] = {
    "execution_id": EXECUTION_ID,
    "session_id": SESSION_ID,
    "status": "succeeded",
    "stdout": "2\n",
    "stderr": "",
    "exit_code": 0,
    "signal": None,
    "phase": "run",
    "duration_ms": 4.1,
    "cpu_ms": 3.2,
    "max_rss_bytes": 9961472,
    "results": [],
    "artifacts": [],
    "files": [],
    "files_truncated": False,
    "truncated": False,
    "hint": None,
    "error": None,
    "context_restarted": False,
    "expires_at": "2026-01-05T10:05:01Z",
    "created_at": "2026-01-05T10:00:01Z",
    "started_at": "2026-01-05T10:00:01Z",
    "finished_at": "2026-01-05T10:00:01Z",
}
FAILED_EXAMPLE = {
    **RESULT_EXAMPLE,
    "status": "failed",
    "stdout": "",
    "stderr": "Traceback (most recent call last):\n…\nModuleNotFoundError: No module named 'cv2'\n",
    "exit_code": 1,
    "hint": "The module `cv2` is not installed; it comes with the library opencv-python-headless. "
    'Run the code again with "libraries": ["opencv-python-headless"].',
}
EXECUTION_EXAMPLE = {
    **RESULT_EXAMPLE,
    "code": "print(1+1)",
    "libraries": [],
    "timeout": 30.0,
    "output_limit_bytes": 2097152,
    "context": None,
}
EVENTS_EXAMPLE = {
    "events": [
        {"seq": 1, "type": "started", "data": {}, "at": 1767607201.2},
        {"seq": 2, "type": "stdout", "data": "2\n", "at": 1767607201.21},
        {"seq": 3, "type": "exit", "data": {"exit_code": 0, "signal": None}, "at": 1767607201.21},
    ]
}
TEMPLATE_EXAMPLE = {
    "name": "python",
    "lang": "python",
    "description": "Plain Python.",
    "is_default": True,
    "limits": {"memory_bytes": 536870912, "cpus": 1.0, "pids": 128, "disk_bytes": 268435456},
    "network": "none",
    "libraries": [],
    "preload": [],
    "warm_pool_size": 2,
}

MEANINGS = {
    400: "The input is wrong; `attr` names the field.",
    401: "No key, or one that is unknown, expired or revoked.",
    404: "There is no such thing, or it is another's.",
    409: "The session is not active yet, or the `Idempotency-Key` was used for another request.",
    410: "The session ended; `termination_reason` says why.",
    413: "The body or the code is too large.",
    415: "Send `Content-Type: application/json`.",
    422: "A language or library that this server cannot run.",
    429: "Too many executions wait in this session; `Retry-After` says when to come again.",
    502: "The sandbox broke.",
    503: "The proxy is away; `Retry-After` says when to come again.",
}


def errors(*codes: int) -> dict[int, OpenApiResponse]:
    """Return the documentation of error answers."""
    return {
        code: OpenApiResponse(answers.GoneAnswer if code == 410 else answers.ErrorAnswer, description=MEANINGS[code])
        for code in codes
    }


def answer(shape: Any, description: str, *examples: Any) -> OpenApiResponse:
    """Return the documentation of an answer with its examples."""
    shown = [OpenApiExample(f"Answer {number}", value=value) for number, value in enumerate(examples, start=1)]
    return OpenApiResponse(shape, description=description, examples=shown)


def sent(name: str, **value: Any) -> OpenApiExample:
    """Return an example of a request's body."""
    return OpenApiExample(name, value=value, request_only=True)


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The same key with the same body gets the first answer again, for 24 hours; with another body 409.",
)

health = extend_schema(
    tags=["server"],
    summary="How the server is",
    auth=[],
    responses={200: answers.HealthAnswer, 503: answers.HealthAnswer},
)
languages = extend_schema(
    tags=["server"],
    summary="The languages that this server can run",
    responses={
        200: answer(
            answers.LanguagesAnswer,
            "Languages.",
            {"languages": [{"lang": "python", "version": "3.11.2"}], "default": "python"},
        ),
        **errors(401, 503),
    },
)
templates = extend_schema(
    tags=["server"],
    summary="The templates that sessions are made from",
    responses={200: answer(answers.TemplatesAnswer, "Templates.", {"templates": [TEMPLATE_EXAMPLE]}), **errors(401)},
)
metrics = extend_schema(
    tags=["server"],
    summary="Prometheus metrics",
    responses={(200, "text/plain"): OpenApiTypes.STR, **errors(401)},
)

list_sessions = extend_schema(
    tags=["sessions"],
    summary="List your sessions, the newest first",
    parameters=[
        OpenApiParameter(
            "metadata.KEY", OpenApiTypes.STR, description="Sessions whose metadata has this text under KEY."
        )
    ],
    responses={200: answers.SessionAnswer(many=True), **errors(400, 401, 404)},
)
create_session = extend_schema(
    tags=["sessions"],
    summary="Create a session",
    request=serializers.CreateSession,
    parameters=[IDEMPOTENCY_KEY],
    examples=[
        sent("Python", lang="python"),
        sent("With time-outs and metadata", lang="python", idle_timeout=600, metadata={"agent": "researcher"}),
    ],
    responses={
        201: answer(answers.SessionAnswer, "It can run code.", SESSION_EXAMPLE),
        **errors(400, 401, 409, 413, 415, 422, 502, 503),
    },
)
show_session = extend_schema(
    tags=["sessions"],
    summary="Look at a session",
    responses={200: answer(answers.SessionAnswer, "The session.", SESSION_EXAMPLE), **errors(401, 404)},
)
update_session = extend_schema(
    tags=["sessions"],
    summary="Change a session's metadata and time-outs",
    request=serializers.UpdateSession,
    examples=[sent("Metadata", metadata={"agent": "writer"}), sent("Time-outs", idle_timeout=900)],
    responses={
        200: answer(answers.SessionAnswer, "The session as it is now.", SESSION_EXAMPLE),
        **errors(400, 401, 404, 409, 410, 413, 415),
    },
)
end_session = extend_schema(
    tags=["sessions"],
    summary="End a session",
    description="A session that has ended already answers the same, with the reason of its end.",
    responses={
        200: answer(
            answers.TerminatedAnswer,
            "It is over.",
            {"session_id": SESSION_ID, "status": "terminated", "termination_reason": "user"},
        ),
        **errors(401, 404),
    },
)
SESSION_EVENT_EXAMPLE: dict[str, Any] = {
    "type": "expiring",
    "from_status": None,
    "to_status": None,
    "reason": "idle",
    "actor": "reaper",
    "execution_id": None,
    "data": {"expires_at": "2026-01-05T10:05:00Z"},
    "created_at": "2026-01-05T10:04:32Z",
}
session_events = extend_schema(
    tags=["sessions"],
    summary="List what happened to a session, the newest first",
    description="`expiring` says, once for each deadline, that the session is about to end; renewing it moves that.",
    responses={
        200: answer(answers.SessionEventAnswer(many=True), "Events.", SESSION_EVENT_EXAMPLE),
        **errors(400, 401, 404),
    },
)
renew_session = extend_schema(
    tags=["sessions"],
    summary="Give a session more time",
    request=serializers.RenewSession,
    examples=[sent("The same again"), sent("Longer", idle_timeout=1800)],
    responses={
        200: answer(answers.SessionAnswer, "The session with its new deadline.", SESSION_EXAMPLE),
        **errors(400, 401, 404, 409, 410, 415),
    },
)
STREAMED = (
    " With `Accept: text/event-stream` the answer is the live events: `accepted` (with the `execution_id`), those of "
    "the execution with `seq` as their id, and `finished` with all of the answer but the output. It goes on when the "
    "caller hangs up; `GET /executions/{id}/events`, or the same request with its `Idempotency-Key`, and "
    "`Last-Event-ID` take the stream up again. `Accept: application/x-ndjson`: the same, an event a line."
)
LIVE = {(200, "text/event-stream"): OpenApiTypes.STR, (200, "application/x-ndjson"): OpenApiTypes.STR}

execute = extend_schema(
    tags=["executions"],
    summary="Run code in a session",
    description="200 means that the code ran, not that it worked: `status` and `exit_code` say how it ended."
    + STREAMED,
    request=serializers.Execute,
    parameters=[IDEMPOTENCY_KEY],
    examples=[
        sent("A sum", code="print(1+1)"),
        sent("With a library", code="import numpy\nprint(numpy.arange(3).sum())", libraries=["numpy"], timeout=60),
        sent("In a context", code="x = 20\nx + 1", context="default"),
        sent("With little output", code="print('x' * 100000)", output_limit_bytes=2000),
        sent("Without waiting", code="import time\ntime.sleep(20)", wait=False),
    ],
    responses={
        (200, "application/json"): answer(
            answers.ResultAnswer,
            "It ended.",
            RESULT_EXAMPLE,
            FAILED_EXAMPLE,
            {**RESULT_EXAMPLE, "stdout": "", "results": [{"text": "21", "is_main_result": True}]},
        ),
        **LIVE,
        202: answer(answers.ResultAnswer, "It was accepted.", {**RESULT_EXAMPLE, "status": "running", "stdout": ""}),
        **errors(400, 401, 404, 409, 410, 413, 415, 422, 429, 502, 503),
    },
)
list_executions = extend_schema(
    tags=["executions"],
    summary="List a session's executions, the newest first",
    description="Code and output are cut to their first 4096 characters here; results longer than 64 KiB are left out.",
    responses={200: answers.ExecutionAnswer(many=True), **errors(400, 401, 404)},
)
show_execution = extend_schema(
    tags=["executions"],
    summary="Look at an execution",
    responses={200: answer(answers.ExecutionAnswer, "The execution.", EXECUTION_EXAMPLE), **errors(401, 404)},
)
execution_events = extend_schema(
    tags=["executions"],
    summary="Follow an execution's events",
    description=(
        "With `Accept: text/event-stream` they come as they happen, to the end, which is `finished`; the id of a "
        "message is its `seq`, and `Last-Event-ID` takes the stream up again after it; 204 says that there is nothing "
        "more. `Accept: application/x-ndjson`: the same, an event a line. As JSON: what there is so far."
    ),
    parameters=[
        OpenApiParameter("after", OpenApiTypes.INT, description="Only events with a greater `seq`."),
        OpenApiParameter(
            "Last-Event-ID", OpenApiTypes.STR, OpenApiParameter.HEADER, description="The same, as browsers say it."
        ),
    ],
    responses={
        (200, "application/json"): answer(answers.EventsAnswer, "Events.", EVENTS_EXAMPLE),
        **LIVE,
        204: OpenApiResponse(description="You have seen all of it."),
        **errors(400, 401, 404, 503),
    },
)
send_stdin = extend_schema(
    tags=["executions"],
    summary="Send standard input to code that runs",
    description=(
        "For an execution that was begun with `stdin_stream`. As JSON, or as bytes with `Content-Type: "
        "application/octet-stream` and `?eof=true` for the end. `unread_bytes` tells how much the code has yet to read."
    ),
    request=serializers.SendStdin,
    parameters=[OpenApiParameter("eof", OpenApiTypes.BOOL, description="Nothing more follows (for bytes).")],
    examples=[sent("A line", data="yes\n"), sent("The end", eof=True)],
    responses={
        200: answer(answers.StdinAnswer, "Sent.", {"execution_id": EXECUTION_ID, "unread_bytes": 0, "eof": False}),
        **errors(400, 401, 404, 413, 415, 429, 503),
        409: OpenApiResponse(answers.ErrorAnswer, description="It has ended, has not begun, or reads nothing."),
    },
)
cancel_execution = extend_schema(
    tags=["executions"],
    summary="Stop an execution",
    request=serializers.Nothing,
    responses={
        200: answer(
            answers.ExecutionAnswer,
            "The execution; one that had ended already is as it was.",
            {**EXECUTION_EXAMPLE, "status": "cancelled", "exit_code": None, "signal": 9, "stdout": ""},
        ),
        **errors(401, 404, 503),
    },
)
run_once = extend_schema(
    tags=["executions"],
    summary="Run code in a sandbox of its own",
    description="As in a session, but with nothing left behind." + STREAMED,
    request=serializers.RunOnce,
    parameters=[IDEMPOTENCY_KEY],
    examples=[sent("A sum", lang="python", code="print(1+1)")],
    responses={
        (200, "application/json"): answer(answers.ResultAnswer, "It ended.", RESULT_EXAMPLE),
        **LIVE,
        **errors(400, 401, 409, 413, 415, 422, 502, 503),
    },
)


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describe both ways to send a key."""

    target_class = "sessions_app.auth.ApiKeyAuthentication"
    name = ["ApiKey", "ApiKeyHeader"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        """Return the two schemes."""
        return [
            {"type": "http", "scheme": "bearer", "bearerFormat": "sbx_…"},
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        ]
