"""Contexts: interpreters of a session that keep their state between executions.

They live in the sandbox alone. This server stores nothing of them, so nothing here can be out of date.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from sessions_app.exceptions import InvalidInput, SandboxMissing, Unsupported
from sessions_app.models import Session
from sessions_app.proxy_client import proxy
from sessions_app.services.connections import release_connection
from sessions_app.services.sessions import require_active
from sessions_app.services.settlement import lose_session

T = TypeVar("T")

CONTEXT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
LANG = "python"


def check_context_id(context_id: str, *, field: str = "context") -> str:
    """Return what may be the id of a context. Raises InvalidInput."""
    if not CONTEXT_ID.fullmatch(context_id):
        raise InvalidInput(field, "A context's id is of 1 to 64 letters, digits, `-` and `_`.")
    return context_id


def check_contexts(session: Session, *, lang: str | None = None) -> None:
    """Make sure that a session keeps contexts of a language. Raises Unsupported."""
    if session.lang != LANG:
        raise Unsupported("context", f"Contexts run Python alone; this is a session of {session.lang}.")
    if not session.capabilities.get("contexts"):
        raise Unsupported("context", "The sandbox of this session keeps no contexts.")
    if lang is not None and lang != LANG:
        raise Unsupported("lang", f"Contexts run Python alone, not {lang!r}.")


def create_context(
    *, session: Session, actor: str, context_id: str | None = None, lang: str | None = None
) -> dict[str, Any]:
    """Make a context, or find the one of that id again; return how it is.

    Raises Unsupported, TooManyContexts, SessionNotActive, SessionGone, SandboxFailed or ProxyUnavailable.
    """
    name = str(uuid.uuid4()) if context_id is None else check_context_id(context_id, field="context_id")
    check_contexts(session, lang=lang)
    return _ask(session, actor, lambda: proxy().create_context(session.pk, name))


def list_contexts(*, session: Session, actor: str) -> list[dict[str, Any]]:
    """Return the contexts of a session, the oldest first."""
    return _ask(session, actor, lambda: proxy().list_contexts(session.pk))


def show_context(*, session: Session, context_id: str, actor: str) -> dict[str, Any]:
    """Return how a context is. Raises ContextUnknown, as all below do."""
    name = check_context_id(context_id, field="context_id")
    return _ask(session, actor, lambda: proxy().show_context(session.pk, name))


def restart_context(*, session: Session, context_id: str, actor: str) -> dict[str, Any]:
    """Give a context a new interpreter: its state is forgotten, and what runs in it ends."""
    name = check_context_id(context_id, field="context_id")
    return _ask(session, actor, lambda: proxy().restart_context(session.pk, name))


def interrupt_context(*, session: Session, context_id: str, actor: str) -> bool:
    """Interrupt what runs in a context, as Ctrl-C does; False when nothing does."""
    name = check_context_id(context_id, field="context_id")
    return _ask(session, actor, lambda: proxy().interrupt_context(session.pk, name)).get("interrupted") is True


def delete_context(*, session: Session, context_id: str, actor: str) -> None:
    """End a context and what runs in it."""
    name = check_context_id(context_id, field="context_id")
    _ask(session, actor, lambda: proxy().delete_context(session.pk, name))


def _ask(session: Session, actor: str, ask: Callable[[], T]) -> T:
    """Ask the proxy about an active session; one whose sandbox is gone has ended."""
    require_active(session, actor=actor)
    release_connection()
    try:
        return ask()
    except SandboxMissing as error:
        lose_session(session, error=error.message, actor=actor)
        raise
