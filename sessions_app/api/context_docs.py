"""The words and examples of `/docs` about contexts."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema

from sessions_app.api import answers, serializers
from sessions_app.api.docs import answer, errors, sent

CONTEXT_EXAMPLE: dict[str, Any] = {
    "context_id": "analysis",
    "lang": "python",
    "state": "idle",
    "executions": 3,
    "restarts": 0,
    "created_at": "2026-01-05T10:00:00Z",
}

list_contexts = extend_schema(
    tags=["contexts"],
    summary="List a session's contexts",
    operation_id="sessions_contexts_list",
    responses={
        200: answer(answers.ContextsAnswer, "Contexts.", {"contexts": [CONTEXT_EXAMPLE]}),
        **errors(401, 404, 409, 410, 502, 503),
    },
)
create_context = extend_schema(
    tags=["contexts"],
    summary="Make a context",
    description="Name it in `context` of an execution. An id that is there already gets the same context again.",
    request=serializers.CreateContext,
    examples=[sent("A name of your own", context_id="analysis"), sent("A name that is made up")],
    responses={
        201: answer(answers.ContextAnswer, "The context.", {**CONTEXT_EXAMPLE, "state": "starting", "executions": 0}),
        **errors(400, 401, 404, 409, 410, 415, 422, 429, 502, 503),
    },
)
show_context = extend_schema(
    tags=["contexts"],
    summary="Look at a context",
    responses={
        200: answer(answers.ContextAnswer, "The context.", CONTEXT_EXAMPLE),
        **errors(400, 401, 404, 409, 410, 502, 503),
    },
)
delete_context = extend_schema(
    tags=["contexts"],
    summary="Delete a context",
    description="What runs in it ends.",
    responses={
        200: answer(answers.DeletedContextAnswer, "It is gone.", {"context_id": "analysis", "status": "deleted"}),
        **errors(400, 401, 404, 409, 410, 502, 503),
    },
)
restart_context = extend_schema(
    tags=["contexts"],
    summary="Restart a context",
    description="Its state is forgotten, and what runs in it ends.",
    request=serializers.Nothing,
    responses={
        200: answer(answers.ContextAnswer, "The context.", {**CONTEXT_EXAMPLE, "state": "starting", "restarts": 1}),
        **errors(400, 401, 404, 409, 410, 502, 503),
    },
)
interrupt_context = extend_schema(
    tags=["contexts"],
    summary="Interrupt what runs in a context",
    description="As Ctrl-C does: the code gets a `KeyboardInterrupt`, and the context keeps its state.",
    request=serializers.Nothing,
    responses={
        200: answer(answers.InterruptedAnswer, "Done.", {"context_id": "analysis", "interrupted": True}),
        **errors(400, 401, 404, 409, 410, 502, 503),
    },
)
