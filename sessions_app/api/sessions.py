"""Sessions over HTTP."""

from __future__ import annotations

from typing import Any

from django_filters.rest_framework import DjangoFilterBackend  # type: ignore[import-untyped]
from rest_framework.request import Request
from rest_framework.response import Response

from sessions_app import clock
from sessions_app.api import docs
from sessions_app.api.bodies import session_body
from sessions_app.api.filters import SessionFilter
from sessions_app.api.idempotent import Answer, once
from sessions_app.api.pagination import SessionPages
from sessions_app.api.serializers import CreateSession, RenewSession, UpdateSession
from sessions_app.api.views import ApiView, caller, own_session
from sessions_app.exceptions import IdempotencyInProgress
from sessions_app.models import Actor, IdempotencyRecord, Session
from sessions_app.querysets import SessionQuerySet
from sessions_app.services import sessions

Links = list[tuple[str, str]]


class SessionList(ApiView):
    """Your sessions. Create one below, then run code in it."""

    name = "Sessions"
    serializer_class = CreateSession
    pagination_class = SessionPages
    filter_backends = (DjangoFilterBackend,)
    filterset_class = SessionFilter
    queryset = Session.objects.all()

    def get_queryset(self) -> SessionQuerySet:
        """Read what a list shows of the caller's sessions."""
        if getattr(self, "swagger_fake_view", False):
            return Session.objects.none()
        return Session.objects.owned_by(self.request.user).select_related("template").defer("env", "template__env")

    @docs.list_sessions
    def get(self, request: Request) -> Response:
        """List."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response([session_body(session) for session in page or ()])

    @docs.create_session
    def post(self, request: Request) -> Response:
        """Create."""
        given = self.given(request)

        def begin(claim: IdempotencyRecord | None) -> Answer:
            session = sessions.create_session(owner=caller(request), actor=Actor.API, claim=claim, **given)
            return 201, session_body(session)

        return once(request, begin=begin, resume=_created)

    def links(self, data: Any) -> Links:
        """Lead from a page of sessions, or from a new one, to where code runs."""
        if isinstance(data, dict) and "session_id" in data:
            return session_links(data["session_id"])
        rows = data.get("results", ()) if isinstance(data, dict) else ()
        return [(f"{row['session_id'][:8]} · {row['status']}", f"/sessions/{row['session_id']}") for row in rows[:10]]


def _created(record: IdempotencyRecord) -> Answer | None:
    session = record.session
    if session is None or session.status == Session.Status.FAILED:
        return None
    if session.status == Session.Status.PENDING and not sessions.take_up(session, actor=Actor.API):
        raise IdempotencyInProgress("The session of this Idempotency-Key is still being made.")
    return 201, session_body(session)


def session_links(session_id: str) -> Links:
    """Return the ways on from a session."""
    address = f"/sessions/{session_id}"
    return [
        ("Session", address),
        ("Run code in it", f"{address}/execute"),
        ("Its executions", f"{address}/executions"),
        ("Its contexts", f"{address}/contexts"),
        ("What happened to it", f"{address}/events"),
        ("Give it more time", f"{address}/renew"),
    ]


class SessionDetail(ApiView):
    """One session: look at it, change it, end it."""

    name = "Session"
    serializer_class = UpdateSession

    @docs.show_session
    def get(self, request: Request, session_id: str) -> Response:
        """Show."""
        session = own_session(request, session_id)
        if session.is_expired(clock.now()):
            sessions.expire_session(session, actor=Actor.API)
        return Response(session_body(session))

    @docs.update_session
    def patch(self, request: Request, session_id: str) -> Response:
        """Change."""
        given = self.given(request)
        session = own_session(request, session_id)
        session = sessions.update_session(session=session, actor=Actor.API, user=caller(request), **given)
        return Response(session_body(session))

    @docs.end_session
    def delete(self, request: Request, session_id: str) -> Response:
        """End."""
        session = sessions.terminate_session(
            session=own_session(request, session_id), reason=Session.Reason.USER, actor=Actor.API, user=caller(request)
        )
        # Whatever state the row ended in, for the caller there is one end; the reason tells the ends apart.
        reason = session.termination_reason
        return Response({"session_id": str(session.pk), "status": "terminated", "termination_reason": reason})

    def links(self, data: Any) -> Links:
        """Lead to where code runs."""
        return session_links(self.kwargs["session_id"])[1:]


class SessionRenew(ApiView):
    """Start the idle clock of a session again."""

    name = "Renew"
    serializer_class = RenewSession

    @docs.renew_session
    def post(self, request: Request, session_id: str) -> Response:
        """Renew."""
        given = self.given(request)
        session = own_session(request, session_id)
        return Response(
            session_body(sessions.renew_session(session=session, actor=Actor.API, user=caller(request), **given))
        )

    def links(self, data: Any) -> Links:
        """Lead back."""
        return session_links(self.kwargs["session_id"])
