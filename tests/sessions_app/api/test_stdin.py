"""Standard input for code that runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sessions_app.limits import MAX_STDIN_BYTES
from sessions_app.models import Execution, Session
from sessions_app.services.executions import start_execution, submit_execution
from sessions_app.services.settlement import settle_execution
from tests.sessions_app.api.conftest import Caller, errors
from tests.sessions_app.fake_proxy import FakeProxy

pytestmark = pytest.mark.django_db


@pytest.fixture
def reading(session: Session, proxy: FakeProxy) -> Execution:
    """An execution that reads what comes."""
    execution = submit_execution(session=session, code="wait", stdin="", stdin_stream=True, actor="api")
    return start_execution(execution, actor="api")


def send(api: Caller, execution: Execution, body: Any = None, **more: Any) -> Any:
    """Send standard input."""
    return api.post(f"/executions/{execution.pk}/stdin", body, **more)


def test_text_reaches_the_code_and_its_end_too(api: Caller, reading: Execution, proxy: FakeProxy) -> None:
    assert proxy.execution(reading).body["stdin_stream"] is True
    assert send(api, reading, {"data": "one\n"}).json() == {
        "execution_id": str(reading.pk),
        "unread_bytes": 0,
        "eof": False,
    }
    assert send(api, reading, {"data": "two\n", "eof": True}).json()["eof"] is True
    settle_execution(reading, actor="api")
    assert (reading.status, reading.stdout) == ("succeeded", "one\ntwo\n")


def test_bytes_reach_the_code_as_they_are(api: Caller, reading: Execution, proxy: FakeProxy) -> None:
    path = f"/executions/{reading.pk}/stdin"
    octets = {"data": "\u20ac\r\n".encode(), "content_type": "application/octet-stream", "headers": api.headers}
    assert api.client.post(f"{path}?eof=true", **octets).status_code == 200
    assert [event["data"] for event in proxy.execution(reading).events if event["type"] == "stdout"] == ["\u20ac\r\n"]
    assert proxy.execution(reading).ended


def test_what_has_ended_reads_no_more(api: Caller, reading: Execution, proxy: FakeProxy) -> None:
    proxy.execution(reading).end()
    answer = send(api, reading, {"data": "x"})  # the row does not know yet
    assert (answer.status_code, errors(answer)) == (409, [("stdin_closed", None)])
    settle_execution(reading, actor="api")
    assert send(api, reading, {"data": "x"}).status_code == 409


def test_what_was_not_begun_to_read_more_does_not(api: Caller, running: Execution) -> None:
    answer = send(api, running, {"data": "x"})
    assert (answer.status_code, errors(answer)) == (409, [("stdin_closed", None)])
    assert "stdin_stream" in answer.json()["errors"][0]["detail"]


BAD: dict[str, tuple[Any, int, str | None]] = {
    "a number": ({"data": 7}, 400, "data"),
    "no truth": ({"eof": "perhaps"}, 400, "eof"),
    "half a character": ({"data": "\ud800"}, 400, "data"),
    "too much": ({"data": "x" * (MAX_STDIN_BYTES + 1)}, 413, "data"),
    "a list": ([], 400, "non_field_errors"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_names_itself(api: Caller, reading: Execution, what: str) -> None:
    body, status, field = BAD[what]
    answer = send(api, reading, body)
    assert (answer.status_code, errors(answer)[0][1]) == (status, field)


def test_a_bad_end_names_itself(api: Caller, reading: Execution) -> None:
    octets = {"data": b"x", "content_type": "application/octet-stream", "headers": api.headers}
    answer = api.client.post(f"/executions/{reading.pk}/stdin?eof=perhaps", **octets)
    assert (answer.status_code, errors(answer)) == (400, [("invalid", "eof")])


def test_anothers_execution_is_unknown(stranger: Caller, reading: Execution) -> None:
    assert send(stranger, reading, {"data": "x"}).status_code == 404


def test_a_proxy_that_is_away_is_said_so_and_nothing_is_sent_twice(
    api: Caller, reading: Execution, proxy: FakeProxy
) -> None:
    proxy.break_next = 1
    answer = send(api, reading, {"data": "x"})
    assert (answer.status_code, "may have arrived" in answer.json()["errors"][0]["detail"]) == (503, True)
    assert sum(event["type"] == "stdout" for event in proxy.execution(reading).events) == 1


def test_a_sandbox_without_input_says_so(api: Caller, make_session: Callable[..., Session], proxy: FakeProxy) -> None:
    session = make_session()
    Session.objects.filter(pk=session.pk).update(capabilities={"stdin": False})
    answer = api.post(f"/sessions/{session.pk}/execute", {"code": "x", "stdin_stream": True})
    assert (answer.status_code, errors(answer)) == (422, [("unsupported", "stdin_stream")])
