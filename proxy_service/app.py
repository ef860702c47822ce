"""The proxy's ASGI application."""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy_service import __version__
from proxy_service.backends.base import Backend
from proxy_service.errors import NotFound, ProxyError, Unauthorized, http_body, http_headers, http_status
from proxy_service.routes import ROUTES
from proxy_service.routes_contexts import ROUTES as CONTEXT_ROUTES
from proxy_service.routes_files import FILE_ROUTES
from proxy_service.routes_streams import STREAM_ROUTES
from proxy_service.service import Service
from proxy_service.settings import Settings

log = logging.getLogger(__name__)


class BearerToken:
    """Let a request in that bears the token; the health check needs none."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        if scope["type"] == "http" and scope["path"] != "/":
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not hmac.compare_digest(given, self._expected):
                error = Unauthorized("Send the proxy's token: Authorization: Bearer $PROXY_TOKEN.")
                await _answer(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _answer(error: ProxyError) -> JSONResponse:
    return JSONResponse(http_body(error), status_code=http_status(error), headers=http_headers(error))


async def _on_proxy_error(_: Request, error: Exception) -> JSONResponse:
    return _answer(error if isinstance(error, ProxyError) else ProxyError("The proxy failed."))


async def _on_http_error(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException) and error.status_code != 404:
        body = {"error": "method_not_allowed" if error.status_code == 405 else "http", "detail": str(error.detail)}
        return JSONResponse(body, status_code=error.status_code, headers=error.headers)
    return _answer(NotFound("There is nothing at this path."))


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": "internal", "detail": "The proxy failed; its log says why."}, status_code=500)


def create_app(settings: Settings, backend: Backend | None = None) -> FastAPI:
    """Return the application; the backend starts and ends with its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = Service(settings, backend)
        await app.state.service.start()
        yield
        await app.state.service.stop()

    app = FastAPI(
        title="Sandboxweb proxy",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        routes=[*ROUTES, *FILE_ROUTES, *CONTEXT_ROUTES, *STREAM_ROUTES],
    )
    app.add_exception_handler(ProxyError, _on_proxy_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)
    app.add_middleware(BearerToken, token=settings.token)
    return app
