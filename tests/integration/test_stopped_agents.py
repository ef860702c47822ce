"""An agent that is stopped is found by its silence: sandbox destroyed, session lost, what its code printed kept."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.chaos.processes import family
from tests.integration.servers import Servers
from tests.waiting import wait_until

# Asked for at every half second, silent for one and a half: with a last chance of two seconds, and a sweep.
GRACE_S = 1.5 + 2.0
SLACK_S = 20.0


@pytest.fixture
def impatient(servers: Servers) -> Iterator[Servers]:
    """The servers, with a proxy that hears soon when an agent is silent."""
    before = servers.settings
    servers.stop("proxy")
    servers.settings = {**before, "AGENT_PING_S": "0.5", "AGENT_SILENCE_S": "1.5"}
    servers.start("proxy")
    yield servers
    servers.settings = before
    servers.stop("proxy")
    servers.start("proxy")


def sandboxes(servers: Servers) -> set[str]:
    """Return the containers of the proxy, or the processes that are agents of its bubblewrap sandboxes."""
    if servers.backend == "docker":
        return set(servers.containers_left())
    found = set()
    for pid in family(servers.processes["proxy"].pid):
        try:
            parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
            holder = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if holder.endswith(b"bwrap"):
            found.add(str(pid))
    return found


def stop_agents(servers: Servers) -> set[str]:
    """Stop the agent of every sandbox, those of the pool too; return which they were."""
    stopped = sandboxes(servers)
    if servers.backend == "docker":
        subprocess.run(["docker", "kill", "--signal", "STOP", *stopped], check=True, capture_output=True)
    else:
        for pid in stopped:
            os.kill(int(pid), signal.SIGSTOP)
    return stopped


def test_a_stopped_agent_costs_its_session_and_no_output(impatient: Servers, api: httpx.Client) -> None:
    made = api.post("/sessions", json={"lang": "python"})
    assert made.status_code == 201, made.text
    session_id = made.json()["session_id"]
    body = {"code": "import time\nprint('so far', flush=True)\ntime.sleep(600)", "wait": False, "timeout": 600}
    execution_id = api.post(f"/sessions/{session_id}/execute", json=body).json()["execution_id"]
    wait_until(lambda: api.get(f"/executions/{execution_id}").json()["stdout"], what="the first output")
    stopped = stop_agents(impatient)
    began = time.monotonic()
    wait_until(
        lambda: api.get(f"/sessions/{session_id}").json()["status"] == "failed",
        timeout_s=GRACE_S + SLACK_S,
        what="the session to be lost",
    )
    assert time.monotonic() - began > 0.5, "it was lost for another reason"
    assert api.get(f"/sessions/{session_id}").json()["termination_reason"] == "lost"
    execution = api.get(f"/executions/{execution_id}").json()
    assert (execution["status"], execution["stdout"]) == ("lost", "so far\n")
    wait_until(lambda: not stopped & sandboxes(impatient), timeout_s=30, what="the sandboxes to be gone")
    assert api.post(f"/sessions/{session_id}/execute", json={"code": "1"}).status_code == 410
