"""Requests that are wrong in every way: a clear 4xx that names the field, and no row in a wrong state."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest

from tests.integration.servers import Servers

JSON = {"Content-Type": "application/json"}
TEN_MB = 10_000_000

# what is wrong: (body of an execution, status, field that the answer names)
BAD_EXECUTIONS: dict[str, tuple[dict[str, Any], int, str]] = {
    "no code": ({}, 400, "code"),
    "code that is no text": ({"code": {"a": 1}}, 400, "code"),
    "code with a NUL": ({"code": "print(1)\0"}, 400, "code"),
    "a negative time-out": ({"code": "print(1)", "timeout": -1}, 400, "timeout"),
    "a time-out over the ceiling": ({"code": "print(1)", "timeout": 10**9}, 400, "timeout"),
    "a time-out that is no number": ({"code": "print(1)", "timeout": "soon"}, 400, "timeout"),
    "a library that is a shell line": ({"code": "print(1)", "libraries": ["numpy; rm -rf /"]}, 400, "libraries"),
    "libraries that are no list": ({"code": "print(1)", "libraries": 7}, 400, "libraries"),
    "standard input with a NUL": ({"code": "print(1)", "stdin": "a\0b"}, 400, "stdin"),
    "an environment that is no mapping": ({"code": "print(1)", "env": [1]}, 400, "env"),
}
BAD_SESSIONS: dict[str, tuple[dict[str, Any], int, str]] = {
    "an unknown language": ({"lang": "cobol"}, 422, "lang"),
    "an unknown template": ({"template": "nowhere"}, 400, "template"),
    "a negative idle time": ({"lang": "python", "idle_timeout": -5}, 400, "idle_timeout"),
    "a lifetime over the ceiling": ({"lang": "python", "max_lifetime": 10**9}, 400, "max_lifetime"),
    "an execution time over the ceiling": ({"lang": "python", "execution_timeout": 10**9}, 400, "execution_timeout"),
    "metadata that is no mapping": ({"lang": "python", "metadata": "x"}, 400, "metadata"),
}


def named_fields(answer: httpx.Response) -> set[str]:
    """Return the fields that the errors of an answer name, without what follows the first dot."""
    return {str(error["attr"]).split(".")[0] for error in answer.json()["errors"]}


@pytest.fixture
def unharmed(api: httpx.Client, session_id: str) -> Any:
    """Check after the test that the session still works and nothing is stuck."""
    yield
    assert api.post(f"/sessions/{session_id}/execute", json={"code": "print(1)"}).json()["stdout"] == "1\n"
    states = {row["status"] for row in api.get(f"/sessions/{session_id}/executions").json()["results"]}
    assert not states & {"queued", "running"}
    assert api.get("/sessions", params={"status": "pending"}).json()["count"] == 0


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("what", BAD_EXECUTIONS)
def test_a_bad_execution_names_its_field(api: httpx.Client, session_id: str, what: str) -> None:
    body, status, field = BAD_EXECUTIONS[what]
    answer = api.post(f"/sessions/{session_id}/execute", json=body)
    assert (answer.status_code, named_fields(answer)) == (status, {field}), answer.text


@pytest.mark.parametrize("what", BAD_SESSIONS)
def test_a_bad_session_names_its_field_and_leaves_no_row(api: httpx.Client, what: str) -> None:
    body, status, field = BAD_SESSIONS[what]
    before = api.get("/sessions").json()["count"]
    answer = api.post("/sessions", json=body)
    assert (answer.status_code, named_fields(answer)) == (status, {field}), answer.text
    assert api.get("/sessions").json()["count"] == before


@pytest.mark.usefixtures("unharmed")
def test_malformed_json_is_the_clients_mistake(api: httpx.Client, session_id: str) -> None:
    for path in ("/sessions", f"/sessions/{session_id}/execute", "/sandbox/execute"):
        answer = api.post(path, content=b'{"code": ', headers=JSON)
        assert answer.status_code == 400, answer.text
        assert "JSON" in answer.text


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("field", ["code", "stdin"])
def test_code_and_input_of_10_mb_are_too_large(api: httpx.Client, session_id: str, field: str) -> None:
    answer = api.post(f"/sessions/{session_id}/execute", json={"code": "print(1)", field: "#" * TEN_MB})
    assert (answer.status_code, named_fields(answer)) == (413, {field}), answer.text
    assert "at most 1048576" in answer.text


@pytest.mark.usefixtures("unharmed")
def test_a_body_of_more_than_is_read_is_too_large(api: httpx.Client, session_id: str) -> None:
    answer = api.post(f"/sessions/{session_id}/execute", json={"code": "#" * (2 * TEN_MB)})
    assert answer.status_code == 413
    assert "at most 16777216 bytes" in answer.text


def test_a_session_id_that_is_no_uuid_and_one_that_nobody_has_are_not_found(api: httpx.Client) -> None:
    for session_id in ("not-a-uuid", "1", uuid.uuid4()):
        assert api.get(f"/sessions/{session_id}").status_code == 404
        assert api.delete(f"/sessions/{session_id}").status_code == 404
        assert api.post(f"/sessions/{session_id}/execute", json={"code": "print(1)"}).status_code == 404


def test_a_session_that_ended_is_gone_and_says_why(api: httpx.Client, session_id: str) -> None:
    api.delete(f"/sessions/{session_id}")
    answer = api.post(f"/sessions/{session_id}/execute", json={"code": "print(1)"})
    assert answer.status_code == 410
    assert '"user"' in answer.text.replace("'", '"')


def test_another_users_session_is_not_there(servers: Servers, api: httpx.Client, session_id: str) -> None:
    key = servers.make_user(f"other-{uuid.uuid4().hex[:8]}")
    with servers.client(key) as other:
        assert other.get("/sessions").json()["sessions"] == []
        assert other.get(f"/sessions/{session_id}").status_code == 404
        assert other.delete(f"/sessions/{session_id}").status_code == 404
        assert other.post(f"/sessions/{session_id}/execute", json={"code": "print(1)"}).status_code == 404
    assert api.get(f"/sessions/{session_id}").json()["status"] == "active"


def test_a_wrong_key_and_no_key_are_refused(servers: Servers) -> None:
    with httpx.Client(base_url=servers.app_url, trust_env=False) as nobody:
        for headers in ({}, {"Authorization": "Bearer sbx_wrong.wrong"}, {"X-API-Key": "wrong"}):
            assert nobody.get("/sessions", headers=headers).status_code == 401
            assert nobody.post("/sessions", json={"lang": "python"}, headers=headers).status_code == 401
        assert nobody.get("/").json()["status"] == "ok"
        by_other_header = nobody.get("/sessions", headers={"X-API-Key": servers.key})
        assert by_other_header.status_code == 200
