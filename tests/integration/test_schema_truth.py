"""What goes wrong is described in the schema, too: with its status, and in its shape."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.integration.openapi import lies_of
from tests.integration.servers import Servers

NOBODY = str(uuid.uuid4())
OF_A_SESSION = [
    ("GET", "/sessions/{id}", None),
    ("PATCH", "/sessions/{id}", {"metadata": {"a": "b"}}),
    ("POST", "/sessions/{id}/renew", {}),
    ("GET", "/sessions/{id}/events", None),
    ("POST", "/sessions/{id}/execute", {"code": "print(1)"}),
    ("GET", "/sessions/{id}/executions", None),
    ("GET", "/sessions/{id}/files", None),
    ("GET", "/sessions/{id}/files/a.txt", None),
    ("PUT", "/sessions/{id}/files/a.txt", {}),
    ("POST", "/sessions/{id}/files/a", {"type": "directory"}),
    ("PATCH", "/sessions/{id}/files/a", {"path": "b"}),
    ("DELETE", "/sessions/{id}/files/a", None),
    ("GET", "/sessions/{id}/contexts", None),
    ("POST", "/sessions/{id}/contexts", {}),
    ("GET", "/sessions/{id}/contexts/a", None),
    ("POST", "/sessions/{id}/contexts/a/restart", {}),
    ("POST", "/sessions/{id}/contexts/a/interrupt", {}),
    ("DELETE", "/sessions/{id}/contexts/a", None),
]
OTHERS = [
    ("DELETE", "/sessions/{id}", None),
    ("GET", "/executions/{id}", None),
    ("GET", "/executions/{id}/events", None),
    ("POST", "/executions/{id}/stdin", {"data": "x"}),
    ("POST", "/executions/{id}/cancel", {}),
]
WRONG = [
    ("POST", "/sessions", {"lang": 5}, 400),
    ("POST", "/sessions", {"lang": "cobol"}, 422),
    ("POST", "/sessions", {"idle_timeout": 10**8}, 400),
    ("POST", "/sessions/{id}/execute", {}, 400),
    ("POST", "/sessions/{id}/execute", {"code": "1", "output_limit_bytes": 3}, 400),
    ("POST", "/sessions/{id}/execute", {"code": "1" * (1 << 20) + "2"}, 413),
    ("POST", "/sessions/{id}/execute", {"code": "1", "libraries": ["no-such-library-of-sandboxweb"]}, 422),
    ("POST", "/sandbox/execute", {"code": "1", "lang": "cobol"}, 422),
    ("POST", "/sandbox/execute", {"code": 1}, 400),
    ("PATCH", "/sessions/{id}", {"metadata": {"a": 1}}, 400),
    ("GET", "/sessions?status=what", None, 400),
    ("GET", "/sessions?page=99", None, 404),
    ("GET", "/sessions/{id}/executions?page=x", None, 400),
    ("GET", "/sessions/{id}/files/nothing.txt", None, 404),
    ("GET", "/sessions/{id}/files?path=../..", None, 400),
    ("GET", "/sessions/{id}/contexts/nothing", None, 404),
    ("POST", "/sessions/{id}/contexts", {"context_id": "a b"}, 400),
]

Check = Callable[[httpx.Response, int], None]


@pytest.fixture(scope="module")
def schema(servers: Servers) -> Any:
    """The server's schema."""
    with servers.client() as client:
        return client.get("/schema", params={"format": "json"}).json()


@pytest.fixture
def check(schema: Any) -> Check:
    """Compare an answer with what the schema says of it."""

    def compare(answer: httpx.Response, status: int) -> None:
        request = answer.request
        assert answer.status_code == status, (request.method, request.url, answer.text)
        assert lies_of(schema, request.method, request.url.path, status, answer.json()) == []

    return compare


@pytest.mark.parametrize(("method", "path", "body"), OF_A_SESSION + OTHERS)
def test_what_is_not_there_and_who_has_no_key_are_described(
    servers: Servers, api: httpx.Client, check: Check, method: str, path: str, body: Any
) -> None:
    path = path.replace("{id}", NOBODY)
    check(api.request(method, path, json=body), 404)
    with servers.client(key="sbx_wrong.key") as stranger:
        check(stranger.request(method, path, json=body), 401)


def test_every_call_on_a_session_that_ended_is_described(api: httpx.Client, check: Check, session_id: str) -> None:
    api.delete(f"/sessions/{session_id}")
    for method, path, body in OF_A_SESSION:
        answer = api.request(method, path.replace("{id}", session_id), json=body)
        check(answer, 410 if answer.status_code == 410 else 200)


@pytest.mark.registry
@pytest.mark.parametrize(("method", "path", "body", "status"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_with_a_request_is_described(
    api: httpx.Client, check: Check, session_id: str, method: str, path: str, body: Any, status: int
) -> None:
    check(api.request(method, path.replace("{id}", session_id), json=body), status)


def test_a_body_of_another_kind_is_described(api: httpx.Client, check: Check, session_id: str) -> None:
    for path in ("/sessions", f"/sessions/{session_id}/execute", "/sandbox/execute", f"/sessions/{session_id}/renew"):
        check(api.post(path, content=b"<a/>", headers={"Content-Type": "text/xml"}), 415)
