"""Events of executions: as JSON, and as they come."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from django.test import AsyncClient

from sessions_app.api import streams
from sessions_app.api.bodies import result_body
from sessions_app.models import ApiKey, Execution, Session
from sessions_app.services import following
from sessions_app.services.executions import complete_execution, submit_execution
from sessions_app.services.following import journal_of, kept_events
from tests.sessions_app.api.conftest import Caller, errors
from tests.sessions_app.fake_proxy import FakeProxy


@pytest.fixture
def ended(session: Session) -> Execution:
    """An execution that has ended."""
    return complete_execution(submit_execution(session=session, code="print(1)", actor="api"), actor="api")


def kinds(events: Any) -> list[tuple[int, str]]:
    """Return number and type of each event."""
    return [(event["seq"], event["type"]) for event in events]


@pytest.mark.django_db
def test_what_was_kept_comes_as_json(api: Caller, ended: Execution) -> None:
    events = api.get(f"/executions/{ended.pk}/events").json()["events"]
    assert kinds(events) == [(1, "started"), (2, "stdout"), (3, "exit")]
    assert events[1]["data"] == "ran print(1)\n"
    assert (events[2]["data"]["exit_code"], events[2]["data"]["status"]) == (0, "succeeded")


@pytest.mark.django_db
def test_what_still_runs_shows_what_it_did_so_far(api: Caller, running: Execution, proxy: FakeProxy) -> None:
    proxy.execution(running).say("stdout", "a")
    path = f"/executions/{running.pk}/events"
    assert kinds(api.get(path).json()["events"]) == [(1, "started"), (2, "stdout")]
    assert kinds(api.get(f"{path}?after=1").json()["events"]) == [(2, "stdout")]


@pytest.mark.django_db
def test_what_still_runs_behind_a_proxy_that_is_away_is_said_so(
    api: Caller, running: Execution, proxy: FakeProxy
) -> None:
    proxy.away = True
    assert api.get(f"/executions/{running.pk}/events").status_code == 503


@pytest.mark.django_db
def test_anothers_events_are_unknown(stranger: Caller, ended: Execution) -> None:
    for accept in ("application/json", "text/event-stream"):
        answer = stranger.get(f"/executions/{ended.pk}/events", Accept=accept)
        assert (answer.status_code, errors(answer)) == (404, [("not_found", None)])


@pytest.mark.django_db
@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 30, "\u0661"])
def test_a_bad_number_names_itself(api: Caller, ended: Execution, after: str) -> None:
    answer = api.client.get(f"/executions/{ended.pk}/events", {"after": after}, headers=api.headers)
    assert (answer.status_code, errors(answer)) == (400, [("invalid", "after")])


@pytest.mark.django_db
def test_reading_to_the_end_settles_the_execution(running: Execution, proxy: FakeProxy) -> None:
    fake = proxy.execution(running)
    fake.say("stdout", "a")
    fake.say("stdout", "b")
    fake.end()
    assert kinds(journal_of(running, actor="api")) == [(1, "started"), (2, "stdout"), (3, "stdout"), (4, "exit")]
    running.refresh_from_db()
    assert (running.status, running.stdout) == ("succeeded", "ab")


@pytest.mark.django_db
def test_without_its_sandbox_what_was_kept_comes(ended: Execution, proxy: FakeProxy) -> None:
    proxy.sandboxes.clear()
    assert kinds(journal_of(ended, actor="api")) == [(1, "started"), (2, "stdout"), (3, "exit")]


@pytest.mark.django_db
def test_whoever_saw_some_of_it_gets_no_output_twice_and_is_told_of_the_gap(ended: Execution) -> None:
    ended.last_seq = 40
    assert [event[:2] for event in kept_events(ended, 0)] == [(38, "started"), (39, "stdout"), (40, "exit")]
    assert [event[:2] for event in kept_events(ended, 7)] == [(0, "gap"), (40, "exit")]
    assert json.loads(kept_events(ended, 7)[0].raw)["data"]["events"] == 32
    assert [event[:2] for event in kept_events(ended, 39)] == [(40, "exit")]
    assert kept_events(ended, 40) == []


@pytest.fixture
def key(session: Session) -> str:
    """The owner's key."""
    return str(ApiKey.objects.create_key(owner=session.owner, name="test")[1])


async def stream(key: str, path: str, body: Any = None, **headers: str) -> list[dict[str, str]]:
    """Return the messages of a stream, field by field."""
    sent = {"Accept": "text/event-stream", "X-API-Key": key, **headers}
    client = AsyncClient()
    if body is None:
        answer = await client.get(path, headers=sent)
    else:
        answer = await client.post(path, body, content_type="application/json", headers=sent)
    assert answer.status_code == 200, answer.content
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-cache, no-transform", "no")
    text = b"".join([part async for part in answer.streaming_content]).decode()  # type: ignore[union-attr]
    messages = [message for message in text.removesuffix("\n\n").split("\n\n") if not message.startswith(":")]
    return [dict(line.split(": ", 1) for line in message.split("\n")) for message in messages]


def names(messages: list[dict[str, str]]) -> list[str]:
    """Return the types of a stream's messages."""
    return [message["event"] for message in messages]


in_threads = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@in_threads
async def test_a_stream_is_what_a_browser_reads_and_takes_up_again(key: str, ended: Execution) -> None:
    messages = await stream(key, f"/executions/{ended.pk}/events")
    assert names(messages) == ["started", "stdout", "exit", "finished"]
    assert [message["id"] for message in messages] == ["1", "2", "3", "4"]
    assert json.loads(messages[1]["data"])["data"] == "ran print(1)\n"
    rest = await stream(key, f"/executions/{ended.pk}/events", **{"Last-Event-ID": messages[0]["id"]})
    assert rest == messages[1:]


@in_threads
async def test_the_end_of_a_stream_may_ask_the_database(
    key: str, ended: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asking(execution: Execution) -> dict[str, Any]:
        # As after somebody else has written its end: what was read with the row is forgotten.
        execution.refresh_from_db()
        return result_body(execution)

    monkeypatch.setattr(streams, "result_body", asking)
    messages = await stream(key, f"/executions/{ended.pk}/events")
    assert json.loads(messages[-1]["data"])["data"]["expires_at"] is not None


@in_threads
async def test_a_browser_that_has_seen_the_end_is_told_to_come_no_more(key: str, ended: Execution) -> None:
    headers = {"Accept": "text/event-stream", "X-API-Key": key, "Last-Event-ID": "4"}
    assert (await AsyncClient().get(f"/executions/{ended.pk}/events", headers=headers)).status_code == 204


@in_threads
async def test_a_stream_that_breaks_says_so(
    key: str, running: Execution, proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", 0.0)
    proxy.away = True
    (message,) = await stream(key, f"/executions/{running.pk}/events")
    assert (message["event"], "id" in message) == ("interrupted", False)
    assert json.loads(message["data"])["data"]["code"] == "proxy_unavailable"


@in_threads
async def test_a_stream_outlasts_a_proxy_that_is_away_for_a_moment(
    key: str, running: Execution, proxy: FakeProxy
) -> None:
    fake, asked = proxy.execution(running), []

    def restart(request: httpx.Request) -> None:
        asked.append(request)
        if len(asked) == 1:
            raise httpx.ConnectError("refused", request=request)
        if len(asked) == 3:  # the second had the first events, and then the proxy let go
            fake.say("stdout", "b")
            fake.end()

    fake.say("stdout", "a")
    proxy.before = restart
    messages = await stream(key, f"/executions/{running.pk}/events")
    assert names(messages) == ["started", "stdout", "stdout", "exit", "finished"]
    assert [message["id"] for message in messages] == ["1", "2", "3", "4", "5"]
    await running.arefresh_from_db()
    assert (running.status, running.stdout) == ("succeeded", "ab")


@in_threads
async def test_an_execution_is_streamed_as_it_runs(key: str, session: Session) -> None:
    messages = await stream(key, f"/sessions/{session.pk}/execute", {"code": "print(1)"})
    assert names(messages) == ["accepted", "started", "stdout", "exit", "finished"]
    accepted, finished = (json.loads(messages[number]["data"])["data"] for number in (0, -1))
    row = await Execution.objects.aget()
    assert (accepted["execution_id"], finished["execution_id"]) == (str(row.pk), str(row.pk))
    assert (finished["status"], finished["exit_code"], row.status) == ("succeeded", 0, "succeeded")
    assert "stdout" not in finished


@in_threads
async def test_a_one_shot_is_streamed_and_leaves_no_sandbox(key: str, session: Session, proxy: FakeProxy) -> None:
    messages = await stream(key, "/sandbox/execute", {"code": "print(1)"})
    assert names(messages) == ["accepted", "started", "stdout", "exit", "finished"]
    assert list(proxy.sandboxes) == [str(session.pk)]
    assert (await Session.objects.aget(is_one_shot=True)).status == "terminated"


@in_threads
async def test_the_same_idempotency_key_streams_the_same_execution(
    key: str, session: Session, proxy: FakeProxy
) -> None:
    path, once = f"/sessions/{session.pk}/execute", {"Idempotency-Key": "a"}
    first = await stream(key, path, {"code": "print(1)"}, **once)
    again = await stream(key, path, {"code": "print(1)"}, **once)
    assert again[1:] == first[1:]
    rest = await stream(key, path, {"code": "print(1)"}, **{**once, "Last-Event-ID": "2"})
    assert rest[1:] == first[3:]
    assert await Execution.objects.acount() == 1
    assert len(proxy.sandboxes[str(session.pk)]) == 1


@in_threads
async def test_what_was_run_is_told_again_when_its_session_has_ended(key: str, session: Session) -> None:
    path, body = f"/sessions/{session.pk}/execute", {"code": "print(1)"}
    headers = {"X-API-Key": key, "Idempotency-Key": "c"}
    answer = await AsyncClient().post(path, body, content_type="application/json", headers=headers)
    await AsyncClient().delete(f"/sessions/{session.pk}", headers=headers)
    again = await AsyncClient().post(path, body, content_type="application/json", headers=headers)
    assert (again.status_code, again.json()) == (200, answer.json())
    messages = await stream(key, path, body, **{"Idempotency-Key": "c"})
    assert names(messages) == ["accepted", "started", "stdout", "exit", "finished"]
    other = await AsyncClient().post(path, body, content_type="application/json", headers={"X-API-Key": key})
    assert other.status_code == 410


@in_threads
async def test_a_stream_after_an_answer_with_the_same_key_is_of_the_same_execution(key: str, session: Session) -> None:
    path, headers = f"/sessions/{session.pk}/execute", {"X-API-Key": key, "Idempotency-Key": "b"}
    body = {"code": "print(1)"}
    answer = await AsyncClient().post(path, body, content_type="application/json", headers=headers)
    streamed = await stream(key, path, body, **{"Idempotency-Key": "b"})
    assert json.loads(streamed[0]["data"])["data"]["execution_id"] == answer.json()["execution_id"]
    later = await AsyncClient().post(path, body, content_type="application/json", headers=headers)
    assert later.json() == answer.json()


@in_threads
async def test_what_is_wrong_with_a_request_for_a_stream_is_said_in_json(key: str, session: Session) -> None:
    for body, status in (({}, 400), ({"code": "x", "context": "a b"}, 400), ({"code": "x", "timeout": -1}, 400)):
        headers = {"Accept": "text/event-stream", "X-API-Key": key}
        path = f"/sessions/{session.pk}/execute"
        answer = await AsyncClient().post(path, body, content_type="application/json", headers=headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/json")


@in_threads
async def test_events_come_as_lines_too(key: str, session: Session) -> None:
    headers = {"Accept": "application/x-ndjson", "X-API-Key": key}
    path = f"/sessions/{session.pk}/execute"
    answer = await AsyncClient().post(path, {"code": "print(1)"}, content_type="application/json", headers=headers)
    text = b"".join([part async for part in answer.streaming_content]).decode()  # type: ignore[union-attr]
    assert [json.loads(line)["type"] for line in text.splitlines()] == [
        "accepted",
        "started",
        "stdout",
        "exit",
        "finished",
    ]
