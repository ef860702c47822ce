"""The server itself over HTTP: its health, what it can run, its metrics, and the front page."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from rest_framework.exceptions import PermissionDenied
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.permissions import AllowAny
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from sessions_app.api import docs
from sessions_app.api.bodies import template_body
from sessions_app.exceptions import SandboxwebError
from sessions_app.metrics import CONTENT_TYPE, exposition
from sessions_app.models import ApiKey, SandboxTemplate
from sessions_app.overview import database_answers
from sessions_app.proxy_client import proxy
from sessions_app.services import languages
from sessions_app.services.sessions import DEFAULT_LANGUAGE

HEALTH_LASTS_S = 1.0
SHOWN_OF_PROXY = ("version", "backend", "capabilities", "pool")


class ProxyHealth:
    """Remember for a moment how the proxy was: a health check that is open to all must not be a lever on it."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = threading.Lock()
        self._answer: dict[str, Any] = {}
        self._until = 0.0

    def __call__(self) -> dict[str, Any]:
        """Return `status`, and the backend and pool of a proxy that answers."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._answer = self._ask()
                self._until = time.monotonic() + HEALTH_LASTS_S
            return self._answer

    def forget(self) -> None:
        """Ask anew the next time."""
        self._until = 0.0

    def _ask(self) -> dict[str, Any]:
        try:
            told = proxy().health()
        except SandboxwebError as error:
            return {"status": "unavailable", "detail": error.message}
        kept: dict[str, Any] = {
            name: told[name] for name in ("version", "backend", "capabilities", "pool") if name in told
        }
        return kept | {"status": "ok" if told.get("status") == "ok" else "unavailable"}


proxy_health = ProxyHealth()


def health_now() -> dict[str, Any]:
    """Return how this server and its parts are."""
    try:
        database = {"status": "ok" if database_answers() else "unavailable"}
    except DatabaseError:
        database = {"status": "unavailable"}
    proxied = proxy_health()
    status = "ok" if proxied["status"] == "ok" else "degraded"
    if database["status"] != "ok":
        status = "unavailable"
    return {"status": status, "version": settings.VERSION, "database": database, "proxy": proxied}


class HomeRenderer(BaseRenderer):
    """The front page, for a browser."""

    media_type = "text/html"
    format = "html"
    charset = "utf-8"

    def render(self, data: Any, media_type: str | None = None, context: Any = None) -> bytes:
        """Return the page."""
        request: HttpRequest = context["request"]._request
        page = {"health": data, "origin": f"{request.scheme}://{request.get_host()}"}
        return render(request, "sandboxweb/home.html", page).content


class Health(APIView):
    """How the server is. A browser gets a page with the ways in."""

    name = "Sandboxweb"
    authentication_classes = ()
    permission_classes = (AllowAny,)
    renderer_classes = (JSONRenderer, HomeRenderer)

    @docs.health
    def get(self, request: Request) -> Response:
        """Answer 200 while requests can be served at all: without the proxy, what was run can still be read."""
        health = health_now()
        return Response(health, status=503 if health["status"] == "unavailable" else 200)


class Languages(APIView):
    """The languages that this server can run now: those of the proxy that have a template."""

    name = "Languages"

    @docs.languages
    def get(self, request: Request) -> Response:
        """List."""
        return Response({"languages": languages.languages(), "default": DEFAULT_LANGUAGE})


class Templates(APIView):
    """The templates that sessions are made from."""

    name = "Templates"

    @docs.templates
    def get(self, request: Request) -> Response:
        """List."""
        return Response({"templates": [template_body(template) for template in SandboxTemplate.objects.enabled()]})


class TakeJson(BaseContentNegotiation):
    """Answer errors in JSON, whatever a scraper says it would rather have."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        """Return the first."""
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the first."""
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)


class Metrics(APIView):
    """Numbers of the whole server, for whoever has a key or is of its staff."""

    renderer_classes = (JSONRenderer,)
    content_negotiation_class = TakeJson

    @docs.metrics
    def get(self, request: Request) -> HttpResponse:
        """Expose."""
        if not isinstance(request.auth, ApiKey) and not request.user.is_staff:
            raise PermissionDenied
        return HttpResponse(exposition(), content_type=CONTENT_TYPE)
