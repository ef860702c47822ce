"""A proxy that stops finishes what it can, and the next one takes over what it left."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

from proxy_service.backends.fake import FakeBackend
from proxy_service.settings import Settings
from tests.proxy_service.conftest import eventually, make_settings, running


async def test_what_runs_is_finished_and_its_caller_answered(settings: Settings, backend: FakeBackend) -> None:
    async with running(settings, backend) as proxy:
        session_id = await proxy.session()
        _, task = await proxy.begin(session_id, "wait\nprint done")
        asyncio.get_running_loop().call_later(0.05, backend.go_on.set)
    result = await asyncio.wait_for(task, 5)
    assert (result["status"], result["stdout"]) == ("succeeded", "done\n")


async def test_stopping_is_bounded_in_time_and_nobody_is_left_waiting(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, stop_timeout_s=0.2)
    backend = FakeBackend(settings)
    async with running(settings, backend) as proxy:
        session_id = await proxy.session()
        execution_id = str(uuid.uuid4())
        body = {"code": "print before\nwait\nprint after", "execution_id": execution_id}
        task = asyncio.create_task(proxy.http.post(f"/sessions/{session_id}/execute", json=body))
        await eventually(lambda: execution_id in proxy.sandbox(session_id).runs)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 5
    response = await asyncio.wait_for(task, 5)
    assert response.status_code == 503 or response.json()["status"] in ("lost", "error")


async def test_no_task_is_left_behind(settings: Settings, backend: FakeBackend) -> None:
    before = asyncio.all_tasks()
    async with running(settings, backend) as proxy:
        session_id = await proxy.session()
        await proxy.http.put("/pool", json={"templates": [{"template": "python", "warm_pool_size": 2}]})
        await proxy.execute(session_id, "print a")
        await proxy.http.get(f"/sessions/{session_id}/executions/{uuid.uuid4()}/events")
        await eventually(lambda: len(backend.sandboxes) == 3)
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert left == set()


async def test_the_pool_ends_with_the_proxy_and_sessions_do_not(settings: Settings, backend: FakeBackend) -> None:
    async with running(settings, backend) as proxy:
        await proxy.http.put("/pool", json={"templates": [{"template": "python", "warm_pool_size": 2}]})
        session_id = await proxy.session()
        await eventually(lambda: len(backend.sandboxes) == 3)
    assert [sandbox.session_id for sandbox in backend.sandboxes.values()] == [session_id]


async def test_the_next_proxy_goes_on_with_the_sessions_and_what_runs_in_them(
    settings: Settings, backend: FakeBackend
) -> None:
    body = {"code": "print before\nwait\nprint after", "execution_id": str(uuid.uuid4())}
    async with running(make_settings(settings.data_dir, stop_timeout_s=0.1), backend) as proxy:
        session_id = await proxy.session()
        done = await proxy.execute(session_id, "print done")
        call = proxy.call("POST", f"/sessions/{session_id}/execute", body)
        await eventually(lambda: body["execution_id"] in proxy.sandbox(session_id).runs)
    await call.leave()
    async with running(settings, backend) as proxy:
        assert (await proxy.http.get("/sessions")).json()["sessions"] == [session_id]
        # A new execution waits for what an earlier proxy started.
        behind = asyncio.create_task(proxy.execute(session_id, "print behind"))
        joined = asyncio.create_task(proxy.http.post(f"/sessions/{session_id}/execute", json=body))
        events = proxy.call("GET", f"/sessions/{session_id}/executions/{body['execution_id']}/events")
        assert await events.status() == 200
        assert [(await events.line() or {})["type"] for _ in range(2)] == ["started", "stdout"]
        backend.go_on.set()
        result = (await joined).json()
        assert (result["status"], result["stdout"]) == ("succeeded", "before\nafter\n")
        assert (await behind)["stdout"] == "behind\n"
        assert (await proxy.events(session_id, done["execution_id"]))[-1]["type"] == "exit"
        assert proxy.sandbox(session_id).started == 3
        again = await proxy.http.post("/sessions", json={"lang": "python", "session_id": session_id})
        assert (again.status_code, again.json()["sandbox"]) == (200, proxy.sandbox(session_id).name)
        other = await proxy.http.post("/sessions", json={"lang": "javascript", "session_id": session_id})
        assert other.status_code == 409


async def test_the_next_proxy_removes_what_nobody_was_given(settings: Settings, backend: FakeBackend) -> None:
    async with running(settings, backend) as proxy:
        await proxy.session()
    orphan = await backend.create(next(iter(backend.sandboxes.values())).spec, "left-in-a-pool")
    async with running(settings, backend):
        await eventually(lambda: orphan.name not in backend.sandboxes)
        assert len(backend.sandboxes) == 1


async def test_a_stream_that_the_stop_cuts_has_no_exit_and_the_next_proxy_tells_the_rest(
    settings: Settings, backend: FakeBackend
) -> None:
    body = {"code": "print before\nwait\nprint after", "execution_id": str(uuid.uuid4())}
    async with running(make_settings(settings.data_dir, stop_timeout_s=0.1), backend) as proxy:
        session_id = await proxy.session()
        stream = proxy.call("POST", f"/sessions/{session_id}/execute", body)
        assert await stream.status() == 200
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["type"] != "stdout":
            seen.append(await stream.line() or {})
    assert await asyncio.wait_for(stream.lines(), 5) == []
    backend.go_on.set()
    async with running(settings, backend) as proxy:
        rest = await proxy.events(session_id, body["execution_id"], after=seen[-1]["seq"])
        assert [event["type"] for event in rest] == ["stdout", "exit"]
        assert (rest[0]["data"], rest[-1]["data"]["status"]) == ("after\n", "succeeded")
