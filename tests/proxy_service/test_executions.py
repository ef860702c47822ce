"""Executions: in order, joined by id, never run twice, ended with their sandbox, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import uuid

from tests.proxy_service.conftest import Proxy, eventually


async def test_the_result_tells_everything_about_a_run(proxy: Proxy, session_id: str) -> None:
    result = await proxy.execute(session_id, "print out\nerror err")
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("out\n", "err\n", 0)
    assert (result["status"], result["signal"], result["truncated"]) == ("succeeded", None, False)
    assert result["duration_ms"] >= 0
    assert result["max_rss_bytes"] > 0
    assert result["started_at"] <= result["finished_at"]
    # started, stdout, stderr, exit
    assert result["last_seq"] == 4
    assert uuid.UUID(result["execution_id"])


async def test_code_that_fails_is_a_result_and_no_error(proxy: Proxy, session_id: str) -> None:
    result = await proxy.execute(session_id, "print before\nexit 7\nprint after")
    assert (result["status"], result["exit_code"], result["stdout"]) == ("failed", 7, "before\n")
    wrong = await proxy.execute(session_id, "nonsense")
    assert (wrong["status"], wrong["exit_code"]) == ("failed", 1)
    assert "nonsense" in wrong["stderr"]


async def test_code_that_takes_too_long_is_timed_out_with_its_output(proxy: Proxy, session_id: str) -> None:
    result = await proxy.execute(session_id, "print partly\nwait", timeout=0.05)
    assert (result["status"], result["exit_code"], result["signal"]) == ("timed_out", None, 9)
    assert result["stdout"] == "partly\n"


async def test_code_that_takes_too_much_memory_says_so(proxy: Proxy, session_id: str) -> None:
    assert (await proxy.execute(session_id, "oom"))["status"] == "out_of_memory"


async def test_code_gets_standard_input_and_environment(proxy: Proxy) -> None:
    session_id = await proxy.session(env={"A": "of the session", "B": "kept"})
    result = await proxy.execute(session_id, "stdin\nenv A\nenv B", stdin="in\n", env={"A": "of the run"})
    assert result["stdout"] == "in\nof the run\nkept\n"


async def test_megabytes_of_standard_input_and_output_pass(proxy: Proxy, session_id: str) -> None:
    text = "\u20acx" * 1_000_000
    result = await proxy.execute(session_id, "stdin", stdin=text, output_limit_bytes=8 * 1024 * 1024)
    assert (result["stdout"] == text, result["truncated"]) == (True, False)


async def test_output_beyond_the_limit_is_cut_in_its_middle_and_said(proxy: Proxy, session_id: str) -> None:
    result = await proxy.execute(session_id, "flood 5000\nprint the end", output_limit_bytes=2048)
    assert (result["truncated"], result["status"]) == (True, "succeeded")
    assert result["stdout"].startswith("x" * 1024 + "\n[")
    assert result["stdout"].endswith("x\nthe end\n") or result["stdout"].endswith("xthe end\n")
    assert str(5000 + len("the end\n") - 2048) in result["stdout"]


async def test_a_character_in_two_chunks_comes_out_whole_and_bytes_that_are_none_are_marked(
    proxy: Proxy, session_id: str
) -> None:
    result = await proxy.execute(session_id, "bytes e282\nbytes ac\nbytes ff41\nbytes e2")
    assert result["stdout"] == "\u20ac\ufffdA\ufffd"


# --- joined by id ---------------------------------------------------------------------------------------------------


async def test_the_same_id_at_the_same_time_runs_once(proxy: Proxy, session_id: str) -> None:
    execution_id, first = await proxy.begin(session_id, "wait\nprint once")
    second = asyncio.create_task(proxy.execute(session_id, "wait\nprint once", execution_id=execution_id))
    proxy.backend.go_on.set()
    results = await asyncio.gather(first, second)
    assert results[0] == results[1]
    assert proxy.sandbox(session_id).started == 1


async def test_the_same_id_later_gives_the_same_result(proxy: Proxy, session_id: str) -> None:
    execution_id = str(uuid.uuid4())
    first = await proxy.execute(session_id, "print once", execution_id=execution_id)
    for _ in range(20):
        await proxy.execute(session_id, "print other")
    assert await proxy.execute(session_id, "print once", execution_id=execution_id) == first
    assert proxy.sandbox(session_id).started == 21


async def test_the_same_id_never_runs_again_even_when_the_journal_has_lost_it(proxy: Proxy, session_id: str) -> None:
    execution_id = str(uuid.uuid4())
    await proxy.execute(session_id, "print once", execution_id=execution_id)
    for _ in range(40):
        await proxy.execute(session_id, "print other")
    started = proxy.sandbox(session_id).started
    response = await proxy.http.post(
        f"/sessions/{session_id}/execute", json={"code": "print once", "execution_id": execution_id}
    )
    assert response.status_code in (200, 404)
    assert proxy.sandbox(session_id).started == started


async def test_an_id_that_was_asked_for_too_early_runs_when_it_comes(proxy: Proxy, session_id: str) -> None:
    execution_id = str(uuid.uuid4())
    early = proxy.call("GET", f"/sessions/{session_id}/executions/{execution_id}/events")
    result = await proxy.execute(session_id, "print once", execution_id=execution_id)
    assert (result["status"], result["stdout"]) == ("succeeded", "once\n")
    assert await early.status() in (200, 404)
    assert len(await early.lines()) > 0


async def test_a_caller_that_leaves_does_not_stop_its_code(proxy: Proxy, session_id: str) -> None:
    execution_id = str(uuid.uuid4())
    body = {"code": "print first\nwait\nprint last", "execution_id": execution_id}
    caller = proxy.call("POST", f"/sessions/{session_id}/execute", body)
    assert await caller.status() == 200
    while (await caller.line() or {})["type"] != "stdout":
        pass
    await caller.leave()
    waiting = asyncio.create_task(proxy.execute(session_id, body["code"], execution_id=execution_id))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    proxy.backend.go_on.set()
    result = await proxy.execute(session_id, body["code"], execution_id=execution_id)
    assert (result["stdout"], result["status"]) == ("first\nlast\n", "succeeded")
    assert proxy.sandbox(session_id).started == 1


# --- in order -------------------------------------------------------------------------------------------------------


async def test_executions_run_in_the_order_in_which_they_came(proxy: Proxy, session_id: str) -> None:
    _, first = await proxy.begin(session_id, "wait")
    others = [await proxy.queue(session_id, f"print {number}") for number in range(3)]
    assert (await proxy.http.get(f"/sessions/{session_id}")).json()["busy"] is True
    proxy.backend.go_on.set()
    await asyncio.gather(first, *(task for _, task in others))
    assert list(proxy.sandbox(session_id).runs)[1:] == [execution_id for execution_id, _ in others]


async def test_one_execution_too_many_is_refused_and_the_queue_goes_on(proxy: Proxy, session_id: str) -> None:
    _, first = await proxy.begin(session_id, "wait")
    others = [await proxy.queue(session_id, "print queued") for _ in range(3)]
    refused = await proxy.http.post(f"/sessions/{session_id}/execute", json={"code": "print no"})
    assert refused.status_code == 429
    assert "Retry-After" in refused.headers
    # Joining one that is there takes no place.
    joined = asyncio.create_task(proxy.execute(session_id, "print queued", execution_id=others[0][0]))
    proxy.backend.go_on.set()
    results = await asyncio.gather(first, joined, *(task for _, task in others))
    assert {result["status"] for result in results} == {"succeeded"}
    assert (await proxy.execute(session_id, "print again"))["stdout"] == "again\n"


async def test_sessions_do_not_wait_for_each_other(proxy: Proxy) -> None:
    slow, fast = await proxy.session(), await proxy.session()
    _, task = await proxy.begin(slow, "wait")
    assert (await proxy.execute(fast, "print fast"))["stdout"] == "fast\n"
    proxy.backend.go_on.set()
    await task


# --- cancelled ------------------------------------------------------------------------------------------------------


async def test_a_running_execution_is_cancelled_with_its_output(proxy: Proxy, session_id: str) -> None:
    execution_id, task = await proxy.begin(session_id, "print partly\nwait")
    response = await proxy.http.delete(f"/sessions/{session_id}/executions/{execution_id}")
    assert response.status_code == 200
    result = await task
    assert (result["status"], result["stdout"], result["exit_code"]) == ("cancelled", "partly\n", None)
    assert (await proxy.execute(session_id, "print next"))["status"] == "succeeded"


async def test_a_queued_execution_is_cancelled_without_ever_running(proxy: Proxy, session_id: str) -> None:
    _, first = await proxy.begin(session_id, "wait")
    queued, task = await proxy.queue(session_id, "print never")
    assert (await proxy.http.delete(f"/sessions/{session_id}/executions/{queued}")).status_code == 200
    result = await asyncio.wait_for(task, 5)
    assert (result["status"], result["stdout"]) == ("cancelled", "")
    proxy.backend.go_on.set()
    await first
    assert proxy.sandbox(session_id).started == 1
    again = await proxy.execute(session_id, "print never", execution_id=queued)
    assert again["status"] == "cancelled"
    assert proxy.sandbox(session_id).started == 1


async def test_cancelling_what_has_ended_changes_nothing(proxy: Proxy, session_id: str) -> None:
    execution_id = str(uuid.uuid4())
    await proxy.execute(session_id, "print done", execution_id=execution_id)
    response = await proxy.http.delete(f"/sessions/{session_id}/executions/{execution_id}")
    assert response.status_code == 200
    assert (await proxy.events(session_id, execution_id))[-1]["data"]["reason"] == "exited"


async def test_cancelling_what_never_was_is_a_404(proxy: Proxy, session_id: str) -> None:
    response = await proxy.http.delete(f"/sessions/{session_id}/executions/{uuid.uuid4()}")
    assert (response.status_code, response.json()["error"]) == (404, "unknown_execution")


# --- lost -----------------------------------------------------------------------------------------------------------


async def test_a_sandbox_that_dies_gives_what_it_had_said(proxy: Proxy, session_id: str) -> None:
    result = await proxy.execute(session_id, "print partly\ndie")
    assert (result["status"], result["stdout"], result["exit_code"]) == ("lost", "partly\n", None)
    assert result["error"]
    assert (await proxy.http.get(f"/sessions/{session_id}")).status_code == 404


async def test_what_waits_behind_a_sandbox_that_dies_is_answered_too(proxy: Proxy, session_id: str) -> None:
    _, first = await proxy.begin(session_id, "wait\ndie")
    path = f"/sessions/{session_id}/execute"
    others = [proxy.call("POST", path, {"code": "print never"}) for _ in range(2)]
    assert [await call.status() for call in others] == [200, 200]
    proxy.backend.go_on.set()
    assert (await asyncio.wait_for(first, 5))["status"] == "lost"
    assert [(await call.lines())[-1]["data"]["reason"] for call in others] == ["lost", "lost"]


async def test_ending_a_session_answers_everybody_who_waits_for_it(proxy: Proxy, session_id: str) -> None:
    _, running = await proxy.begin(session_id, "print partly\nwait")
    queued = proxy.call("POST", f"/sessions/{session_id}/execute", {"code": "print never"})
    assert await queued.status() == 200
    assert (await proxy.http.delete(f"/sessions/{session_id}")).status_code == 200
    result = await asyncio.wait_for(running, 5)
    assert (result["status"] in ("cancelled", "lost"), result["stdout"]) == (True, "partly\n")
    assert (await queued.lines())[-1]["data"]["reason"] in ("cancelled", "lost")
    await eventually(lambda: not proxy.backend.sandboxes)


async def test_a_sandbox_that_dies_while_idle_ends_its_session(proxy: Proxy, session_id: str) -> None:
    proxy.sandbox(session_id).die("killed from outside")
    await asyncio.sleep(0)
    response = await proxy.http.post(f"/sessions/{session_id}/execute", json={"code": "print 1"})
    assert response.status_code in (404, 502) or response.json()["status"] == "lost"
    await eventually(lambda: not proxy.backend.sandboxes)
