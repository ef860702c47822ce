"""All that happens in a session as one stream, and standard input for code that runs."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from proxy_service import watching
from proxy_service.backends.fake import FakeBackend
from proxy_service.settings import Settings
from tests.proxy_service.asgi import Call
from tests.proxy_service.conftest import Proxy, eventually, running


class Watch:
    """A watcher of a session."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.heard: list[tuple[str, int, str]] = []

    async def until(self, kind: str, times: int = 1) -> list[tuple[str, int, str]]:
        """Read on until events of a kind came that many times; return all that was heard since the last time."""
        heard: list[tuple[str, int, str]] = []
        while sum(event[2] == kind for event in heard) < times:
            told = await self.call.line()
            assert told is not None, f"the stream ended after {heard}"
            heard.append((str(told.get("execution_id", "")), int(told["seq"]), str(told["type"])))
        self.heard += heard
        return heard


def watch(proxy: Proxy, session_id: str, since: str = "") -> Watch:
    """Watch a session."""
    return Watch(proxy.call("GET", f"/sessions/{session_id}/events", query=f"since={since}" if since else ""))


async def send(proxy: Proxy, session_id: str, execution_id: str, data: bytes, **params: Any) -> tuple[int, Any]:
    """Send standard input; return status and answer."""
    path = f"/sessions/{session_id}/executions/{execution_id}/stdin"
    response = await proxy.http.post(path, content=data, params=params)
    return response.status_code, response.json()


# --- Watching --------------------------------------------------------------------------------------------------------


async def test_all_watchers_see_every_event_of_every_execution_in_order(proxy: Proxy, session_id: str) -> None:
    watchers = [watch(proxy, session_id) for _ in range(3)]
    for watcher in watchers:
        assert await watcher.call.status() == 200
    first = (await proxy.execute(session_id, "print a\nprint b"))["execution_id"]
    second = (await proxy.execute(session_id, "print c"))["execution_id"]
    heard = [await watcher.until("exit", 2) for watcher in watchers]
    assert heard[0] == [
        *((first, seq, kind) for seq, kind in enumerate(("started", "stdout", "stdout", "exit"), start=1)),
        *((second, seq, kind) for seq, kind in enumerate(("started", "stdout", "exit"), start=1)),
    ]
    assert heard[1] == heard[2] == heard[0]


async def test_who_comes_later_sees_what_runs_from_its_beginning(proxy: Proxy, session_id: str) -> None:
    before = (await proxy.execute(session_id, "print before"))["execution_id"]
    execution_id, result = await proxy.begin(session_id, "print a\nwait")
    watcher = watch(proxy, session_id)
    assert await watcher.until("place") == [(before, 0, "place")]
    assert await watcher.until("stdout") == [(execution_id, 1, "started"), (execution_id, 2, "stdout")]
    proxy.backend.go_on.set()
    await result
    assert await watcher.until("exit") == [(execution_id, 3, "exit")]


async def test_a_watcher_goes_on_after_the_last_event_that_it_had(proxy: Proxy, session_id: str) -> None:
    first = (await proxy.execute(session_id, "print a"))["execution_id"]
    second = (await proxy.execute(session_id, "print b"))["execution_id"]
    third, result = await proxy.begin(session_id, "print c\nwait")
    watcher = watch(proxy, session_id, since=f"{first}:2")
    proxy.backend.go_on.set()
    await result
    heard = await watcher.until("exit", 3)
    assert heard[0] == (first, 3, "exit")
    assert [key for key, _, kind in heard if kind == "started"] == [second, third]


async def test_a_watcher_goes_on_behind_another_proxy(settings: Settings, backend: FakeBackend) -> None:
    async with running(settings, backend) as proxy:
        session_id = await proxy.session()
        first = (await proxy.execute(session_id, "print a"))["execution_id"]
        second, result = await proxy.begin(session_id, "print b\nwait")
    await asyncio.gather(result, return_exceptions=True)  # its proxy has stopped
    async with running(settings, backend) as proxy:
        watcher = watch(proxy, session_id, since=f"{first}:1")
        await watcher.until("exit")
        assert (await watcher.until("stdout"))[-1] == (second, 2, "stdout")
        backend.go_on.set()
        assert (await watcher.until("exit"))[-1] == (second, 3, "exit")


async def test_a_watcher_whose_place_is_unknown_is_told_of_the_gap(proxy: Proxy, session_id: str) -> None:
    watcher = watch(proxy, session_id, since=f"{uuid.uuid4()}:7")
    assert await watcher.until("gap") == [("", 0, "gap")]


async def test_what_is_cancelled_in_the_queue_is_told_too(proxy: Proxy, session_id: str) -> None:
    running_id, result = await proxy.begin(session_id, "wait")
    waiting_id, waiting = await proxy.queue(session_id, "print never")
    watcher = watch(proxy, session_id)
    await watcher.until("started")
    await proxy.http.delete(f"/sessions/{session_id}/executions/{waiting_id}")
    await waiting
    proxy.backend.go_on.set()
    await result
    heard = await watcher.until("exit", 2)
    assert heard == [(running_id, 2, "exit"), (waiting_id, 1, "exit")]


async def test_a_watcher_that_does_not_read_is_let_go(
    proxy: Proxy, session_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MAX_BEHIND", 3)
    watcher = watching.Watcher()
    for _ in range(5):
        watcher.add(await proxy_execution(proxy, session_id))
    assert watcher.closed


async def proxy_execution(proxy: Proxy, session_id: str) -> Any:
    """Run something; return the proxy's own object for it."""
    execution_id = (await proxy.execute(session_id, "print x"))["execution_id"]
    return proxy.app.state.service.sessions.find_execution(session_id, execution_id)


async def test_the_stream_ends_with_the_session(proxy: Proxy, session_id: str) -> None:
    execution_id, result = await proxy.begin(session_id, "wait")
    watcher = watch(proxy, session_id)
    await watcher.until("started")
    await proxy.http.delete(f"/sessions/{session_id}")
    assert await watcher.until("exit") == [(execution_id, 2, "exit")]
    assert await watcher.call.line() is None
    await result


@pytest.mark.parametrize("since", ["x", "a:", ":1", "a:-1", "a:1:2", "a:" + "9" * 20])
async def test_a_bad_place_names_itself(proxy: Proxy, session_id: str, since: str) -> None:
    answer = await proxy.http.get(f"/sessions/{session_id}/events", params={"since": since})
    assert (answer.status_code, answer.json()["field"]) == (400, "since")


async def test_an_unknown_session_cannot_be_watched(proxy: Proxy) -> None:
    assert (await proxy.http.get(f"/sessions/{uuid.uuid4()}/events")).status_code == 404


# --- Standard input --------------------------------------------------------------------------------------------------


async def test_input_reaches_code_while_it_runs(proxy: Proxy, session_id: str) -> None:
    execution_id, result = await proxy.begin(session_id, "read\nread\nread", stdin_stream=True)
    for data in (b"one\n", b"two\n"):
        assert await send(proxy, session_id, execution_id, data) == (
            200,
            {"execution_id": execution_id, "unread_bytes": 0, "eof": False},
        )
    assert (await send(proxy, session_id, execution_id, b"", eof="true"))[1]["eof"] is True
    assert (await result)["stdout"] == "one\ntwo\nend\n"


async def test_input_for_what_does_not_read_is_refused(proxy: Proxy, session_id: str) -> None:
    execution_id, result = await proxy.begin(session_id, "wait")
    status, body = await send(proxy, session_id, execution_id, b"x")
    assert (status, body["error"]) == (409, "stdin_closed")
    waiting_id, waiting = await proxy.queue(session_id, "read", stdin_stream=True)
    status, body = await send(proxy, session_id, waiting_id, b"x")
    assert (status, "has not begun" in body["detail"]) == (409, True)
    await proxy.http.delete(f"/sessions/{session_id}/executions/{waiting_id}")
    proxy.backend.go_on.set()
    await asyncio.gather(result, waiting)
    for ended in (execution_id, waiting_id):
        status, body = await send(proxy, session_id, ended, b"x")
        assert (status, body["detail"]) == (409, "The execution has ended.")
    status, body = await send(proxy, session_id, str(uuid.uuid4()), b"x")
    assert (status, body["error"]) == (404, "unknown_execution")


async def test_input_that_comes_before_the_code_has_begun_waits_for_it(proxy: Proxy, session_id: str) -> None:
    execution_id = str(uuid.uuid4())
    body = {"execution_id": execution_id, "stdin_stream": True}
    result = asyncio.create_task(proxy.execute(session_id, "read", **body))
    service = proxy.app.state.service
    await eventually(lambda: service.sessions.get(session_id).executions.live, what="the execution")
    assert (await send(proxy, session_id, execution_id, b"early"))[0] == 200
    assert (await result)["stdout"] == "early"
