"""The contexts of a session over HTTP."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from sessions_app.api import context_docs
from sessions_app.api.bodies import context_body
from sessions_app.api.serializers import CreateContext, Nothing
from sessions_app.api.sessions import Links, session_links
from sessions_app.api.views import ApiView, own_session
from sessions_app.models import Actor
from sessions_app.services import contexts


def context_links(session_id: str, context_id: str) -> Links:
    """Return the ways on from a context."""
    address = f"/sessions/{session_id}/contexts/{context_id}"
    return [("Context", address), ("Interrupt it", f"{address}/interrupt"), ("Restart it", f"{address}/restart")]


class ContextList(ApiView):
    """Interpreters of the session that keep their state between executions."""

    name = "Contexts"
    serializer_class = CreateContext

    @context_docs.list_contexts
    def get(self, request: Request, session_id: str) -> Response:
        """List."""
        found = contexts.list_contexts(session=own_session(request, session_id), actor=Actor.API)
        return Response({"contexts": [context_body(context) for context in found]})

    @context_docs.create_context
    def post(self, request: Request, session_id: str) -> Response:
        """Create."""
        given = self.given(request)
        context = contexts.create_context(session=own_session(request, session_id), actor=Actor.API, **given)
        return Response(context_body(context), status=201)

    def links(self, data: Any) -> Links:
        """Lead to each, and back to the session."""
        session_id = self.kwargs["session_id"]
        rows = data.get("contexts", ()) if isinstance(data, dict) else ()
        own = [(row["context_id"], f"/sessions/{session_id}/contexts/{row['context_id']}") for row in rows]
        return [*session_links(session_id), *own]


class ContextDetail(ApiView):
    """One context."""

    name = "Context"

    @context_docs.show_context
    def get(self, request: Request, session_id: str, context_id: str) -> Response:
        """Show."""
        session = own_session(request, session_id)
        context = contexts.show_context(session=session, context_id=context_id, actor=Actor.API)
        return Response(context_body(context))

    @context_docs.delete_context
    def delete(self, request: Request, session_id: str, context_id: str) -> Response:
        """End."""
        session = own_session(request, session_id)
        contexts.delete_context(session=session, context_id=context_id, actor=Actor.API)
        return Response({"context_id": context_id, "status": "deleted"})

    def links(self, data: Any) -> Links:
        """Lead to what can be done with it."""
        return session_links(self.kwargs["session_id"]) + context_links(**self.kwargs)[1:]


class ContextRestart(ApiView):
    """Give the context a new interpreter; its state is forgotten, and what runs in it ends."""

    name = "Restart"
    serializer_class = Nothing

    @context_docs.restart_context
    def post(self, request: Request, session_id: str, context_id: str) -> Response:
        """Restart."""
        session = own_session(request, session_id)
        context = contexts.restart_context(session=session, context_id=context_id, actor=Actor.API)
        return Response(context_body(context))

    def links(self, data: Any) -> Links:
        """Lead back."""
        return context_links(**self.kwargs)


class ContextInterrupt(ApiView):
    """Interrupt what runs in the context, as Ctrl-C does."""

    name = "Interrupt"
    serializer_class = Nothing

    @context_docs.interrupt_context
    def post(self, request: Request, session_id: str, context_id: str) -> Response:
        """Interrupt."""
        session = own_session(request, session_id)
        interrupted = contexts.interrupt_context(session=session, context_id=context_id, actor=Actor.API)
        return Response({"context_id": context_id, "interrupted": interrupted})

    def links(self, data: Any) -> Links:
        """Lead back."""
        return context_links(**self.kwargs)
