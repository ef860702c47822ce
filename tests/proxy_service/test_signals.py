"""The real server process: a signal ends it soon, and everybody gets a true answer first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.postgres import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "the-token-of-a-server-that-is-stopped"

pytestmark = pytest.mark.servers


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(port: int, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A proxy with sandboxes in memory, which lets running code finish for a few seconds."""
    environment = {
        **os.environ,
        "PROXY_TOKEN": TOKEN,
        "PROXY_PORT": str(port),
        "SANDBOX_BACKEND": "fake",
        "DATA_DIR": str(tmp_path),
        "STOP_TIMEOUT_S": "5",
    }
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy_service", "serve"], cwd=ROOT, env=environment, stdout=log, stderr=log
    )
    log.close()
    yield process
    process.kill()
    process.wait(10)


@pytest.fixture
def http(port: int, server: subprocess.Popen[bytes]) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=30) as client:
        wait_until(lambda: _answers(client), what="the proxy to answer")
        yield client


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").status_code == 200
    except httpx.TransportError:
        return False


def _busy(client: httpx.Client, session_id: str) -> bool:
    return bool(client.get(f"/sessions/{session_id}").json()["busy"])


def test_a_signal_answers_who_waits_refuses_what_is_new_and_ends_the_server(
    server: subprocess.Popen[bytes], http: httpx.Client, tmp_path: Path
) -> None:
    session_id = http.post("/sessions", json={}).json()["session_id"]
    run = f"/sessions/{session_id}/execute"
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(http.post, run, json={"code": "print a\nsleep 60"})
        wait_until(lambda: _busy(http, session_id), what="the code to run")
        queued = threads.submit(http.post, run, json={"code": "print b"})
        wait_until(lambda: b"live_executions 2.0" in http.get("/metrics").content, what="the second to wait")
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: http.get("/").json()["status"] == "stopping", what="the signal to arrive")
        for path, body in (("/sessions", {}), (run, {"code": "print c"})):
            refused = http.post(path, json=body)
            assert (refused.status_code, refused.json()["error"]) == (503, "shutting_down")
            assert int(refused.headers["Retry-After"]) > 0
        # The sandbox outlives this proxy: the next one has the answer.
        assert [call.result(10).status_code for call in (waiting, queued)] == [503, 503]
    assert server.wait(10) == 0
    assert b"Traceback" not in (tmp_path / "log").read_bytes()


def test_a_server_that_has_nothing_to_do_ends_at_once(server: subprocess.Popen[bytes], http: httpx.Client) -> None:
    assert http.post("/sessions", json={}).status_code == 201
    server.send_signal(signal.SIGINT)
    assert server.wait(3) == 0
