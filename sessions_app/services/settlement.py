"""Finding out what became of executions, from the sandbox's journal: nobody has to have waited for them."""

from __future__ import annotations

import logging
from typing import Any

from sessions_app import clock
from sessions_app.exceptions import (
    ExecutionUnknown,
    InvalidInput,
    ProxyUnreachable,
    QueueFull,
    SandboxFailed,
    SandboxwebError,
)
from sessions_app.limits import OUTPUT_LIMIT_BYTES, WHOLE_OUTPUT_LIMIT_BYTES
from sessions_app.models import Execution, Session
from sessions_app.models.execution import ATTENTION
from sessions_app.proxy_client import proxy
from sessions_app.services import hints, outcome
from sessions_app.services.artifacts import keep_changed
from sessions_app.services.connections import release_connection
from sessions_app.services.output import fitted
from sessions_app.services.whole_output import shortened

logger = logging.getLogger(__name__)

Status = Execution.Status

ENDED_ON_PURPOSE = (Session.Status.TERMINATING, Session.Status.TERMINATED)
# What the journal may not tell; the row then keeps, or gets, an instant of this server.
INSTANTS = ("started_at", "finished_at")
LOST = "The sandbox was lost before the result was known."
# How long an end is waited for after a cancellation: killing a process tree takes milliseconds.
CANCEL_PATIENCE_S = 3.0


def request_of(execution: Execution) -> dict[str, Any]:
    """Return the proxy's request for an execution; always the same one, so that a repetition joins it."""
    takes_all = execution.output_limit_bytes >= OUTPUT_LIMIT_BYTES
    body: dict[str, Any] = {
        "execution_id": str(execution.pk),
        "code": execution.code,
        "libraries": execution.libraries,
        "timeout": execution.timeout_s,
        "env": execution.env,
        "output_limit_bytes": OUTPUT_LIMIT_BYTES if takes_all else WHOLE_OUTPUT_LIMIT_BYTES,
    }
    if execution.stdin is not None:
        body["stdin"] = execution.stdin
    if execution.stdin_stream:
        body["stdin_stream"] = True
    if execution.context:
        body["context"] = execution.context
    return body


def settle_execution(execution: Execution, *, actor: str) -> Execution:
    """Look once, without waiting, at what became of a live execution, and write it down. Never raises for the proxy."""
    try:
        look_after(execution, actor=actor)
    except SandboxwebError as error:
        logger.info("Execution %s could not be settled now: %s", execution.pk, error)
    return execution


def look_after(execution: Execution, *, actor: str) -> None:
    """Do what `settle_execution` does; raise ProxyUnavailable, with nothing changed, when the proxy does not tell."""
    if not execution.is_live:
        return
    release_connection()
    try:
        journal = outcome.from_events(proxy().journal(execution.session_id, execution.pk))
    except ExecutionUnknown:
        _look_for_the_unknown(execution, actor=actor)
    except SandboxFailed as error:
        lose_session(execution.session, error=error.message, actor=actor)
        execution.refresh_from_db()
    else:
        write_journal(execution, journal, actor=actor)


def write_journal(execution: Execution, journal: outcome.Journal, *, actor: str) -> bool:
    """Write what the journal says; True when it is the end."""
    if journal.outcome is not None:
        write_outcome(execution, journal.outcome, actor=actor)
        return True
    if journal.started_at is not None and execution.status == Status.QUEUED:
        execution.begin(actor=actor)
    # What a sandbox has printed may be asked for when it is gone, and the proxy with it.
    execution.note_progress(fitted(journal.partial, execution.output_limit_bytes))
    return False


def write_outcome(
    execution: Execution, result: outcome.Outcome, *, actor: str, user_id: int | None = None, reason: str = ""
) -> None:
    """Write the end of an execution; that its sandbox was lost is the end of the session too."""
    values = {name: value for name, value in result.values.items() if not (name in INSTANTS and value is None)}
    status = result.status
    if status == Status.LOST:
        session = execution.session
        session.refresh_from_db(fields=["status", "termination_reason"])
        if session.status in ENDED_ON_PURPOSE:
            status = Status.CANCELLED
        else:
            values["error"] = LOST
    if status != Status.SUCCEEDED:
        values["hint"] = hints.hint_for(hints.facts_of(execution, status, values, result.told))
    # Before its end is written: who is told of that finds the artifacts there.
    if values.get("files"):
        values["artifacts"] = keep_changed(execution, values["files"])
    values = shortened(execution, values)
    execution.finish(status, actor=actor, user_id=user_id, reason=reason, values=values)
    if status == Status.LOST:
        lose_session(execution.session, error=LOST, actor=actor)


def stop_execution(execution: Execution, *, actor: str, user_id: int | None = None, reason: str = "") -> None:
    """Kill a live execution and keep its output so far; whatever the sandbox says, it is over afterwards.

    Raises ProxyUnavailable, with nothing changed, when the proxy is away.
    """
    release_connection()
    try:
        proxy().cancel(execution.session_id, execution.pk)
        events = proxy().journal(execution.session_id, execution.pk, patience_s=CANCEL_PATIENCE_S, follow=True)
        journal = outcome.from_events(events)
    except (ExecutionUnknown, SandboxFailed) as error:
        logger.info("Execution %s was not cancelled in its sandbox: %s", execution.pk, error)
        journal = _last_words(execution)
    result = journal.outcome or outcome.Outcome(Status.CANCELLED, journal.partial)
    write_outcome(execution, result, actor=actor, user_id=user_id, reason=reason)


def lose_session(session: Session, *, error: str, actor: str) -> None:
    """Write that a session's sandbox is gone: the session `failed`, reason `lost`, its live executions `lost`.

    They keep their output so far, or the end that they had reached. A session that was being ended has reached what
    was wanted.
    """
    session.refresh_from_db()
    ended_on_purpose = session.status in ENDED_ON_PURPOSE
    if session.status == Session.Status.TERMINATING:
        session.finish_end(actor=actor)
    else:
        session.fail(reason=Session.Reason.LOST, error=error, actor=actor)
    for execution in session.executions.live():
        journal = _last_words(execution)
        result = journal.outcome or outcome.Outcome(Status.LOST, journal.partial)
        values = {name: value for name, value in result.values.items() if not (name in INSTANTS and value is None)}
        status = result.status
        if status == Status.LOST and ended_on_purpose:
            status = Status.CANCELLED
        elif status == Status.LOST:
            values["error"] = LOST
        values["hint"] = hints.hint_for(hints.facts_of(execution, status, values, result.told))
        execution.finish(status, actor=actor, reason=error, values=shortened(execution, values))


def _last_words(execution: Execution) -> outcome.Journal:
    """Return what the proxy still has of an execution whose sandbox is gone; what the row has already stays in it."""
    release_connection()
    try:
        journal = outcome.from_events(proxy().journal(execution.session_id, execution.pk))
    except SandboxwebError as error:
        logger.info("Execution %s left no journal: %s", execution.pk, error)
        return outcome.Journal()
    if journal.outcome is None and journal.partial["last_seq"] < execution.last_seq:
        return outcome.Journal()
    return journal


def start_execution(execution: Execution, *, actor: str) -> Execution:
    """Hand an execution to the sandbox without waiting for its end; handing it over again changes nothing."""
    if not execution.is_fresh:
        execution.attend()
    body = request_of(execution) | {"output_limit_bytes": WHOLE_OUTPUT_LIMIT_BYTES}
    release_connection()
    try:
        proxy().start(execution.session_id, body)
    except SandboxwebError as error:
        not_run(execution, error, actor=actor)
        raise
    execution.leave_unattended()
    return execution


def not_run(execution: Execution, error: SandboxwebError, *, actor: str) -> None:
    """Write down what an error of the proxy's answer to an execute says about the execution.

    When nobody can know whether the code runs, nothing is written: the journal will tell.
    """
    if isinstance(error, InvalidInput):
        execution.finish(Status.FAILED, actor=actor, reason=error.message, values={"error": error.message})
    elif isinstance(error, QueueFull):
        execution.finish(Status.CANCELLED, actor=actor, reason=error.message, values={"error": error.message})
    elif isinstance(error, ProxyUnreachable) and execution.is_fresh:
        # Only of one that nobody else has taken up meanwhile: another may have handed it over.
        values = {"error": "The code was not run."}
        execution.finish(Status.ERROR, actor=actor, reason=error.message, values=values, unless_attended=True)
    elif isinstance(error, SandboxFailed):
        lose_session(execution.session, error=error.message, actor=actor)
        execution.refresh_from_db()


def _look_for_the_unknown(execution: Execution, *, actor: str) -> None:
    """Deal with a live execution that the sandbox does not know: its web process died before handing it over.

    It may still be on its way, or not be the next in the queue. Else it is handed over now; but when a later one of
    the session has already run, the sandbox may have run and forgotten it, and code is never run twice.
    """
    age = clock.now() - execution.created_at
    others = Execution.objects.filter(session_id=execution.session_id).exclude(pk=execution.pk)
    if age < ATTENTION or others.live().filter(created_at__lt=execution.created_at).exists():
        return
    if others.filter(created_at__gt=execution.created_at, started_at__isnull=False).exists():
        execution.finish(Status.LOST, actor=actor, reason="unknown to its sandbox", values={"error": LOST})
        return
    try:
        start_execution(execution, actor=actor)
    except SandboxwebError as error:
        logger.info("Execution %s could not be handed over: %s", execution.pk, error)
