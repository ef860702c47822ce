"""Django's ASGI handler, with one hop to a thread a request.

Django's own hands a request from the event loop to a thread and back once for every middleware, signal and view, and
starts a thread, and so a database connection, for each request. Here everything synchronous about a request runs in
one call on a thread that lives on; that is worth more milliseconds than all that our views do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.db import close_old_connections
from django.http.response import HttpResponseBase, StreamingHttpResponse
from django.urls import set_script_prefix

from sandboxweb.threads import DaemonThreads

BODY = "sandboxweb.body"
"""The key of a scope under which the server put a body that lies in a file."""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class ThreadedHandler(ASGIHandler):
    """Serve every request on one of `settings.APP_THREADS` threads, started as they are needed."""

    def __init__(self) -> None:
        """Load the middleware once, as one synchronous chain."""
        BaseHandler.__init__(self)
        self.load_middleware(is_async=False)
        # asgiref takes any executor, though its types say otherwise.
        self.threads = cast(ThreadPoolExecutor, DaemonThreads(settings.APP_THREADS, name="request"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            # A large body lies in a file already; what comes of `receive` is the news that the client hung up.
            body = scope.get(BODY) or await self.read_body(receive)
        except RequestAborted:
            return
        try:
            response = await sync_to_async(self._respond, thread_sensitive=False, executor=self.threads)(scope, body)
            if isinstance(response, StreamingHttpResponse):
                await self._stream(response, receive, send)
            else:
                await self.send_response(response, send)
        finally:
            body.close()

    def _respond(self, scope: Scope, body: Any) -> HttpResponseBase:
        """Run the request from its first signal to its last; a stream's last comes when it has been sent."""
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=self.__class__, scope=scope)
        request, refusal = self.create_request(scope, body)
        response = cast(HttpResponseBase, self.get_response(request) if request is not None else refusal)
        response._handler_class = self.__class__  # type: ignore[attr-defined]
        if response.streaming:
            # The stream's last signal comes on another thread: this one gives its connection back here.
            close_old_connections()
        else:
            response.close()
        return response

    async def _stream(self, response: StreamingHttpResponse, receive: Receive, send: Send) -> None:
        """Send a stream until it ends or the client hangs up."""
        sending = asyncio.ensure_future(self.send_response(response, send))
        listening = asyncio.ensure_future(self._hung_up(receive))
        try:
            await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
            if not sending.done():
                sending.cancel()
            await asyncio.gather(sending, listening, return_exceptions=True)
            await sync_to_async(response.close, thread_sensitive=False, executor=self.threads)()
        if not sending.cancelled() and (error := sending.exception()) is not None:
            # The server breaks the answer off.
            raise error

    async def _hung_up(self, receive: Receive) -> None:
        """Return when the client is gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
