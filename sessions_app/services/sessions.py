"""Making, keeping and ending sessions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import transaction

from sessions_app import clock
from sessions_app.exceptions import (
    InvalidInput,
    ProxyUnavailable,
    SandboxwebError,
    SessionGone,
    SessionNotActive,
    Unsupported,
)
from sessions_app.limits import check_env, check_libraries, check_metadata
from sessions_app.models import IdempotencyRecord, SandboxTemplate, Session, SessionEvent
from sessions_app.models.session import PENDING_LEASE
from sessions_app.prepared import Parameter, Prepared, insert
from sessions_app.proxy_client import proxy
from sessions_app.services import languages
from sessions_app.services.connections import release_connection
from sessions_app.services.leases import held_while_made
from sessions_app.services.libraries import check_allowed
from sessions_app.services.policies import changed_terms, policy_for, renewed_terms, terms
from sessions_app.services.settlement import stop_execution

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

DEFAULT_LANGUAGE = "python"
# A one-shot session has nothing to wait for between its making, its execution and its end.
ONE_SHOT_IDLE_S = 30
# Making a sandbox takes milliseconds to seconds: after so long its maker may be dead.
TAKE_UP_AFTER = timedelta(seconds=4)
# What follows from the rest has no place in the event of a change.
UNTOLD = ("chosen_timeouts", "grace_s")


def create_session(
    *,
    owner: User,
    actor: str,
    lang: str | None = None,
    template: str | None = None,
    keep_template: bool = False,
    idle_timeout: int | None = None,
    max_lifetime: int | None = None,
    execution_timeout: int | None = None,
    metadata: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    libraries: Sequence[str] = (),
    one_shot: bool = False,
    claim: IdempotencyRecord | None = None,
) -> Session:
    """Make a session with its sandbox, and return it active.

    Time-outs are in seconds, by default those of the policy. `claim` is tied to the row as it is written.
    Raises InvalidInput, Unsupported, ProxyUnavailable or SandboxFailed; the row is then `failed`, if there is one.
    """
    metadata, env = check_metadata(metadata or {}), check_env(env or {})
    made_from = find_template(lang=lang, template=template)
    wanted = check_allowed(check_libraries(libraries), lang=made_from.lang)
    policy = policy_for(owner_id=owner.pk, template=made_from)
    wishes = {"idle_timeout": idle_timeout, "max_lifetime": max_lifetime, "execution_timeout": execution_timeout}
    columns = terms(policy, wishes)
    if one_shot:
        columns |= {"idle_timeout_s": min(ONE_SHOT_IDLE_S, columns["idle_timeout_s"]), "grace_s": 0}
    session = Session(
        owner=owner,
        template=made_from,
        lang=made_from.lang,
        keep_template=keep_template,
        metadata=metadata,
        env=env,
        libraries=wanted,
        is_one_shot=one_shot,
        **columns,
    )
    session.attend_at = clock.now() + PENDING_LEASE
    # A single statement needs no transaction around it.
    with nullcontext() if claim is None else transaction.atomic():
        insert(session)
        if claim is not None:
            claim.attach(session=session)
    return _give_sandbox(session, actor=actor)


def _give_sandbox(session: Session, *, actor: str) -> Session:
    template = session.template
    body = {
        "session_id": str(session.pk),
        **template.spec(keep_template=session.keep_template),
        "env": {**template.env, **session.env},
    }
    if session.libraries:
        body["more_libraries"] = session.libraries
    user_id = session.owner_id
    release_connection()
    # Asking a registry and unpacking what it gives takes longer than a start; the proxy bounds both.
    has_libraries = session.libraries or template.libraries
    try:
        with held_while_made(session.pk) if has_libraries else nullcontext():
            answer = proxy().create_session(body)
    except SandboxwebError as error:
        if not session.fail(reason=Session.Reason.ERROR, error=error.message, actor=actor) and _was_made(session):
            return session
        raise
    active = session.activate(
        sandbox=str(answer.get("sandbox", ""))[:255],
        backend=str(answer.get("backend", ""))[:64],
        capabilities=answer.get("capabilities") or {},
        actor=actor,
        user_id=user_id,
    )
    if not active and not _was_made(session):
        _destroy_unwanted(session)
        raise gone(session)
    return session


def _was_made(session: Session) -> bool:
    """Tell whether somebody else has taken the session up meanwhile: both ask for the same sandbox."""
    session.refresh_from_db()
    return session.status == Session.Status.ACTIVE


def take_up(session: Session, *, actor: str) -> bool:
    """Go on making a session whose first request may have died, for its repetition; False when it is too early.

    The proxy gives both the same sandbox, should the first be alive after all.
    """
    now = clock.now()
    if session.attend_at is None or session.attend_at > now + PENDING_LEASE - TAKE_UP_AFTER:
        return False
    if not session.claim(now=now, lease=PENDING_LEASE):
        return False
    _give_sandbox(session, actor=actor)
    return True


def _destroy_unwanted(session: Session) -> None:
    """Destroy the sandbox of a session that was ended while it was being made; the reaper would find it too."""
    try:
        proxy().delete_session(session.pk)
    except SandboxwebError as error:
        logger.warning("Session %s ended before it began, and its sandbox is still there: %s", session.pk, error)


NAMED_TEMPLATE: Prepared[SandboxTemplate] = Prepared(
    lambda: SandboxTemplate.objects.enabled().filter(name=Parameter("name")),
    name=lambda: SandboxTemplate._meta.get_field("name"),
)
DEFAULT_TEMPLATE: Prepared[SandboxTemplate] = Prepared(
    lambda: SandboxTemplate.objects.enabled().filter(lang=Parameter("lang"), is_default=True),
    lang=lambda: SandboxTemplate._meta.get_field("lang"),
)


def find_template(*, lang: str | None, template: str | None) -> SandboxTemplate:
    """Return the enabled template of that name, else the default one of the language (Python when none is named)."""
    if template is not None:
        named = NAMED_TEMPLATE.first(name=template)
        if named is None:
            raise InvalidInput("template", f"There is no template {template!r}.")
        if lang is not None and lang != named.lang:
            raise InvalidInput("lang", f"The template {template!r} is for {named.lang}.")
        return named
    lang = lang or DEFAULT_LANGUAGE
    default = DEFAULT_TEMPLATE.first(lang=lang)
    if default is None:
        can = ", ".join(languages.names()) or "nothing"
        raise Unsupported("lang", f"This server cannot run {lang!r}. It can run: {can}.")
    return default


def require_active(session: Session, *, actor: str) -> Session:
    """Return the session if it can run code. Raise SessionNotActive while it is being made, SessionGone once it ended.

    One whose deadline has come is ended on the spot, so nobody has to wait for the reaper to be told the truth.
    """
    if session.is_expired(clock.now()):
        expire_session(session, actor=actor)
    if session.status == Session.Status.ACTIVE:
        return session
    if session.status == Session.Status.PENDING:
        raise SessionNotActive("The session is still being made.")
    raise gone(session)


def gone(session: Session) -> SessionGone:
    """Return the exception that says why a session is over, and what to do."""
    reason = Session.Reason(session.termination_reason or Session.Reason.ERROR)
    message = f"The session ended ({reason.label[0].lower()}{reason.label[1:]}). Make a new one."
    return SessionGone(message, termination_reason=reason.value)


def expire_session(session: Session, *, actor: str) -> bool:
    """End a session whose deadline has come; False when it was renewed, or ended by another, meanwhile.

    Its sandbox is destroyed here if the proxy is there, else by the reaper: for its user it is over either way.
    """
    if not session.begin_expiry(actor=actor):
        session.refresh_from_db()
        return False
    try:
        finish_termination(session, actor=actor)
    except SandboxwebError as error:
        logger.warning("Session %s expired, and its sandbox is still there: %s", session.pk, error)
    return True


def terminate_session(*, session: Session, reason: str, actor: str, user: User | None = None) -> Session:
    """End a session: its live executions are cancelled, its sandbox is destroyed. One that ended stays as it is.

    Raises ProxyUnavailable when the proxy is away: the session is then closed for its user, and the reaper ends it.
    """
    user_id = None if user is None else user.pk
    if session.status in (Session.Status.PENDING, Session.Status.ACTIVE):
        if session.is_expired(clock.now()):
            reason = session.expiry_reason(clock.now())
        if not session.begin_end(reason=reason, actor=actor, user_id=user_id):
            session.refresh_from_db()
            if session.status in (Session.Status.PENDING, Session.Status.ACTIVE):
                # It became active between the reading and the swap; now it can only end.
                session.begin_end(reason=reason, actor=actor, user_id=user_id)
    if session.status == Session.Status.TERMINATING:
        finish_termination(session, actor=actor, user_id=user_id)
    return session


def finish_termination(session: Session, *, actor: str, user_id: int | None = None) -> None:
    """Do what a terminating session still needs; whoever does it again does no harm. Raises for the proxy's absence."""
    for execution in session.executions.live():
        stop_execution(execution, actor=actor, user_id=user_id, reason=session.termination_reason)
    release_connection()
    proxy().delete_session(session.pk)
    if not session.finish_end(actor=actor, user_id=user_id):
        session.refresh_from_db()


def renew_session(
    *, session: Session, actor: str, idle_timeout: int | None = None, user: User | None = None
) -> Session:
    """Start the idle clock again, with another idle time-out (seconds) if one is given.

    The policy counts as it is now: what its user chose is cut to the ceilings, the rest takes the defaults.
    """
    require_active(session, actor=actor)
    policy = policy_for(owner_id=session.owner_id, template=session.template)
    values = renewed_terms(session, policy, idle_timeout=idle_timeout)
    return _change(session, values, active=True, type_=SessionEvent.Type.RENEWED, actor=actor, user=user)


def update_session(
    *,
    session: Session,
    actor: str,
    metadata: Mapping[str, str] | None = None,
    idle_timeout: int | None = None,
    max_lifetime: int | None = None,
    execution_timeout: int | None = None,
    user: User | None = None,
) -> Session:
    """Change metadata (as a whole) and time-outs (seconds) within the policy's ceilings; what is None stays."""
    require_active(session, actor=actor)
    values: dict[str, Any] = {}
    if metadata is not None:
        values["metadata"] = check_metadata(metadata)
    given = {"idle_timeout": idle_timeout, "max_lifetime": max_lifetime, "execution_timeout": execution_timeout}
    wishes = {name: value for name, value in given.items() if value is not None}
    if wishes:
        policy = policy_for(owner_id=session.owner_id, template=session.template)
        values |= changed_terms(session, policy, wishes)
    if not values:
        return session
    return _change(session, values, active=False, type_=SessionEvent.Type.UPDATED, actor=actor, user=user)


def _change(
    session: Session, values: dict[str, Any], *, active: bool, type_: str, actor: str, user: User | None
) -> Session:
    told = {key: values[key] for key in sorted(values) if key not in UNTOLD and values[key] != getattr(session, key)}
    with transaction.atomic():
        changed = session.change(now=clock.now(), active=active, **values)
        if changed:
            SessionEvent.objects.create(session=session, type=type_, actor=actor, user=user, data=told)
    if not changed:
        session.refresh_from_db()
        require_active(session, actor=actor)
        raise ProxyUnavailable("The session changed at the same moment. Try again.")
    return session
