"""Time-outs with real servers, real sandboxes and the reaper as a process: what ends, when, and what is kept."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.integration.servers import ROOT, Servers
from tests.waiting import wait_until

# The reaper sweeps every second here; the rest is for a machine that does other things too.
SLACK_S = 12

SWEEP_WITH_A_CLOCK_SET = """
import datetime, sys, time_machine
from django.core.management import execute_from_command_line
wrong = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=int(sys.argv[1]))
with time_machine.travel(wrong, tick=True):
    execute_from_command_line(["manage.py", "reap_sessions", "--once"])
"""


def make(api: httpx.Client, **values: Any) -> str:
    answer = api.post("/sessions", json={"lang": "python", **values})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["session_id"])


def start(api: httpx.Client, session_id: str, code: str, **values: Any) -> str:
    """Run code without waiting for it; return the execution's id once it runs."""
    answer = api.post(f"/sessions/{session_id}/execute", json={"code": code, "wait": False, **values})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["execution_id"])


def listed(api: httpx.Client, *statuses: str) -> set[str]:
    """Return the newest sessions in these states; a list, unlike a look at one session, ends none that is due."""
    query = [("page_size", "200"), *(("status", status) for status in statuses)]
    return set(api.get("/sessions", params=query).json()["sessions"])


def ended(api: httpx.Client, session_id: str) -> bool:
    return session_id in listed(api, "terminated", "failed")


def who_ended(api: httpx.Client, session_id: str) -> list[str]:
    events = api.get(f"/sessions/{session_id}/events?page_size=200").json()["results"]
    return [event["actor"] for event in events if event["to_status"] == "terminated"]


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def sandboxes(servers: Servers) -> list[str]:
    with servers.proxy_client() as proxy:
        return list(proxy.get("/sessions").json()["sessions"])


def test_a_session_that_runs_code_is_not_idle_and_ends_two_seconds_after_it(
    servers: Servers, api: httpx.Client
) -> None:
    session_id = make(api, idle_timeout=2)
    execution_id = start(api, session_id, "import time; time.sleep(10); print('through')")
    wait_until(
        lambda: api.get(f"/executions/{execution_id}").json()["finished_at"], timeout_s=30, what="the code to end"
    )
    execution = api.get(f"/executions/{execution_id}").json()
    assert (execution["status"], execution["stdout"]) == ("succeeded", "through\n")
    assert seconds_between(execution["started_at"], execution["finished_at"]) >= 9.5
    wait_until(lambda: ended(api, session_id), timeout_s=2 + SLACK_S, what="the idle session to end")
    session = api.get(f"/sessions/{session_id}").json()
    assert (session["status"], session["termination_reason"]) == ("terminated", "idle")
    assert seconds_between(session["last_activity_at"], session["finished_at"]) >= 2
    assert seconds_between(execution["finished_at"], session["finished_at"]) >= 1.9
    assert who_ended(api, session_id) == ["reaper"]
    assert session_id not in sandboxes(servers)
    answer = api.post(f"/sessions/{session_id}/execute", json={"code": "print(1)"})
    assert (answer.status_code, answer.json()["termination_reason"]) == (410, "idle")


def test_the_lifetime_ends_code_that_runs_and_keeps_its_output_so_far(servers: Servers, api: httpx.Client) -> None:
    session_id = make(api, max_lifetime=3)
    code = "import time; print('so far', flush=True); time.sleep(60); print('never')"
    execution_id = start(api, session_id, code, timeout=90)
    wait_until(lambda: ended(api, session_id), timeout_s=3 + SLACK_S, what="the session's lifetime to end")
    session, execution = api.get(f"/sessions/{session_id}").json(), api.get(f"/executions/{execution_id}").json()
    assert (session["status"], session["termination_reason"]) == ("terminated", "max_lifetime")
    assert (execution["status"], execution["stdout"]) == ("cancelled", "so far\n")
    assert who_ended(api, session_id) == ["reaper"]
    assert 3 <= seconds_between(session["started_at"], session["finished_at"]) < 3 + SLACK_S
    assert session_id not in sandboxes(servers)


def test_an_end_is_announced_and_a_renewal_saves_the_session(servers: Servers, api: httpx.Client) -> None:
    session_id = make(api, idle_timeout=8)
    events = f"/sessions/{session_id}/events?page_size=200"

    def announced() -> list[dict[str, Any]]:
        return [event for event in api.get(events).json()["results"] if event["type"] == "expiring"]

    wait_until(announced, timeout_s=8, what="the announcement")
    (event,) = announced()
    assert (event["actor"], event["reason"]) == ("reaper", "idle")
    assert event["data"]["expires_at"] == api.get(f"/sessions/{session_id}").json()["expires_at"]
    renewed = api.post(f"/sessions/{session_id}/renew", json={"idle_timeout": 600}).json()
    assert seconds_between(event["data"]["expires_at"], renewed["expires_at"]) > 500
    time.sleep(5)
    assert api.get(f"/sessions/{session_id}").json()["status"] == "active"
    assert len(announced()) == 1


@pytest.mark.parametrize("hours", [1, -1])
def test_a_reaper_whose_machine_has_a_wrong_clock_ends_what_is_due_and_no_more(
    servers: Servers, api: httpx.Client, hours: int
) -> None:
    kept, due = make(api, idle_timeout=60), make(api, idle_timeout=1)
    servers.stop("reaper")
    try:
        time.sleep(1.1)
        command = [sys.executable, "-W", "ignore", "-c", SWEEP_WITH_A_CLOCK_SET, str(hours)]
        environment = {**servers.environment, "DJANGO_SETTINGS_MODULE": "sandboxweb.settings"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60)
        assert api.get(f"/sessions/{kept}").json()["status"] == "active"
        assert ended(api, due)
    finally:
        servers.start("reaper")
    assert api.post(f"/sessions/{kept}/execute", json={"code": "print(1)"}).json()["stdout"] == "1\n"


def test_while_the_proxy_is_away_the_reaper_goes_on_and_clears_the_backlog_when_it_returns(
    servers: Servers, api: httpx.Client
) -> None:
    due, kept = [make(api, idle_timeout=3) for _ in range(3)], make(api)
    log = servers.log("reaper")
    begins = log.stat().st_size
    servers.stop("proxy")
    try:
        wait_until(lambda: {*due} <= listed(api, "terminating"), timeout_s=3 + SLACK_S, what="their end")
        time.sleep(5)
        said = log.read_bytes()[begins:].decode()
        assert said.count("reconcile fails") == 1
        assert "Traceback" not in said
        assert servers.processes["reaper"].poll() is None
    finally:
        servers.start("proxy")
    wait_until(lambda: {*due} <= listed(api, "terminated"), timeout_s=SLACK_S, what="the backlog to be cleared")
    for session_id in due:
        assert api.get(f"/sessions/{session_id}").json()["termination_reason"] == "idle"
        assert session_id not in sandboxes(servers)
    if servers.backend == "docker":
        assert api.post(f"/sessions/{kept}/execute", json={"code": "print(1)"}).json()["stdout"] == "1\n"
    else:
        wait_until(lambda: ended(api, kept), timeout_s=SLACK_S, what="the session whose sandbox is gone")
        assert api.get(f"/sessions/{kept}").json()["termination_reason"] == "lost"
    assert "works again" in log.read_bytes()[begins:].decode()
