"""Events of executions: as JSON, and as they come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import AsyncClient

from sessions_app.api.streams import events_of, kept_events
from sessions_app.models import ApiKey, Execution, Session
from sessions_app.services.executions import complete_execution, submit_execution
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
def test_what_still_runs_has_nothing_kept(api: Caller, running: Execution) -> None:
    assert api.get(f"/executions/{running.pk}/events").json() == {"events": []}


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
def test_the_sandboxs_own_events_are_followed_and_settle_the_execution(running: Execution, proxy: FakeProxy) -> None:
    fake = proxy.execution(running)
    fake.say("stdout", "a")
    fake.say("stdout", "b")
    fake.end()
    assert kinds(events_of(running, 0)) == [(1, "started"), (2, "stdout"), (3, "stdout"), (4, "exit")]
    assert kinds(events_of(running, 2)) == [(3, "stdout"), (4, "exit")]
    running.refresh_from_db()
    assert (running.status, running.stdout) == ("succeeded", "ab")


@pytest.mark.django_db
def test_without_its_sandbox_what_was_kept_comes(ended: Execution, proxy: FakeProxy) -> None:
    proxy.sandboxes.clear()
    assert kinds(events_of(ended, 0)) == [(1, "started"), (2, "stdout"), (3, "exit")]


@pytest.mark.django_db
def test_whoever_saw_some_of_it_gets_no_output_twice(ended: Execution) -> None:
    ended.last_seq = 40
    assert kinds(kept_events(ended, 0)) == [(38, "started"), (39, "stdout"), (40, "exit")]
    assert kinds(kept_events(ended, 7)) == [(40, "exit")]
    assert kinds(kept_events(ended, 40)) == []


@pytest.fixture
def key(session: Session) -> str:
    """The owner's key."""
    return str(ApiKey.objects.create_key(owner=session.owner, name="test")[1])


async def stream(key: str, path: str, **headers: str) -> list[dict[str, str]]:
    """Return the messages of a stream, field by field."""
    answer = await AsyncClient().get(path, headers={"Accept": "text/event-stream", "X-API-Key": key, **headers})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/event-stream"
    text = b"".join([part async for part in answer.streaming_content]).decode()  # type: ignore[union-attr]
    messages = text.removesuffix("\n\n").split("\n\n")
    return [dict(line.split(": ", 1) for line in message.split("\n")) for message in messages]


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
async def test_a_stream_is_what_a_browser_reads_and_takes_up_again(key: str, ended: Execution) -> None:
    messages = await stream(key, f"/executions/{ended.pk}/events")
    assert [message["event"] for message in messages] == ["started", "stdout", "exit"]
    assert json.loads(messages[1]["data"])["data"] == "ran print(1)\n"
    rest = await stream(key, f"/executions/{ended.pk}/events", **{"Last-Event-ID": messages[0]["id"]})
    assert rest == messages[1:]


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
async def test_a_stream_that_breaks_says_so(key: str, running: Execution, proxy: FakeProxy) -> None:
    proxy.away = True
    (message,) = await stream(key, f"/executions/{running.pk}/events")
    assert message["event"] == "interrupted"
    assert json.loads(message["data"])["code"] == "proxy_unavailable"
