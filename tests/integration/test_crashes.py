"""Servers that are killed or away: rows stay true, clients get clear answers, nothing stays stuck."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.integration.servers import Servers
from tests.waiting import wait_until


def test_rows_are_there_and_true_after_both_servers_were_killed(servers: Servers, api: httpx.Client) -> None:
    made = api.post("/sessions", json={"lang": "python", "metadata": {"made": "before"}}).json()
    run = f"/sessions/{made['session_id']}/execute"
    ran = api.post(run, json={"code": "print('kept')"}).json()

    servers.kill("app", "proxy")
    servers.start("proxy", "app")

    kept = api.get(f"/executions/{ran['execution_id']}").json()
    told = {key: kept[key] for key in ran}
    if servers.backend == "bubblewrap" and told["expires_at"] is None:
        # The session went with the proxy, and that has been noticed: it has no deadline any more.
        told["expires_at"] = ran["expires_at"]
    assert told == ran
    session = api.get(f"/sessions/{made['session_id']}").json()
    assert session["metadata"] == {"made": "before"}
    if servers.backend == "docker":
        # The container lived on: a new proxy finds it again.
        assert api.post(run, json={"code": "print('again')"}).json()["stdout"] == "again\n"
    else:
        # The sandbox ended with the proxy that held it: whoever touches the session learns so.
        assert api.post(run, json={"code": "print('again')"}).status_code in (410, 502)
        wait_until(lambda: _ended_as_lost(api, made["session_id"]), timeout_s=30, what="the lost session's row")
    assert api.post("/sandbox/execute", json={"code": "print(1)", "lang": "python"}).json()["stdout"] == "1\n"


def test_an_execution_cut_by_a_kill_does_not_stay_running(servers: Servers, api: httpx.Client) -> None:
    session_id = api.post("/sessions", json={"lang": "python"}).json()["session_id"]
    run = f"/sessions/{session_id}/execute"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.post, run, json={"code": "import time; time.sleep(2); print('end')"})
        wait_until(lambda: _running(api, session_id), what="the execution to run")
        servers.kill("app", "proxy")
        with pytest.raises(httpx.TransportError):
            waiting.result(30)
    servers.start("proxy", "app")
    wait_until(lambda: not _running(api, session_id), timeout_s=45, what="the execution to be settled")
    (row,) = api.get(f"/sessions/{session_id}/executions").json()["results"]
    if servers.backend == "docker":
        assert (row["status"], row["stdout"]) == ("succeeded", "end\n")
    else:
        assert row["status"] == "lost"


def test_while_the_proxy_is_away_clients_are_told_within_two_seconds(servers: Servers, api: httpx.Client) -> None:
    session_id = api.post("/sessions", json={"lang": "python"}).json()["session_id"]
    servers.stop("proxy")
    try:
        for path, body in (
            ("/sessions", {"lang": "python"}),
            (f"/sessions/{session_id}/execute", {"code": "print(1)"}),
            ("/sandbox/execute", {"lang": "python", "code": "print(1)"}),
        ):
            started = time.monotonic()
            answer = api.post(path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())})
            assert (path, answer.status_code) == (path, 503), answer.text
            assert time.monotonic() - started < 2
            assert int(answer.headers["Retry-After"]) > 0
        health = api.get("/")
        assert health.json()["proxy"] != "ok"
    finally:
        servers.start("proxy")
    wait_until(lambda: not _unfinished(api), timeout_s=45, what="every row to be finished")
    assert api.post("/sandbox/execute", json={"code": "print(1)", "lang": "python"}).json()["stdout"] == "1\n"


def _ended_as_lost(api: httpx.Client, session_id: str) -> bool:
    session = api.get(f"/sessions/{session_id}").json()
    return (session["status"], session["termination_reason"]) == ("failed", "lost")


def _running(api: httpx.Client, session_id: str) -> bool:
    rows = api.get(f"/sessions/{session_id}/executions").json()["results"]
    return any(row["status"] in ("queued", "running") for row in rows)


def _unfinished(api: httpx.Client) -> bool:
    """Return whether a session is on its way somewhere, or an execution of a session is not finished."""
    for status in ("pending", "terminating"):
        if api.get("/sessions", params={"status": status}).json()["count"]:
            return True
    return any(_running(api, session_id) for session_id in api.get("/sessions").json()["sessions"])
