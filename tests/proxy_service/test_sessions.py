"""Sessions: made once by id, listed while they run, ended at once."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

from proxy_service.backends.fake import FakeBackend
from proxy_service.errors import BackendUnavailable, SandboxStartFailed
from tests.proxy_service.conftest import Proxy, eventually, make_settings, running


async def test_a_session_tells_what_it_is(proxy: Proxy) -> None:
    response = await proxy.http.post("/sessions", json={"lang": "python", "keep_template": False})
    assert response.status_code == 201
    made = response.json()
    assert str(uuid.UUID(made["session_id"])) == made["session_id"]
    assert (made["status"], made["backend"], made["pooled"]) == ("active", "fake", False)
    assert made["sandbox"] in proxy.backend.sandboxes
    assert made["capabilities"]["python"] == "3.11.2"
    assert made["created_at"] > 0
    found = await proxy.http.get(f"/sessions/{made['session_id']}")
    assert (found.status_code, found.json()["sandbox"]) == (200, made["sandbox"])


async def test_an_empty_body_makes_a_python_session(proxy: Proxy) -> None:
    response = await proxy.http.post("/sessions", content=b"")
    assert response.status_code == 201
    assert proxy.sandbox(response.json()["session_id"]).spec.lang == "python"


async def test_the_same_request_again_gives_the_same_sandbox(proxy: Proxy) -> None:
    body = {"lang": "python", "session_id": str(uuid.uuid4()), "env": {"A": "1"}}
    first = await proxy.http.post("/sessions", json=body)
    again = await proxy.http.post("/sessions", json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["sandbox"] == again.json()["sandbox"]
    assert len(proxy.backend.sandboxes) == 1


async def test_an_id_in_another_spelling_is_the_same_session(proxy: Proxy) -> None:
    session_id = str(uuid.uuid4())
    made = await proxy.create(session_id=session_id.upper())
    assert made["session_id"] == session_id
    assert (await proxy.http.get(f"/sessions/{session_id.upper()}")).status_code == 200


async def test_the_same_id_for_something_else_is_a_conflict(proxy: Proxy) -> None:
    session_id = await proxy.session(env={"A": "1"})
    for other in ({"env": {"A": "2"}}, {"lang": "javascript"}, {"limits": {"pids": 9}}):
        body = {"lang": "python", "env": {"A": "1"}, "session_id": session_id, **other}
        response = await proxy.http.post("/sessions", json=body)
        assert (response.status_code, response.json()["field"]) == (409, "session_id")
    assert len(proxy.backend.sandboxes) == 1


async def test_requests_for_one_id_at_the_same_time_make_one_sandbox(proxy: Proxy) -> None:
    proxy.backend.may_start.clear()
    body = {"lang": "python", "session_id": str(uuid.uuid4())}
    tasks = [asyncio.create_task(proxy.http.post("/sessions", json=body)) for _ in range(5)]
    await eventually(lambda: proxy.backend.attempts)
    proxy.backend.may_start.set()
    answers = await asyncio.gather(*tasks)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    assert len({answer.json()["sandbox"] for answer in answers}) == 1
    assert proxy.backend.attempts == 1


async def test_a_caller_that_left_finds_its_session_or_makes_it_anew(proxy: Proxy) -> None:
    proxy.backend.may_start.clear()
    body = {"lang": "python", "session_id": str(uuid.uuid4())}
    caller = proxy.call("POST", "/sessions", body)
    await eventually(lambda: proxy.backend.attempts)
    await caller.leave()
    proxy.backend.may_start.set()
    response = await proxy.http.post("/sessions", json=body)
    assert response.status_code in (200, 201)
    await eventually(lambda: len(proxy.backend.sandboxes) == 1)
    assert proxy.sandbox(body["session_id"])


async def test_a_session_that_is_ended_while_it_starts_leaves_nothing(proxy: Proxy) -> None:
    proxy.backend.may_start.clear()
    body = {"lang": "python", "session_id": str(uuid.uuid4())}
    task = asyncio.create_task(proxy.http.post("/sessions", json=body))
    await eventually(lambda: proxy.backend.attempts)
    assert (await proxy.http.delete(f"/sessions/{body['session_id']}")).status_code == 200
    assert (await asyncio.wait_for(task, 5)).status_code == 404
    proxy.backend.may_start.set()
    assert (await proxy.http.get("/sessions")).json()["sessions"] == []
    assert not proxy.backend.sandboxes


async def test_all_that_runs_is_listed(proxy: Proxy) -> None:
    made = {await proxy.session() for _ in range(3)}
    listing = (await proxy.http.get("/sessions")).json()
    assert set(listing["sessions"]) == {item["session_id"] for item in listing["items"]} == made


async def test_a_session_ends_at_once_and_its_sandbox_soon(proxy: Proxy) -> None:
    session_id = await proxy.session()
    ended = await proxy.http.delete(f"/sessions/{session_id}")
    assert (ended.status_code, ended.json()["status"]) == (200, "terminated")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/stats"), ("POST", "/execute")):
        response = await proxy.http.request(method, f"/sessions/{session_id}{path}", json={"code": "print 1"})
        assert (response.status_code, response.json()["error"]) == (404, "unknown_session")
    assert (await proxy.http.get("/sessions")).json()["sessions"] == []
    await eventually(lambda: not proxy.backend.sandboxes)


async def test_a_session_whose_sandbox_dies_is_unknown_and_its_place_is_free(proxy: Proxy) -> None:
    session_id = await proxy.session()
    proxy.sandbox(session_id).die("killed from outside")
    await eventually(lambda: not proxy.backend.sandboxes)
    assert (await proxy.http.get(f"/sessions/{session_id}")).status_code == 404


async def test_limits_come_from_the_request_or_else_from_the_settings(proxy: Proxy) -> None:
    limits = {"memory_bytes": 64 * 1024 * 1024, "pids": 33}
    spec = proxy.sandbox(await proxy.session(limits=limits)).spec
    assert (spec.limits.memory_bytes, spec.limits.pids) == (64 * 1024 * 1024, 33)
    assert (spec.limits.cpus, spec.limits.disk_bytes, spec.network) == (1.0, 512 * 1024 * 1024, "none")


async def test_the_numbers_of_a_sandbox_can_be_asked_for(proxy: Proxy) -> None:
    session_id = await proxy.session()
    numbers = (await proxy.http.get(f"/sessions/{session_id}/stats")).json()
    assert numbers["processes"] == 1
    assert {"memory_bytes", "cpu_ms", "disk_bytes", "disk_limit_bytes"} <= set(numbers)


async def test_a_sandbox_that_cannot_start_is_ours_to_explain(proxy: Proxy) -> None:
    proxy.backend.start_error = SandboxStartFailed("The sandbox did not start.")
    response = await proxy.http.post("/sessions", json={"lang": "python"})
    assert (response.status_code, response.json()["detail"]) == (502, "The sandbox did not start.")
    proxy.backend.start_error = BackendUnavailable("The engine is away.", mend="Start it.")
    response = await proxy.http.post("/sessions", json={"lang": "python"})
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert (await proxy.http.get("/sessions")).json()["sessions"] == []


async def test_there_are_no_more_sandboxes_than_may_be(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, max_sandboxes=2)
    async with running(settings, FakeBackend(settings)) as proxy:
        first = await proxy.session()
        await proxy.session()
        refused = await proxy.http.post("/sessions", json={"lang": "python"})
        assert refused.status_code == 503
        assert "Retry-After" in refused.headers
        await proxy.http.delete(f"/sessions/{first}")
        await eventually(lambda: len(proxy.backend.sandboxes) == 1)
        await proxy.session()


async def test_the_bound_holds_for_requests_at_the_same_time(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, max_sandboxes=2)
    async with running(settings, FakeBackend(settings)) as proxy:
        proxy.backend.may_start.clear()
        tasks = [asyncio.create_task(proxy.http.post("/sessions", json={})) for _ in range(4)]
        await eventually(lambda: proxy.backend.attempts >= 2)
        proxy.backend.may_start.set()
        statuses = sorted(answer.status_code for answer in await asyncio.gather(*tasks))
        assert statuses == [201, 201, 503, 503]
        assert len(proxy.backend.sandboxes) == 2
