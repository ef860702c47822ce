"""The proxy's streams: what comes, and what may go wrong with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from sessions_app import proxy_streams
from sessions_app.exceptions import ExecutionUnknown, ProxyUnavailable, ProxyUnreachable, SandboxMissing
from sessions_app.proxy_client import ProxyClient, using


class Pieces(httpx.AsyncByteStream):
    """An answer in pieces; an exception among them breaks it off."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


@contextmanager
def answering(answer: httpx.Response | Exception) -> Iterator[list[httpx.Request]]:
    """Put a proxy in place that answers everything alike; yield what it is asked."""
    asked: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with using(ProxyClient("http://proxy.test", "token", transport=httpx.MockTransport(respond))):
        yield asked


async def read() -> list[list[tuple[Any, ...]]]:
    """Return the batches of a stream, each event as number, type and execution."""
    found = proxy_streams.events("a", "b", after=7)
    return [[(event.seq, event.type, event.execution_id) for event in batch] async for batch in found]


async def test_events_are_whole_wherever_a_piece_ends() -> None:
    pieces = (b'{"seq":8,"ty', b'pe":"stdout","data":"x"}\n\n{"seq":9,"type":"exit","execution_id":"e"}', b"\n", b"\n")
    with answering(httpx.Response(200, stream=Pieces(*pieces))) as asked:
        assert await read() == [[], [(8, "stdout", "")], [(9, "exit", "e")], []]
    assert asked[0].url.path == "/sessions/a/executions/b/events"
    assert dict(asked[0].url.params) == {"after": "7"}
    assert asked[0].headers["Authorization"] == "Bearer token"


BROKEN: dict[str, tuple[httpx.Response | Exception, type[Exception]]] = {
    "nobody listens": (httpx.ConnectError("refused"), ProxyUnreachable),
    "the connection breaks": (httpx.Response(200, stream=Pieces(b"\n", httpx.ReadError("reset"))), ProxyUnavailable),
    "silence": (httpx.Response(200, stream=Pieces(httpx.ReadTimeout("silence"))), ProxyUnavailable),
    "no JSON": (httpx.Response(200, stream=Pieces(b"nonsense\n")), ProxyUnavailable),
    "no number": (httpx.Response(200, stream=Pieces(b'{"type":"stdout"}\n')), ProxyUnavailable),
    "no event": (httpx.Response(200, stream=Pieces(b"[]\n")), ProxyUnavailable),
    "an unknown execution": (httpx.Response(404, json={"error": "unknown_execution"}), ExecutionUnknown),
    "an unknown session": (httpx.Response(404, json={"error": "unknown_session"}), SandboxMissing),
    "it stops": (httpx.Response(503, json={"error": "shutting_down", "detail": "x"}), ProxyUnavailable),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_goes_wrong_is_the_app_s_own_exception(what: str) -> None:
    answer, expected = BROKEN[what]
    with answering(answer), pytest.raises(expected):
        await read()


async def test_a_line_without_an_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_streams, "MAX_LINE_BYTES", 100)
    with answering(httpx.Response(200, stream=Pieces(*[b"x" * 60] * 3))), pytest.raises(ProxyUnavailable):
        await read()


async def test_a_session_s_stream_names_its_place() -> None:
    for since, params in ((None, {}), ("e:3", {"since": "e:3"})):
        with answering(httpx.Response(200, stream=Pieces(b"\n"))) as asked:
            assert [batch async for batch in proxy_streams.session_events("a", since=since)] == [[]]
        assert (asked[0].url.path, dict(asked[0].url.params)) == ("/sessions/a/events", params)
