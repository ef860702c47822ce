"""The client's answers to whatever a proxy or a network may do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from sessions_app import exceptions
from sessions_app.proxy_client import ProxyClient


def client(handler: Callable[[httpx.Request], httpx.Response]) -> ProxyClient:
    return ProxyClient("http://proxy.test", "secret-token", transport=httpx.MockTransport(handler))


def answering(status: int, **values: Any) -> ProxyClient:
    return client(lambda _request: httpx.Response(status, **values))


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, {"error": "unknown_session", "detail": "d"}, exceptions.SandboxMissing),
        (404, {"error": "unknown_execution", "detail": "d"}, exceptions.ExecutionUnknown),
        # Not the proxy's own words (another server at its address): no sandbox is lost by that.
        (404, {"detail": "Not Found"}, exceptions.ProxyUnavailable),
        (400, {"error": "invalid", "detail": "d", "field": "code"}, exceptions.InvalidInput),
        (409, {"error": "conflict", "detail": "d"}, exceptions.InvalidInput),
        (413, {"error": "too_large", "detail": "d", "field": "code"}, exceptions.TooLarge),
        (422, {"error": "library_error", "detail": "d", "field": "libraries"}, exceptions.Unsupported),
        (429, {"error": "too_many_waiting", "detail": "d"}, exceptions.QueueFull),
        (502, {"error": "sandbox_broken", "detail": "d"}, exceptions.SandboxFailed),
        (503, {"error": "unavailable", "detail": "d"}, exceptions.ProxyUnavailable),
        (401, {"error": "unauthorized", "detail": "d"}, exceptions.ProxyUnavailable),
        (500, ["not", "an", "object"], exceptions.ProxyUnavailable),
        (500, None, exceptions.ProxyUnavailable),
    ],
)
def test_each_refusal_is_an_exception_of_ours(status: int, body: Any, error: type[Exception]) -> None:
    proxy = answering(status, text="<html>") if body is None else answering(status, json=body)
    with pytest.raises(error) as caught:
        proxy.execute("s", {"code": "1"}, wait_s=1)
    assert type(caught.value) is error


def test_the_token_goes_with_every_request_and_never_into_a_message() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(401, json={"error": "unauthorized", "detail": "no"})

    with pytest.raises(exceptions.ProxyUnavailable) as caught:
        client(handler).health()
    assert seen == ["Bearer secret-token"]
    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize("body", ["", "{", "[]", '"ok"'])
def test_a_success_that_is_no_object_is_a_failure(body: str) -> None:
    with pytest.raises(exceptions.ProxyUnavailable):
        answering(200, text=body).health()


def test_when_to_come_back_is_passed_on() -> None:
    with pytest.raises(exceptions.ProxyUnavailable) as caught:
        answering(503, json={"detail": "busy"}, headers={"Retry-After": "7"}).health()
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    ("failures", "error"),
    [
        ([httpx.ReadError], None),
        ([httpx.RemoteProtocolError], None),
        ([httpx.ReadError, httpx.ReadError], exceptions.ProxyUnavailable),
        ([httpx.ReadError, httpx.ConnectError], exceptions.ProxyUnavailable),
        ([httpx.ConnectError], exceptions.ProxyUnreachable),
        ([httpx.ConnectTimeout], exceptions.ProxyUnreachable),
        ([httpx.ReadTimeout], exceptions.ProxyUnavailable),
    ],
)
def test_only_what_certainly_never_arrived_is_called_so(
    failures: list[type[httpx.TransportError]], error: type[Exception] | None
) -> None:
    left = list(failures)

    def handler(request: httpx.Request) -> httpx.Response:
        if left:
            raise left.pop(0)("x", request=request)
        return httpx.Response(200, json={"status": "ok"})

    if error is None:
        assert client(handler).health() == {"status": "ok"}
        return
    with pytest.raises(error) as caught:
        client(handler).health()
    assert type(caught.value) is error


def test_that_a_sandbox_is_gone_already_is_as_good() -> None:
    answering(404, json={"error": "unknown_session", "detail": "d"}).delete_session("s")


def test_blank_lines_of_a_stream_are_skipped() -> None:
    text = '\n{"seq":1,"type":"started"}\n\n\n{"seq":2,"type":"exit","data":{}}\n'
    assert [event["seq"] for event in answering(200, text=text).events("s", "e")] == [1, 2]


class Breaking(httpx.SyncByteStream):
    """A stream that breaks after its first event."""

    def __iter__(self) -> Iterator[bytes]:
        yield b'{"seq":1,"type":"stdout","data":"x"}\n'
        raise httpx.ReadTimeout("silence")


def test_a_journal_that_does_not_end_is_what_was_read_of_it() -> None:
    events = answering(200, stream=Breaking()).journal("s", "e")
    assert [event["data"] for event in events] == ["x"]


def test_a_stream_that_breaks_says_so() -> None:
    stream = answering(200, stream=Breaking()).events("s", "e")
    assert next(stream)["data"] == "x"
    with pytest.raises(exceptions.ProxyUnavailable):
        next(stream)


def test_a_session_that_is_listed_without_an_item_is_listed() -> None:
    listed = answering(200, json={"sessions": ["a", "b"], "items": [{"session_id": "b", "x": 1}]}).list_sessions()
    assert listed == [{"session_id": "a"}, {"session_id": "b", "x": 1}]


def test_a_port_that_nobody_listens_at_is_known_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(exceptions.ProxyUnreachable):
        ProxyClient("http://127.0.0.1:9", "t").health()
    assert time.monotonic() - started < 1.5
