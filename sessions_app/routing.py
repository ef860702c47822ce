"""The WebSockets' addresses."""

from __future__ import annotations

from django.urls import path, re_path

from sessions_app.consumers import NowhereConsumer, SessionConsumer

websocket_urlpatterns = [
    path("ws/sessions/<str:session_id>", SessionConsumer.as_asgi()),
    re_path(r"", NowhereConsumer.as_asgi()),
]
