"""Executions over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Case, F, JSONField, TextField, When
from django.db.models.functions import Cast, Left, Length
from django.db.models.lookups import LessThanOrEqual
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from sessions_app.api import docs
from sessions_app.api.bodies import execution_body, result_body
from sessions_app.api.idempotent import Answer, execution_once, once
from sessions_app.api.pagination import Pages
from sessions_app.api.serializers import Execute, Nothing, RunOnce
from sessions_app.api.sessions import Links, session_links
from sessions_app.api.streams import Streaming, sequence_number, stream_of, wants_stream
from sessions_app.api.views import ApiView, caller, own_execution, own_session
from sessions_app.models import Actor, Execution, IdempotencyRecord, Session
from sessions_app.querysets import ExecutionQuerySet
from sessions_app.services import executions
from sessions_app.services.sessions import require_active

# A list of executions shows how their texts begin: fifty times the whole would be a hundred megabytes.
PREVIEW_CHARS = 4096
PREVIEWED = ("code", "stdout", "stderr")
UNREAD = ("stdin", "env", "results")
LISTED_RESULTS_CHARS = 64 * 1024
LEFT_OUT = {"text": "[too long for a list: look at the execution itself]", "is_main_result": False}


class ExecuteInSession(Streaming, ApiView):
    """Run code in the session. Files that it leaves are there for the next execution."""

    name = "Execute"
    serializer_class = Execute

    @docs.execute
    def post(self, request: Request, session_id: str) -> HttpResponseBase:
        """Run code and, unless told otherwise, wait for its end."""
        given = self.given(request)
        wait = given.pop("wait", True)
        session = own_session(request, session_id)

        def submit(claim: IdempotencyRecord | None) -> Execution:
            # Only now: what has been run is told again also when the session has ended.
            require_active(session, actor=Actor.API)
            return executions.submit_execution(session=session, actor=Actor.API, claim=claim, **given)

        if wants_stream(request):
            return _streamed(request, lambda claim: executions.start_execution(submit(claim), actor=Actor.API))

        def begin(claim: IdempotencyRecord | None) -> Answer:
            return _result(submit(claim), wait=wait)

        def resume(record: IdempotencyRecord) -> Answer | None:
            return None if record.execution is None else _result(record.execution, wait=wait)

        return once(request, begin=begin, resume=resume)

    def links(self, data: Any) -> Links:
        """Lead back to the session, and on to what was run."""
        return session_links(self.kwargs["session_id"]) + execution_links(data)


def _result(execution: Execution, *, wait: bool) -> Answer:
    if wait:
        return 200, result_body(executions.complete_execution(execution, actor=Actor.API))
    if execution.is_live:
        executions.start_execution(execution, actor=Actor.API)
    return 202, result_body(execution)


def _streamed(request: Request, begin: Callable[[IdempotencyRecord | None], Execution]) -> HttpResponseBase:
    """Answer with the live events of an execution, or of the one that the same request began before."""
    after = sequence_number(request)
    begun = execution_once(request, begin)
    return begun if isinstance(begun, Response) else stream_of(request, begun, after=after, is_new=True)


def execution_links(data: Any) -> Links:
    """Return the way to the execution that an answer tells of."""
    if not isinstance(data, dict) or "execution_id" not in data:
        return []
    return [("This execution", f"/executions/{data['execution_id']}")]


class RunSnippet(Streaming, ApiView):
    """Run code in a sandbox of its own; nothing is left behind."""

    name = "Run a snippet"
    serializer_class = RunOnce

    @docs.run_once
    def post(self, request: Request) -> HttpResponseBase:
        """Run code and wait for its end."""
        given = self.given(request)
        if wants_stream(request):
            return _streamed(
                request,
                lambda claim: executions.begin_one_shot(
                    executions.submit_once(owner=caller(request), actor=Actor.API, claim=claim, **given),
                    actor=Actor.API,
                ),
            )

        def begin(claim: IdempotencyRecord | None) -> Answer:
            return 200, result_body(executions.run_once(owner=caller(request), actor=Actor.API, claim=claim, **given))

        return once(request, begin=begin, resume=_run_again)

    def links(self, data: Any) -> Links:
        """Lead to what was run."""
        return execution_links(data)


def _run_again(record: IdempotencyRecord) -> Answer | None:
    """Answer for a one-shot whose web process died: wait for its code as the first request did, and end its session."""
    if record.execution is None:
        return None
    return 200, result_body(executions.complete_one_shot(record.execution, actor=Actor.API, is_keyed=True))


def short_results() -> Case:
    """Return the results as a database reads them for a list: those that are long stay where they are."""
    size = Length(Cast("results", TextField()))
    short = When(LessThanOrEqual(size, LISTED_RESULTS_CHARS), then=F("results"))
    return Case(short, default=None, output_field=JSONField(null=True))


class SessionExecutions(ApiView):
    """What was run in the session, the newest first; long texts are cut."""

    name = "Executions"
    pagination_class = Pages
    queryset = Execution.objects.all()
    session: Session

    def get_queryset(self) -> ExecutionQuerySet:
        """Read the beginnings of the texts."""
        if getattr(self, "swagger_fake_view", False):
            return Execution.objects.none()
        session = self.session = own_session(self.request, self.kwargs["session_id"])
        begins = {f"{name}_begins": Left(name, PREVIEW_CHARS) for name in PREVIEWED}
        rows = Execution.objects.filter(session_id=session.pk).defer(*PREVIEWED, *UNREAD).annotate(**begins)
        return rows.annotate(short_results=short_results())

    @docs.list_executions
    def get(self, request: Request, session_id: str) -> Response:
        """List."""
        page: list[Execution] = self.paginate_queryset(self.get_queryset()) or []
        for execution in page:
            execution.session = self.session
            for name in PREVIEWED:
                setattr(execution, name, getattr(execution, f"{name}_begins"))
            short: list[Any] | None = getattr(execution, "short_results", None)
            execution.results = [LEFT_OUT] if short is None else short
        return self.get_paginated_response([execution_body(execution) for execution in page])

    def links(self, data: Any) -> Links:
        """Lead to each."""
        rows = data.get("results", ()) if isinstance(data, dict) else ()
        own = [
            (f"{row['execution_id'][:8]} · {row['status']}", f"/executions/{row['execution_id']}") for row in rows[:10]
        ]
        return [*session_links(self.kwargs["session_id"]), *own]


class ExecutionDetail(ApiView):
    """One execution, with all of its output."""

    name = "Execution"

    @docs.show_execution
    def get(self, request: Request, execution_id: str) -> Response:
        """Show, after a look at what became of it."""
        execution = own_execution(request, execution_id)
        return Response(execution_body(executions.settle_execution(execution, actor=Actor.API)))

    def links(self, data: Any) -> Links:
        """Lead to its session, and to its end while it runs."""
        if not isinstance(data, dict) or "session_id" not in data:
            return []
        address = f"/executions/{data['execution_id']}"
        stop = [("Stop it", f"{address}/cancel")] if data["finished_at"] is None else []
        return [*session_links(data["session_id"]), ("Its events", f"{address}/events"), *stop]


class ExecutionCancel(ApiView):
    """Stop an execution; its output so far is kept, and its session lives on."""

    name = "Cancel"
    serializer_class = Nothing

    @docs.cancel_execution
    def post(self, request: Request, execution_id: str) -> Response:
        """Stop."""
        execution = own_execution(request, execution_id)
        return Response(
            execution_body(executions.cancel_execution(execution=execution, actor=Actor.API, user=caller(request)))
        )

    def links(self, data: Any) -> Links:
        """Lead back to it."""
        return [("Execution", f"/executions/{self.kwargs['execution_id']}")]
