"""The journal of an execution over HTTP: in order, replayed from any number, live."""

from __future__ import annotations

import asyncio
import json
import time
import uuid

from proxy_service.events import dump
from proxy_service.executions import Executions
from tests.proxy_service.conftest import NDJSON, Proxy, eventually, lines


def types(events: list[dict[str, object]]) -> list[object]:
    """Return the kinds of events, in order."""
    return [event["type"] for event in events]


async def test_events_come_in_order_without_a_gap_and_exit_is_the_last(proxy: Proxy, session_id: str) -> None:
    response = await proxy.http.post(
        f"/sessions/{session_id}/execute", json={"code": "print a\nerror b\nexit 3"}, headers=NDJSON
    )
    assert response.headers["content-type"].startswith("application/x-ndjson")
    events = [event for event in lines(response.text) if event["seq"] > 0]
    assert types(events) == ["started", "stdout", "stderr", "exit"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    assert [event["data"] for event in events[1:3]] == ["a\n", "b\n"]
    assert (events[-1]["data"]["exit_code"], events[-1]["data"]["reason"]) == (3, "exited")
    assert all(event["at"] > 0 for event in events)


async def test_output_arrives_while_the_code_still_runs(proxy: Proxy, session_id: str) -> None:
    call = proxy.call("POST", f"/sessions/{session_id}/execute", {"code": "print first\nwait\nprint last"})
    assert await call.status() == 200
    while (line := await call.line() or {})["type"] != "stdout":
        pass
    assert line["data"] == "first\n"
    proxy.backend.go_on.set()
    assert types(await call.lines()) == ["stdout", "exit"]


async def test_the_first_line_of_what_must_wait_says_queued(proxy: Proxy, session_id: str) -> None:
    _, first = await proxy.begin(session_id, "wait")
    call = proxy.call("POST", f"/sessions/{session_id}/execute", {"code": "print second"})
    assert await call.status() == 200
    line = await call.line() or {}
    assert (line["seq"], line["type"]) == (0, "queued")
    proxy.backend.go_on.set()
    assert types(await call.lines()) == ["started", "stdout", "exit"]
    await first


async def test_a_reader_resumes_after_any_number(proxy: Proxy, session_id: str) -> None:
    execution_id = str(uuid.uuid4())
    await proxy.execute(session_id, "print a\nprint b\nprint c", execution_id=execution_id)
    everything = await proxy.events(session_id, execution_id)
    assert [event["seq"] for event in everything] == [1, 2, 3, 4, 5]
    for after in range(5):
        assert await proxy.events(session_id, execution_id, after=after) == everything[after:]
    # Whoever has all of it learns at least that it has ended, and is not kept waiting.
    rest = await asyncio.wait_for(proxy.events(session_id, execution_id, after=99), 5)
    assert types(rest) in ([], ["exit"])


async def test_a_character_that_was_cut_is_whole_for_every_reader(proxy: Proxy, session_id: str) -> None:
    execution_id = str(uuid.uuid4())
    await proxy.execute(session_id, "bytes 41e282\nbytes ac42", execution_id=execution_id)
    events = await proxy.events(session_id, execution_id)
    assert [event["data"] for event in events[1:3]] == ["A", "\u20acB"]
    # A reader that lost its connection in the middle of the character sees no half of it.
    assert (await proxy.events(session_id, execution_id, after=2))[0]["data"] == "\u20acB"


async def test_a_half_character_at_the_end_is_not_swallowed(proxy: Proxy, session_id: str) -> None:
    execution_id = str(uuid.uuid4())
    await proxy.execute(session_id, "bytes 41e282", execution_id=execution_id)
    events = await proxy.events(session_id, execution_id)
    text = "".join(event["data"] for event in events if event["type"] == "stdout")
    assert text.startswith("A\ufffd")
    assert events[-1]["type"] == "exit"


async def test_two_readers_at_the_same_time_see_the_same(proxy: Proxy, session_id: str) -> None:
    execution_id, task = await proxy.begin(session_id, "print a\nwait\nprint b")
    path = f"/sessions/{session_id}/executions/{execution_id}/events"
    calls = [proxy.call("GET", path) for _ in range(2)]
    assert [await call.status() for call in calls] == [200, 200]
    assert [(await call.line() or {})["type"] for call in calls] == ["started", "started"]
    proxy.backend.go_on.set()
    rests = await asyncio.gather(*(call.lines() for call in calls))
    assert types(rests[0]) == ["stdout", "stdout", "exit"]
    assert rests[0] == rests[1]
    await task


async def test_without_following_the_answer_comes_at_once(proxy: Proxy, session_id: str) -> None:
    execution_id, task = await proxy.begin(session_id, "print a\nwait")
    began = time.monotonic()
    for follow in ("false", "0", "False"):
        assert types(await proxy.events(session_id, execution_id, follow=follow)) == ["started", "stdout"]
    assert time.monotonic() - began < 2
    proxy.backend.go_on.set()
    await task
    assert types(await proxy.events(session_id, execution_id, follow="false")) == ["started", "stdout", "exit"]


async def test_without_following_what_has_ended_comes_whole_from_the_journal(proxy: Proxy, session_id: str) -> None:
    script = "\n".join(f"print {number}" for number in range(200))
    execution_id = (await proxy.execute(session_id, script))["execution_id"]
    for _ in range(5):
        events = await proxy.events(session_id, execution_id, follow="false")
        assert (len(events), events[-1]["type"]) == (202, "exit")


async def test_without_following_what_is_queued_has_no_end_yet(proxy: Proxy, session_id: str) -> None:
    _, first = await proxy.begin(session_id, "wait")
    queued, second = await proxy.queue(session_id, "print b")
    events = await asyncio.wait_for(proxy.events(session_id, queued, follow="false"), 5)
    assert types(events) in ([], ["queued"])
    proxy.backend.go_on.set()
    await asyncio.gather(first, second)


async def test_an_unknown_execution_is_a_404_and_no_reader_hangs(proxy: Proxy, session_id: str) -> None:
    for query in ("", "?follow=false", "?after=3"):
        path = f"/sessions/{session_id}/executions/{uuid.uuid4()}/events{query}"
        response = await asyncio.wait_for(proxy.http.get(path), 5)
        assert (response.status_code, response.json()["error"]) == (404, "unknown_execution")


async def test_an_unknown_execution_is_a_404_while_another_one_runs(proxy: Proxy, session_id: str) -> None:
    _, task = await proxy.begin(session_id, "wait")
    path = f"/sessions/{session_id}/executions/{uuid.uuid4()}/events"
    assert (await asyncio.wait_for(proxy.http.get(path), 5)).status_code == 404
    proxy.backend.go_on.set()
    await task


async def test_what_was_forgotten_here_comes_from_the_sandbox_s_journal(proxy: Proxy, session_id: str) -> None:
    execution_id = str(uuid.uuid4())
    await proxy.execute(session_id, "print kept", execution_id=execution_id)
    for _ in range(20):
        await proxy.execute(session_id, "print other")
    assert types(await proxy.events(session_id, execution_id)) == ["started", "stdout", "exit"]


async def test_a_lost_execution_s_events_end_with_a_word_about_it(proxy: Proxy, session_id: str) -> None:
    response = await proxy.http.post(
        f"/sessions/{session_id}/execute", json={"code": "print partly\ndie"}, headers=NDJSON
    )
    events = [event for event in lines(response.text) if event["seq"] > 0]
    assert types(events) == ["started", "stdout", "exit"]
    assert events[-1]["data"]["reason"] == "lost"
    assert [event["seq"] for event in events] == [1, 2, 3]


async def test_readers_of_a_session_that_ends_are_not_left_waiting(proxy: Proxy, session_id: str) -> None:
    execution_id, task = await proxy.begin(session_id, "print a\nwait")
    call = proxy.call("GET", f"/sessions/{session_id}/executions/{execution_id}/events")
    assert await call.status() == 200
    await proxy.http.delete(f"/sessions/{session_id}")
    events = await call.lines()
    assert events[-1]["type"] == "exit"
    assert events[-1]["data"]["reason"] in ("cancelled", "lost")
    await task


async def test_a_reader_of_a_journal_that_is_read_again_is_let_go_when_the_session_ends(
    proxy: Proxy, session_id: str
) -> None:
    # As after a restart: it runs in the sandbox, and this proxy holds nothing of it.
    sandbox = proxy.sandbox(session_id)
    execution_id, task = await proxy.begin(session_id, "print a\nwait")
    elsewhere = Executions(sandbox, max_waiting=1)
    revived = elsewhere.find(execution_id)
    await eventually(lambda: revived.transcript.last_seq == 2)
    await elsewhere.stop()
    await asyncio.wait_for(revived.wait(), 5)
    assert elsewhere.find(execution_id) is not revived
    await elsewhere.stop()
    proxy.backend.go_on.set()
    await task


def test_no_value_of_a_sandbox_stops_a_stream() -> None:
    for value in ({"a": "\ud800"}, {"a": float("inf")}, {"\udfff": [float("nan"), "\ud83d"]}):
        assert b"NaN" not in dump(value)
        assert isinstance(json.loads(dump(value)), dict)


async def test_thousands_of_tiny_pieces_stay_in_order(proxy: Proxy, session_id: str) -> None:
    execution_id = str(uuid.uuid4())
    result = await proxy.execute(session_id, "bytes 41\n" * 2000, execution_id=execution_id)
    assert result["stdout"] == "A" * 2000
    assert [event["seq"] for event in await proxy.events(session_id, execution_id)] == list(range(1, 2003))
