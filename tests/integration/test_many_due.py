"""Five hundred sessions due at once and two reapers: each session ends exactly once, with its sandbox, and soon."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.integration.servers import ROOT, Servers
from tests.waiting import wait_until

pytestmark = [pytest.mark.bubblewrap, pytest.mark.servers, pytest.mark.timeout(400)]

SESSIONS = 500
MAKERS = 4
WITHIN_S = 30

ALL_ARE_DUE = """
from sessions_app import clock
from sessions_app.models import Session
print(Session.objects.active().update(expires_at=clock.now()))
"""
WHAT_CAME_OF_THEM = """
import json
from collections import Counter
from sessions_app.models import Session, SessionEvent
ended = SessionEvent.objects.filter(to_status__in=["terminating", "terminated"]).order_by()
print(json.dumps({
    "states": Counter(" ".join(row) for row in Session.objects.values_list("status", "termination_reason").order_by()),
    "events": Counter(f"{row[0]} {row[1]}" for row in ended.values_list("to_status", "actor")),
    "sessions_with_events": [
        ended.filter(to_status=status).values("session").distinct().count() for status in ("terminating", "terminated")
    ],
}))
"""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """An installation of its own, on bubblewrap and SQLite."""
    data_dir = tmp_path_factory.mktemp("many-due")
    running = Servers(backend="bubblewrap", database_url=f"sqlite:///{data_dir / 'db.sqlite3'}", data_dir=data_dir)
    try:
        running.set_up()
        yield running
    finally:
        running.tear_down()


def shell(servers: Servers, script: str) -> str:
    return servers.manage("shell", "--no-imports", "-c", script).strip()


def made(servers: Servers, count: int) -> set[str]:
    """Make sessions, some at a time."""

    def make(_number: int) -> str:
        answer = client.post("/sessions", json={"lang": "python", "idle_timeout": 3600})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["session_id"])

    with servers.client() as client, ThreadPoolExecutor(MAKERS) as pool:
        return set(pool.map(make, range(count)))


def test_two_reapers_end_five_hundred_due_sessions_once_each(installation: Servers) -> None:
    servers = installation
    servers.stop("reaper")
    sessions = made(servers, SESSIONS)
    with servers.proxy_client() as proxy:
        assert sessions <= set(proxy.get("/sessions").json()["sessions"])
    assert int(shell(servers, ALL_ARE_DUE)) == SESSIONS

    second = (servers.data_dir / "second-reaper.log").open("wb")
    began = time.monotonic()
    servers.start("reaper")
    with (
        second,
        subprocess.Popen(
            servers.command("reaper"), cwd=ROOT, env=servers.environment, stdout=second, stderr=second
        ) as another,
    ):
        try:
            with servers.client() as client:
                wait_until(
                    lambda: _count(client, "terminated") == SESSIONS, timeout_s=WITHIN_S, what="every session to end"
                )
            took_s = time.monotonic() - began
        finally:
            another.terminate()
    assert another.returncode == 0
    assert took_s < WITHIN_S

    found: dict[str, Any] = json.loads(shell(servers, WHAT_CAME_OF_THEM))
    assert found["states"] == {"terminated idle": SESSIONS}
    assert found["events"] == {"terminating reaper": SESSIONS, "terminated reaper": SESSIONS}
    assert found["sessions_with_events"] == [SESSIONS, SESSIONS]
    with servers.proxy_client() as proxy:
        assert proxy.get("/sessions").json()["sessions"] == []
    logs = [servers.log("reaper").read_text(), (servers.data_dir / "second-reaper.log").read_text()]
    assert not any("Traceback" in log for log in logs)
    # Both had a share in it.
    assert Counter("Swept: " in log and "end_expired" in log for log in logs) == {True: 2}


def _count(client: httpx.Client, status: str) -> int:
    time.sleep(0.2)
    return int(client.get("/sessions", params={"status": status, "page_size": 1}).json()["count"])
