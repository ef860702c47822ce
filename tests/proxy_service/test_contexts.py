"""Contexts over HTTP: made, listed, restarted, interrupted, deleted, and run in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.proxy_service.conftest import Proxy, eventually


async def make(proxy: Proxy, session_id: str, **body: Any) -> dict[str, Any]:
    response = await proxy.http.post(f"/sessions/{session_id}/contexts", json=body)
    assert response.status_code in (200, 201), response.text
    return dict(response.json())


async def listed(proxy: Proxy, session_id: str) -> list[str]:
    response = await proxy.http.get(f"/sessions/{session_id}/contexts")
    assert response.status_code == 200
    return [item["context_id"] for item in response.json()["contexts"]]


async def test_a_context_keeps_its_state_apart_from_others(proxy: Proxy, session_id: str) -> None:
    first, second = [(await make(proxy, session_id))["context_id"] for _ in range(2)]
    await proxy.execute(session_id, "set 1", context=first)
    assert (await proxy.execute(session_id, "get", context=first))["stdout"] == "1\n"
    assert (await proxy.execute(session_id, "get", context=second))["stdout"] == "\n"
    assert await listed(proxy, session_id) == [first, second]


async def test_the_default_context_is_made_on_first_use(proxy: Proxy, session_id: str) -> None:
    assert await listed(proxy, session_id) == []
    await proxy.execute(session_id, "set 1", context="default")
    assert await listed(proxy, session_id) == ["default"]
    assert (await proxy.execute(session_id, "get", context="default"))["stdout"] == "1\n"


async def test_the_same_id_finds_the_same_context(proxy: Proxy, session_id: str) -> None:
    path = f"/sessions/{session_id}/contexts"
    assert (await proxy.http.post(path, json={"context_id": "mine"})).status_code == 201
    again = await proxy.http.post(path, json={"context_id": "mine"})
    assert (again.status_code, again.json()["context_id"]) == (200, "mine")
    shown = await proxy.http.get(f"{path}/mine")
    assert (shown.status_code, shown.json()["state"]) == (200, "idle")


async def test_a_restarted_context_has_forgotten_its_state(proxy: Proxy, session_id: str) -> None:
    await make(proxy, session_id, context_id="mine")
    await proxy.execute(session_id, "set 1", context="mine")
    restarted = await proxy.http.post(f"/sessions/{session_id}/contexts/mine/restart")
    assert (restarted.status_code, restarted.json()["context_id"]) == (200, "mine")
    assert (await proxy.execute(session_id, "get", context="mine"))["stdout"] == "\n"


async def test_an_interrupt_ends_what_runs(proxy: Proxy, session_id: str) -> None:
    await make(proxy, session_id, context_id="mine")
    path = f"/sessions/{session_id}/contexts/mine/interrupt"
    assert (await proxy.http.post(path)).json() == {"context_id": "mine", "interrupted": False}
    _, task = await proxy.begin(session_id, "wait", context="mine")
    assert (await proxy.http.post(path)).json() == {"context_id": "mine", "interrupted": True}
    assert (await task)["status"] == "cancelled"


async def test_a_deleted_context_is_gone(proxy: Proxy, session_id: str) -> None:
    await make(proxy, session_id, context_id="mine")
    deleted = await proxy.http.delete(f"/sessions/{session_id}/contexts/mine")
    assert (deleted.status_code, deleted.json()) == (200, {"context_id": "mine", "status": "deleted"})
    assert await listed(proxy, session_id) == []
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/restart"), ("POST", "/interrupt")):
        response = await proxy.http.request(method, f"/sessions/{session_id}/contexts/mine{suffix}")
        assert (response.status_code, response.json()["error"]) == (404, "unknown_context"), (method, suffix)


async def test_code_for_an_unknown_context_is_not_run(proxy: Proxy, session_id: str) -> None:
    body = {"code": "print no", "context": "nowhere"}
    response = await proxy.http.post(f"/sessions/{session_id}/execute", json=body)
    assert response.status_code == 404
    assert (response.json()["error"], response.json()["field"]) == ("unknown_context", "context")
    assert proxy.sandbox(session_id).started == 0


async def test_a_session_has_a_bounded_number_of_contexts(proxy: Proxy, session_id: str) -> None:
    for _ in range(8):
        await make(proxy, session_id)
    response = await proxy.http.post(f"/sessions/{session_id}/contexts")
    assert (response.status_code, response.json()["error"]) == (429, "too_many_contexts")
    assert response.headers["Retry-After"]


async def test_results_and_the_exception_are_in_the_answer(proxy: Proxy, session_id: str) -> None:
    shown = await proxy.execute(session_id, "result 42", context="default")
    assert shown["results"] == [{"text": "42", "is_main_result": True}]
    assert (shown["exception"], shown["context_restarted"]) == (None, False)
    failed = await proxy.execute(session_id, "raise ValueError no", context="default")
    assert (failed["status"], failed["exit_code"]) == ("failed", 1)
    assert failed["exception"] == {"name": "ValueError", "value": "no", "traceback": ["ValueError: no"]}
    events = await proxy.events(session_id, failed["execution_id"])
    assert [event["type"] for event in events] == ["started", "error", "exit"]
    assert events[-1]["data"]["context_id"] == "default"


async def test_executions_of_several_contexts_run_in_order(proxy: Proxy, session_id: str) -> None:
    await make(proxy, session_id, context_id="a")
    _, first = await proxy.begin(session_id, "wait", context="a")
    later, second = await proxy.queue(session_id, "print 2")
    assert later not in proxy.sandbox(session_id).runs
    proxy.backend.go_on.set()
    assert (await first)["status"] == "succeeded"
    assert (await second)["stdout"] == "2\n"
    await eventually(lambda: later in proxy.sandbox(session_id).runs)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"context_id": ""}, "context_id"),
        ({"context_id": "a/b"}, "context_id"),
        ({"context_id": "x" * 65}, "context_id"),
        ({"context_id": 7}, "context_id"),
        ({"lang": 7}, "lang"),
        ({"lang": "x\0"}, "lang"),
    ],
)
async def test_a_wrong_body_names_its_field(proxy: Proxy, session_id: str, body: dict[str, Any], field: str) -> None:
    response = await proxy.http.post(f"/sessions/{session_id}/contexts", json=body)
    assert (response.status_code, response.json()["field"]) == (400, field)


async def test_a_context_of_another_language_is_refused_in_clear_words(proxy: Proxy, session_id: str) -> None:
    response = await proxy.http.post(f"/sessions/{session_id}/contexts", json={"lang": "javascript"})
    assert (response.status_code, response.json()["field"]) == (422, "lang")
    assert "Python" in response.json()["detail"]


async def test_a_session_of_another_language_keeps_no_contexts(proxy: Proxy) -> None:
    session_id = await proxy.session(lang="javascript")
    made = await proxy.http.post(f"/sessions/{session_id}/contexts")
    run = await proxy.http.post(f"/sessions/{session_id}/execute", json={"code": "print 1", "context": "default"})
    for response in (made, run):
        assert (response.status_code, response.json()["field"]) == (422, "context")
        assert "javascript" in response.json()["detail"]


async def test_paths_of_unknown_sessions_are_not_found(proxy: Proxy) -> None:
    nowhere = "/sessions/00000000-0000-4000-8000-000000000000/contexts"
    for method, path in (("GET", nowhere), ("POST", nowhere), ("DELETE", f"{nowhere}/a")):
        response = await proxy.http.request(method, path)
        assert (response.status_code, response.json()["error"]) == (404, "unknown_session")
