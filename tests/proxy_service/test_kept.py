"""What an execution printed outlives its sandbox, for whoever has not read it yet; for a while, and bounded."""

from __future__ import annotations

import uuid

import pytest

from proxy_service.backends.base import SandboxEvent
from proxy_service.executions import Execution
from proxy_service.kept import ENTRY_BYTES, KeptExecutions
from tests.proxy_service.conftest import Proxy, eventually


async def start(proxy: Proxy, session_id: str, code: str, *, until: str) -> str:
    """Run code that nobody waits for; return its id once an event of that type has come."""
    execution_id = str(uuid.uuid4())
    body = {"code": code, "execution_id": execution_id}
    caller = proxy.call("POST", f"/sessions/{session_id}/execute", body)
    while (await caller.line() or {})["type"] != until:
        pass
    await caller.leave()
    return execution_id


async def lose(proxy: Proxy, session_id: str) -> None:
    proxy.sandbox(session_id).die("killed from outside")
    await eventually(lambda: not proxy.backend.sandboxes)


async def test_what_a_lost_sandbox_ran_is_told_with_its_output_so_far(proxy: Proxy, session_id: str) -> None:
    running = await start(proxy, session_id, "print so far\nwait", until="stdout")
    queued = await start(proxy, session_id, "print never", until="queued")
    await lose(proxy, session_id)
    for execution_id, types in ((running, ["started", "stdout", "exit"]), (queued, ["exit"])):
        events = await proxy.events(session_id, execution_id)
        assert [event["type"] for event in events] == types
        assert (events[-1]["data"]["reason"], events[-1]["data"]["status"]) == ("lost", "lost")
    assert (await proxy.events(session_id, running, after=1))[0]["data"] == "so far\n"
    assert (await proxy.http.get(f"/sessions/{session_id}")).status_code == 404


async def test_what_a_session_ran_when_it_was_ended_is_cancelled_and_keeps_its_output(
    proxy: Proxy, session_id: str
) -> None:
    execution_id = await start(proxy, session_id, "print so far\nwait", until="stdout")
    await proxy.http.delete(f"/sessions/{session_id}")
    events = await proxy.events(session_id, execution_id)
    assert [event["type"] for event in events] == ["started", "stdout", "exit"]
    assert events[-1]["data"]["status"] == "cancelled"


async def test_what_ended_before_its_sandbox_was_lost_keeps_its_own_end(proxy: Proxy, session_id: str) -> None:
    execution_id = await start(proxy, session_id, "print whole\nexit 3", until="stdout")
    await eventually(lambda: len(proxy.app.state.service.sessions.kept))
    await lose(proxy, session_id)
    events = await proxy.events(session_id, execution_id, follow="false")
    assert (events[1]["data"], events[-1]["data"]["exit_code"], events[-1]["data"]["status"]) == (
        "whole\n",
        3,
        "failed",
    )


async def test_who_asks_again_for_the_result_gets_the_output_so_far_and_nothing_runs(
    proxy: Proxy, session_id: str
) -> None:
    code = "print so far\nwait"
    execution_id = await start(proxy, session_id, code, until="stdout")
    await lose(proxy, session_id)
    for _ in range(2):
        result = await proxy.execute(session_id, code, execution_id=execution_id)
        assert (result["status"], result["stdout"]) == ("lost", "so far\n")
    response = await proxy.http.delete(f"/sessions/{session_id}/executions/{execution_id}")
    assert response.json() == {"execution_id": execution_id, "cancelled": False, "status": "lost"}


async def test_an_execution_that_a_lost_sandbox_never_had_is_unknown(proxy: Proxy, session_id: str) -> None:
    await lose(proxy, session_id)
    for method, path in (("GET", "/events"), ("DELETE", "")):
        response = await proxy.http.request(method, f"/sessions/{session_id}/executions/{uuid.uuid4()}{path}")
        assert (response.status_code, response.json()["error"]) == (404, "unknown_session")


async def test_what_was_read_is_kept_no_longer(proxy: Proxy, session_id: str) -> None:
    kept = proxy.app.state.service.sessions.kept
    await proxy.execute(session_id, "print a")
    execution_id = await start(proxy, session_id, "print b", until="exit")
    await eventually(lambda: len(kept) == 1)
    assert (await proxy.events(session_id, execution_id))[-1]["type"] == "exit"
    assert len(kept) == 0
    # The sandbox has it still.
    assert (await proxy.events(session_id, execution_id))[-1]["type"] == "exit"


async def test_a_waiter_that_is_gone_when_its_answer_comes_has_not_read_it(proxy: Proxy, session_id: str) -> None:
    body = {"code": "wait\nprint b", "execution_id": str(uuid.uuid4())}
    caller = proxy.call("POST", f"/sessions/{session_id}/execute", body, accept="application/json")
    await eventually(lambda: body["execution_id"] in proxy.sandbox(session_id).runs)
    caller.hang_up()
    proxy.backend.go_on.set()
    await eventually(lambda: len(proxy.app.state.service.sessions.kept) == 1)
    await caller.leave()
    await lose(proxy, session_id)
    events = await proxy.events(session_id, body["execution_id"])
    assert (events[1]["data"], events[-1]["data"]["status"]) == ("b\n", "succeeded")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def ended(size: int = 0) -> Execution:
    execution = Execution(None, str(uuid.uuid4()))
    execution.transcript.append(SandboxEvent(1, "stdout", 0.0, body=b"x" * size))
    execution.finish_as("lost")
    return execution


async def test_kept_executions_go_when_their_time_is_over() -> None:
    clock = Clock()
    kept = KeptExecutions(keep_s=60, clock=clock)
    first, second = await ended(), await ended()
    kept.put("a", first)
    clock.now = 59
    kept.put("a", second)
    assert kept.get("a", first.id) is first
    assert kept.get("b", first.id) is None
    clock.now = 60
    assert kept.get("a", first.id) is None
    assert kept.get("a", second.id) is second


@pytest.mark.parametrize("size", [0, 100_000])
async def test_kept_executions_take_a_bounded_amount_of_memory_and_the_oldest_go_first(size: int) -> None:
    kept = KeptExecutions(max_bytes=10 * (size + 2 * ENTRY_BYTES))
    executions = [await ended(size) for _ in range(50)]
    for execution in executions:
        kept.put("a", execution)
        kept.put("a", execution)
    assert 10 <= len(kept) <= 20
    assert kept.get("a", executions[0].id) is None
    assert kept.get("a", executions[-1].id) is executions[-1]
