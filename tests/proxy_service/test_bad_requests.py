"""What cannot be done is refused before anything is done, in one shape that names the field."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy_service.backends.fake import FakeBackend
from tests.proxy_service.conftest import Proxy, make_settings, running

MIB = 1024 * 1024

SESSIONS: list[tuple[str, Any, int, str]] = [
    ("a number as language", {"lang": 5}, 400, "lang"),
    ("an unknown language", {"lang": "brainfuck"}, 422, "lang"),
    ("an id that is no UUID", {"session_id": "../../etc"}, 400, "session_id"),
    ("a number as id", {"session_id": 5}, 400, "session_id"),
    ("an unknown network", {"network": "bridge"}, 400, "network"),
    ("text as flag", {"keep_template": "certainly"}, 400, "keep_template"),
    ("no memory", {"limits": {"memory_bytes": 0}}, 400, "limits.memory_bytes"),
    ("negative processors", {"limits": {"cpus": -1}}, 400, "limits.cpus"),
    ("too few processes", {"limits": {"pids": 1}}, 400, "limits.pids"),
    ("limits that are a list", {"limits": []}, 400, "limits"),
    ("environment that is a list", {"env": ["A=1"]}, 400, "env"),
    ("environment with numbers", {"env": {"A": 1}}, 400, "env.A"),
    ("a name no variable has", {"env": {"A=B": "1"}}, 400, "env"),
    ("NUL in a variable", {"env": {"A": "\0"}}, 400, "env.A"),
    ("NUL in the image", {"image": "a\0b"}, 400, "image"),
    ("preload that is text", {"preload": "numpy"}, 400, "preload"),
]

EXECUTIONS: list[tuple[str, Any, int, str]] = [
    ("no code", {}, 400, "code"),
    ("null as code", {"code": None}, 400, "code"),
    ("a number as code", {"code": 5}, 400, "code"),
    ("NUL in code", {"code": "print a\0b"}, 400, "code"),
    ("more code than may be", {"code": "x" * (MIB + 1)}, 413, "code"),
    ("more bytes of code than may be", {"code": "\u20ac" * (MIB // 2)}, 413, "code"),
    ("no time", {"code": "", "timeout": 0}, 400, "timeout"),
    ("negative time", {"code": "", "timeout": -1}, 400, "timeout"),
    ("text as time", {"code": "", "timeout": "5"}, 400, "timeout"),
    ("a flag as time", {"code": "", "timeout": True}, 400, "timeout"),
    ("NaN as time", {"code": "", "timeout": float("nan")}, 400, "timeout"),
    ("endless time", {"code": "", "timeout": float("inf")}, 400, "timeout"),
    ("more time than may be", {"code": "", "timeout": 10**9}, 400, "timeout"),
    ("a huge number as time", {"code": "", "timeout": 10**400}, 400, "timeout"),
    ("no output", {"code": "", "output_limit_bytes": 0}, 400, "output_limit_bytes"),
    ("endless output", {"code": "", "output_limit_bytes": 10**12}, 400, "output_limit_bytes"),
    ("a list as input", {"code": "", "stdin": []}, 400, "stdin"),
    ("an id that is a path", {"code": "", "execution_id": "../../x"}, 400, "execution_id"),
    ("a number as id", {"code": "", "execution_id": 5}, 400, "execution_id"),
    ("text as libraries", {"code": "", "libraries": "numpy"}, 400, "libraries"),
    ("a number as library", {"code": "", "libraries": [5]}, 400, "libraries.0"),
    ("too many libraries", {"code": "", "libraries": ["a"] * 1000}, 400, "libraries"),
    ("environment with numbers", {"code": "", "env": {"A": 1}}, 400, "env.A"),
    ("NUL in a variable", {"code": "", "env": {"A": "\0"}}, 400, "env.A"),
]

LIBRARIES = [
    "numpy; rm -rf /",
    "numpy && id",
    "--index-url=example",
    "-r /etc/passwd",
    "-e .",
    "git+ssh://example/x",
    "../../x",
    "/tmp/x.whl",
    "numpy\nrequests",
    "$(id)",
    "numpy @ file:///etc/passwd",
    " ",
]

POOLS: list[tuple[str, Any, int, str]] = [
    ("no list", {}, 400, "templates"),
    ("no name", {"templates": [{"warm_pool_size": 1}]}, 400, "templates.0.template"),
    ("a negative size", {"templates": [{"template": "a", "warm_pool_size": -1}]}, 400, "templates.0.warm_pool_size"),
    ("text as size", {"templates": [{"template": "a", "warm_pool_size": "x"}]}, 400, "templates.0.warm_pool_size"),
]

MALFORMED = [
    b'{"code": "\\ud800"}',
    b"{",
    b"nonsense",
    b'{"code": }',
    b"\xff\xfe",
    b"[" * 100_000,
    b'"text"',
    b"[]",
    b"5",
]


def cases(table: list[tuple[str, Any, int, str]]) -> pytest.MarkDecorator:
    """Return the rows of a table as test cases with their names."""
    return pytest.mark.parametrize(
        ("body", "status", "field"), [row[1:] for row in table], ids=[row[0] for row in table]
    )


async def refused(proxy: Proxy, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    """Send what Python calls JSON, and return the status and the error."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await proxy.http.request(method, path, content=content)
    answer = response.json()
    assert answer["error"]
    assert answer["detail"]
    return response.status_code, answer


def assert_names(answer: dict[str, Any], field: str) -> None:
    """Check that an error names a field, or its parent."""
    assert answer["field"] == field or answer["field"] == field.partition(".")[0], answer
    assert field.split(".")[0] in answer["detail"] or answer["field"] in ("session_id", "lang", "libraries"), answer


@cases(SESSIONS)
async def test_a_session_that_cannot_be_is_refused(proxy: Proxy, body: Any, status: int, field: str) -> None:
    code, answer = await refused(proxy, "POST", "/sessions", body)
    assert code == status, answer
    assert_names(answer, field)
    assert not proxy.backend.sandboxes
    assert proxy.backend.attempts == 0


@cases(EXECUTIONS)
async def test_an_execution_that_cannot_be_is_refused(
    proxy: Proxy, session_id: str, body: Any, status: int, field: str
) -> None:
    code, answer = await refused(proxy, "POST", f"/sessions/{session_id}/execute", body)
    assert code == status, answer
    assert_names(answer, field)
    assert proxy.sandbox(session_id).started == 0


@pytest.mark.parametrize("library", LIBRARIES)
async def test_what_is_no_library_s_name_never_reaches_the_installer(
    proxy: Proxy, session_id: str, library: str
) -> None:
    body = {"code": "print 1", "libraries": [library]}
    code, answer = await refused(proxy, "POST", f"/sessions/{session_id}/execute", body)
    assert code in (400, 422)
    assert answer["field"].split(".")[0] == "libraries"
    assert proxy.sandbox(session_id).started == 0


async def test_libraries_of_a_language_that_takes_none_are_refused(proxy: Proxy) -> None:
    session_id = await proxy.session(lang="bash")
    body = {"code": "print 1", "libraries": ["lodash"]}
    code, answer = await refused(proxy, "POST", f"/sessions/{session_id}/execute", body)
    assert (code, answer["field"]) == (422, "libraries")
    assert "bash" in answer["detail"]
    for key in ("libraries", "more_libraries"):
        code, answer = await refused(proxy, "POST", "/sessions", {"lang": "bash", key: ["lodash"]})
        assert (code, answer["field"]) == (422, "libraries")


@cases(POOLS)
async def test_a_pool_that_cannot_be_is_refused(proxy: Proxy, body: Any, status: int, field: str) -> None:
    code, answer = await refused(proxy, "PUT", "/pool", body)
    assert (code, answer["field"]) == (status, field)


@pytest.mark.parametrize("content", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_body_that_is_no_json_object_is_refused(proxy: Proxy, session_id: str, content: bytes) -> None:
    for method, path in (("POST", "/sessions"), ("POST", f"/sessions/{session_id}/execute"), ("PUT", "/pool")):
        code, _ = await refused(proxy, method, path, content)
        assert code == 400
    assert len(proxy.backend.sandboxes) == 1


@pytest.mark.parametrize("bad", ["x", "1", "%00", "..%2f..", "0" * 400])
async def test_an_id_that_is_no_uuid_is_refused_in_a_path(proxy: Proxy, bad: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/execute"), ("GET", "/stats")):
        response = await proxy.http.request(method, f"/sessions/{bad}{path}", json={"code": ""})
        assert response.status_code in (400, 404)
        assert response.json()["error"] in ("invalid", "not_found")


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "", "\u0663", "9" * 400])
async def test_a_number_to_resume_after_that_is_none_is_refused(proxy: Proxy, session_id: str, after: str) -> None:
    execution_id = str(uuid.uuid4())
    await proxy.execute(session_id, "print a", execution_id=execution_id)
    path = f"/sessions/{session_id}/executions/{execution_id}/events"
    response = await proxy.http.get(path, params={"after": after})
    assert response.status_code == 400
    assert response.json()["field"] == "after"


async def test_a_body_that_says_it_is_too_long_is_not_read(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, max_body_bytes=1000)
    async with running(settings, FakeBackend(settings)) as proxy:
        response = await proxy.http.post("/sessions", content=b"x" * 1001)
        assert (response.status_code, response.json()["error"]) == (413, "too_large")
        assert proxy.backend.attempts == 0


async def test_a_body_without_a_length_is_read_no_further_than_it_may_be_long(tmp_path: Path) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b" " * 400

    settings = make_settings(tmp_path, max_body_bytes=1000)
    async with running(settings, FakeBackend(settings)) as proxy:
        response = await proxy.http.post("/sessions", content=endless())
        assert (response.status_code, response.json()["error"]) == (413, "too_large")
        assert sent < 10
