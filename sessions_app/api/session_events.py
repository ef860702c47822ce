"""What happened to a session, over HTTP."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from sessions_app.api import docs
from sessions_app.api.bodies import session_event_body
from sessions_app.api.pagination import Pages
from sessions_app.api.sessions import Links, session_links
from sessions_app.api.views import ApiView, own_session


class SessionEvents(ApiView):
    """Everything that happened to the session, its approaching end included; the newest first."""

    name = "Events"
    pagination_class = Pages

    @docs.session_events
    def get(self, request: Request, session_id: str) -> Response:
        """List."""
        events = own_session(request, session_id).events.order_by("-created_at", "-id")
        page = self.paginate_queryset(events)
        return self.get_paginated_response([session_event_body(event) for event in page or ()])

    def links(self, data: Any) -> Links:
        """Lead back to the session."""
        return session_links(self.kwargs["session_id"])
