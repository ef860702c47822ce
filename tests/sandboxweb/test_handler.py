"""The ASGI handler: what Django's own does, in one hop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from sandboxweb.handler import ThreadedHandler

closed: list[str] = []
gates: dict[str, threading.Barrier] = {}


class Response(HttpResponse):
    def close(self) -> None:
        super().close()
        closed.append("plain")


@csrf_exempt
def plain(request: HttpRequest) -> HttpResponse:
    return Response(request.body, headers={"X-Thread": str(threading.get_ident())})


def together(request: HttpRequest) -> HttpResponse:
    gates["all"].wait(timeout=10)
    return HttpResponse("here")


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("swordfish")


async def asynchronous(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return JsonResponse({"path": request.path})


async def _count(stop: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    try:
        for number in range(3):
            yield str(number).encode()
        if stop is not None:
            await asyncio.sleep(60)
    finally:
        closed.append("stream")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_count())


def endless(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_count(asyncio.Event()))


urlpatterns = [
    path("plain", plain),
    path("together", together),
    path("broken", broken),
    path("asynchronous", asynchronous),
    path("stream", stream),
    path("endless", endless),
]
handler500 = "sessions_app.api.plain.server_error"


class Exchange:
    """One request and what was sent for it; the client hangs up when told to."""

    def __init__(self, where: str, body: bytes = b"", method: str = "GET") -> None:
        self.scope = {
            "type": "http",
            "method": method,
            "path": where,
            "query_string": b"",
            "headers": [(b"host", b"testserver"), (b"content-length", str(len(body)).encode())],
            "http_version": "1.1",
        }
        self.incoming = [{"type": "http.request", "body": body[:4], "more_body": True}]
        self.incoming.append({"type": "http.request", "body": body[4:], "more_body": False})
        self.hung_up = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self.incoming:
            return self.incoming.pop(0)
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


@pytest.fixture(autouse=True)
def _here() -> Any:
    closed.clear()
    with override_settings(ROOT_URLCONF=__name__):
        yield


@pytest.fixture
def handler() -> ThreadedHandler:
    """A handler of its own."""
    return ThreadedHandler()


async def ask(handler: ThreadedHandler, where: str, body: bytes = b"", method: str = "GET") -> Exchange:
    """Send one request and wait for the end of its answer."""
    exchange = Exchange(where, body, method)
    await handler(exchange.scope, exchange.receive, exchange.send)
    return exchange


async def test_a_request_is_answered_and_closed(handler: ThreadedHandler) -> None:
    exchange = await ask(handler, "/plain", b"hello world", "POST")
    assert (exchange.status, exchange.body) == (200, b"hello world")
    assert closed == ["plain"]


async def test_a_view_runs_off_the_event_loop(handler: ThreadedHandler) -> None:
    exchange = await ask(handler, "/plain")
    headers = dict(exchange.sent[0]["headers"])
    assert int(headers[b"X-Thread"]) != threading.get_ident()


async def test_requests_run_beside_each_other(handler: ThreadedHandler) -> None:
    gates["all"] = threading.Barrier(20)
    exchanges = await asyncio.gather(*(ask(handler, "/together") for _ in range(20)))
    assert {exchange.body for exchange in exchanges} == {b"here"}


async def test_an_asynchronous_view_works(handler: ThreadedHandler) -> None:
    assert (await ask(handler, "/asynchronous")).body == b'{"path": "/asynchronous"}'


async def test_a_fault_is_500_without_a_trace(handler: ThreadedHandler) -> None:
    exchange = await ask(handler, "/broken")
    assert exchange.status == 500
    assert b"swordfish" not in exchange.body


async def test_a_stream_comes_in_pieces_and_is_closed(handler: ThreadedHandler) -> None:
    exchange = await ask(handler, "/stream")
    assert exchange.body == b"012"
    assert len(exchange.sent) > 3
    assert closed == ["stream"]


async def test_a_stream_ends_when_its_client_hangs_up(handler: ThreadedHandler) -> None:
    exchange = Exchange("/endless")
    answering = asyncio.ensure_future(handler(exchange.scope, exchange.receive, exchange.send))
    async with asyncio.timeout(10):
        while exchange.body != b"012":
            await asyncio.sleep(0)
        exchange.hung_up.set()
        await answering
    assert closed == ["stream"]


async def test_a_client_that_leaves_before_its_body_came_is_no_request(handler: ThreadedHandler) -> None:
    exchange = Exchange("/plain")
    exchange.incoming = [{"type": "http.disconnect"}]
    await handler(exchange.scope, exchange.receive, exchange.send)
    assert exchange.sent == []
