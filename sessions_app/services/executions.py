"""Running code in sessions."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction

from sessions_app import clock
from sessions_app.exceptions import (
    InvalidInput,
    QueueFull,
    SandboxFailed,
    SandboxwebError,
    Unsupported,
)
from sessions_app.limits import (
    MAX_LIVE_EXECUTIONS,
    check_code,
    check_env,
    check_libraries,
    check_output_limit,
    check_seconds,
    check_stdin,
)
from sessions_app.models import Execution, IdempotencyRecord, Session
from sessions_app.models.execution import ATTENTION
from sessions_app.prepared import insert
from sessions_app.proxy_client import proxy
from sessions_app.services import outcome, settlement
from sessions_app.services.connections import release_connection
from sessions_app.services.contexts import check_context_id, check_contexts
from sessions_app.services.libraries import check_allowed
from sessions_app.services.policies import policy_for
from sessions_app.services.sessions import create_session, find_template, require_active, terminate_session
from sessions_app.services.settlement import settle_execution, start_execution

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

__all__ = [
    "begin_one_shot",
    "cancel_execution",
    "complete_execution",
    "complete_one_shot",
    "run_once",
    "settle_execution",
    "start_execution",
    "submit_execution",
    "submit_once",
]


def submit_execution(
    *,
    session: Session,
    code: str,
    actor: str,
    libraries: Sequence[str] = (),
    timeout: float | None = None,
    stdin: str | None = None,
    stdin_stream: bool = False,
    env: Mapping[str, str] | None = None,
    context: str | None = None,
    output_limit_bytes: int | None = None,
    execution_id: uuid.UUID | None = None,
    claim: IdempotencyRecord | None = None,
) -> Execution:
    """Write the row of an execution: `running` when nothing else is live in the session, else `queued`.

    `timeout` is in seconds; of each output stream the answer has `output_limit_bytes`, a longer one's middle left out.
    The same `execution_id` again returns the row that is there. `claim` is tied to the row as it is written. Raises
    InvalidInput, SessionNotActive, SessionGone or QueueFull, and leaves nothing behind then.
    """
    execution = Execution(
        session=session,
        code=check_code(code),
        libraries=check_allowed(check_libraries(libraries), lang=session.lang),
        timeout_s=_timeout(session, timeout),
        stdin=check_stdin(stdin),
        stdin_stream=_goes_on(session, stdin_stream),
        env=check_env(env or {}),
        context=_context(session, context),
        output_limit_bytes=check_output_limit(output_limit_bytes),
    )
    if execution_id is not None:
        execution.pk = execution_id
        if known := Execution.objects.filter(pk=execution_id).select_related("session__template").first():
            return _the_same(known, execution)
    return _insert(execution, session, claim=claim, actor=actor)


def _insert(execution: Execution, session: Session, *, claim: IdempotencyRecord | None, actor: str) -> Execution:
    now = clock.now()
    try:
        with transaction.atomic():
            status = session.admit(now)
            if status is not None:
                execution.status = status
                execution.created_at, execution.attend_at = now, now + ATTENTION
                execution.started_at = now if status == Execution.Status.RUNNING else None
                insert(execution)
                if claim is not None:
                    claim.attach(session=session, execution=execution)
    except IntegrityError:
        known = Execution.objects.filter(pk=execution.pk).select_related("session__template").first()
        if known is None:
            raise
        return _the_same(known, execution)
    if status is None:
        session.refresh_from_db()
        require_active(session, actor=actor)
        raise QueueFull("Too many executions wait in this session. Try again when some have ended.")
    execution.is_fresh = True
    return execution


def _the_same(known: Execution, wanted: Execution) -> Execution:
    if known.session_id != wanted.session_id or known.code != wanted.code:
        raise InvalidInput("execution_id", "This id was used for another execution.")
    return known


def _timeout(session: Session, timeout: float | None) -> float:
    if timeout is None:
        return session.execution_timeout_s
    if not 0 < timeout <= session.execution_timeout_s:
        policy = policy_for(owner_id=session.owner_id, template=session.template)
        check_seconds("timeout", timeout, ceiling=policy.execution_timeout_max_s)
    return timeout


def _goes_on(session: Session, stdin_stream: bool) -> bool:
    if stdin_stream and not session.capabilities.get("stdin", True):
        raise Unsupported("stdin_stream", "The sandbox of this session takes no input for code that runs.")
    return stdin_stream


def _context(session: Session, context: str | None) -> str:
    if not context:
        return ""
    check_contexts(session)
    return check_context_id(context)


def complete_execution(execution: Execution, *, actor: str) -> Execution:
    """Have an execution run, wait for its end and return it settled. The code's own failure is a result, not an error.

    One that is settled already is returned as it is; one that runs already is joined. Raises Unsupported (a library),
    SandboxFailed, QueueFull or ProxyUnavailable; after the last, and when this process dies, whoever looks at the
    execution next, or the reaper, settles it.
    """
    if not execution.is_live:
        return execution
    if not execution.is_fresh:
        execution.attend()
    body = settlement.request_of(execution)
    release_connection()
    try:
        reply = _wait(execution, body)
    except SandboxwebError as error:
        settlement.not_run(execution, error, actor=actor)
        if isinstance(error, SandboxFailed) and execution.status == Execution.Status.CANCELLED:
            return execution  # its session was ended on purpose
        raise
    settlement.write_outcome(execution, outcome.from_reply(reply), actor=actor)
    if execution.status == Execution.Status.LOST:
        raise SandboxFailed(settlement.LOST)
    return execution


def _wait(execution: Execution, body: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the proxy for the result; one that waits in the queue may take as long as all before it."""
    places = 1 if execution.status == Execution.Status.RUNNING else MAX_LIVE_EXECUTIONS
    return proxy().execute(execution.session_id, body, wait_s=places * execution.timeout_s)


def cancel_execution(*, execution: Execution, actor: str, user: User | None = None) -> Execution:
    """End a live execution, keeping its output so far; one that ended stays as it is."""
    if execution.is_live:
        settlement.stop_execution(execution, actor=actor, user_id=None if user is None else user.pk, reason="cancelled")
    return execution


def submit_once(
    *,
    owner: User,
    code: str,
    actor: str,
    lang: str | None = None,
    template: str | None = None,
    libraries: Sequence[str] = (),
    timeout: float | None = None,
    stdin: str | None = None,
    stdin_stream: bool = False,
    env: Mapping[str, str] | None = None,
    output_limit_bytes: int | None = None,
    claim: IdempotencyRecord | None = None,
) -> Execution:
    """Make a session for one execution and write the row of that; `complete_one_shot` or `begin_one_shot` goes on."""
    check_code(code)
    check_libraries(libraries)
    check_stdin(stdin)
    check_output_limit(output_limit_bytes)
    if libraries:
        check_allowed(libraries, lang=find_template(lang=lang, template=template).lang)
    if timeout is not None:
        policy = policy_for(owner_id=owner.pk, template=find_template(lang=lang, template=template))
        check_seconds("timeout", timeout, ceiling=policy.execution_timeout_max_s)
    session = create_session(owner=owner, actor=actor, lang=lang, template=template, env=env, one_shot=True)
    try:
        return submit_execution(
            session=session,
            code=code,
            actor=actor,
            libraries=libraries,
            timeout=timeout,
            stdin=stdin,
            stdin_stream=stdin_stream,
            output_limit_bytes=output_limit_bytes,
            claim=claim,
        )
    except BaseException:
        end_one_shot(session, actor=actor)
        raise


def run_once(*, owner: User, code: str, actor: str, **given: Any) -> Execution:
    """Run code in a session of its own, which ends with it whatever happens; return the settled execution.

    Takes what `submit_once` takes.
    """
    execution = submit_once(owner=owner, code=code, actor=actor, **given)
    return complete_one_shot(execution, actor=actor, is_keyed=given.get("claim") is not None)


def begin_one_shot(execution: Execution, *, actor: str) -> Execution:
    """Hand a one-shot's execution over without waiting; who follows it to its end, or the reaper, ends its session."""
    try:
        return start_execution(execution, actor=actor)
    except BaseException:
        if not execution.is_live:
            end_one_shot(execution.session, actor=actor)
        raise


def complete_one_shot(execution: Execution, *, actor: str, is_keyed: bool) -> Execution:
    """Have a one-shot's execution run, or join its run, and end its session with it.

    When nobody can tell whether the code still runs, an end would cut off what a repetition of the request could still
    get: with a key (`is_keyed`) the session is left for that, and for the reaper.
    """
    try:
        return complete_execution(execution, actor=actor)
    finally:
        if not (is_keyed and execution.is_live):
            end_one_shot(execution.session, actor=actor)


def end_one_shot(session: Session, *, actor: str) -> None:
    """End a one-shot session; what the proxy's absence prevents, the reaper does."""
    try:
        terminate_session(session=session, reason=Session.Reason.USER, actor=actor)
    except SandboxwebError as error:
        logger.warning("One-shot session %s is left to the reaper: %s", session.pk, error)
