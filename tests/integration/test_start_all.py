"""`./start_all.sh` as a person uses it: comes up, restarts what dies, keeps its data, leaves no process."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from deploy.supervisor.settings import parse_env
from tests.integration.servers import ROOT
from tests.postgres import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.bubblewrap, pytest.mark.servers, pytest.mark.timeout(240)]
STOP_S = 10


class Started:
    """A running `./start_all.sh` and what it printed so far."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.printed = data_dir.parent / f"printed-{time.monotonic_ns()}"
        environment = {**os.environ, "DATA_DIR": str(data_dir), "SANDBOX_BACKEND": "bubblewrap", **settings}
        # As in a fresh shell: what run_tests.sh set for the tests is not the user's.
        for name in ("DATABASE_URL", "PROXY_TOKEN", "SECRET_KEY"):
            environment.pop(name, None)
        with self.printed.open("wb") as output:
            self.process = subprocess.Popen(
                [ROOT / "start_all.sh"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.printed.read_text()

    @property
    def credentials(self) -> dict[str, str]:
        return parse_env((self.data_dir / "credentials.env").read_text())

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.credentials['SANDBOXWEB_API_KEY']}"}
        url = self.credentials["SANDBOXWEB_URL"]
        return httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)

    def wait_until_ready(self) -> None:
        wait_until(lambda: "is ready" in self.text or self.process.poll() is not None, timeout_s=90, what="the start")
        assert self.process.poll() is None, self.text

    def stop(self, number: signal.Signals = signal.SIGINT) -> float:
        """Stop it as Ctrl-C does; return the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(30) == 0, self.text
        return time.monotonic() - started


@contextmanager
def started(data_dir: Path, **settings: str) -> Iterator[Started]:
    """Run `./start_all.sh` for as long as the block lasts."""
    running = Started(data_dir, **settings)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait(10)


@pytest.fixture
def ports() -> dict[str, str]:
    return {"APP_PORT": str(free_port()), "PROXY_PORT": str(free_port())}


def processes_with(data_dir: Path) -> list[str]:
    """Return the command lines of all processes whose environment names this data directory."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and f"DATA_DIR={data_dir}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def pid_of(data_dir: Path, words: str) -> int:
    """Return the process of this installation whose command line has these words."""
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and f"DATA_DIR={data_dir}".encode() in (process / "environ").read_bytes():
                line = (process / "cmdline").read_text().replace("\0", " ")
                if words in line and "tether" not in line:
                    return int(process.name)
        except OSError:
            continue
    return 0


def test_it_runs_code_keeps_data_and_leaves_no_process(tmp_path: Path, ports: dict[str, str]) -> None:
    data_dir = tmp_path / "var"
    with started(data_dir, **ports) as first:
        first.wait_until_ready()
        assert "print(1+1) -> 2" in first.text
        file = data_dir / "credentials.env"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert set(first.credentials) == {
            "SANDBOXWEB_URL",
            "SANDBOXWEB_API_KEY",
            "SANDBOXWEB_ADMIN_USER",
            "SANDBOXWEB_ADMIN_PASSWORD",
            "PROXY_URL",
            "PROXY_TOKEN",
        }
        for secret in ("SANDBOXWEB_API_KEY", "SANDBOXWEB_ADMIN_PASSWORD", "PROXY_TOKEN"):
            assert first.credentials[secret] not in first.text
            assert all(first.credentials[secret] not in log.read_text() for log in (data_dir / "logs").iterdir())
        with first.client() as api:
            made = api.post("/sessions", json={"lang": "python"}).json()
            ran = api.post(f"/sessions/{made['session_id']}/execute", json={"code": "print('kept')"}).json()
        assert first.stop() < STOP_S
        assert processes_with(data_dir) == []

    other_ports = {"APP_PORT": str(free_port()), "PROXY_PORT": str(free_port())}
    begun = time.monotonic()
    with started(data_dir, **other_ports) as second:
        second.wait_until_ready()
        assert time.monotonic() - begun < 30
        assert other_ports["APP_PORT"] in second.credentials["SANDBOXWEB_URL"]
        with second.client() as api:
            assert api.get(f"/executions/{ran['execution_id']}").json()["stdout"] == "kept\n"
        assert second.stop(signal.SIGTERM) < STOP_S
        assert processes_with(data_dir) == []


def test_what_dies_is_started_again_and_a_killed_supervisor_leaves_nothing(
    tmp_path: Path, ports: dict[str, str]
) -> None:
    data_dir = tmp_path / "var"
    with started(data_dir, **ports) as running:
        running.wait_until_ready()
        for words in ("proxy_service serve", "sandboxweb.server", "reap_sessions"):
            pid = pid_of(data_dir, words)
            assert pid, words
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda w=words, p=pid: pid_of(data_dir, w) not in (0, p), timeout_s=20, what=f"a new {words}")
        assert running.text.count("died (SIGKILL)") == 3
        body = {"lang": "python", "code": "print('back')"}
        with running.client() as api:
            wait_until(lambda: _stdout(api, body) == "back\n", timeout_s=60, what="the whole path to work again")
        running.process.kill()
        running.process.wait(10)
        wait_until(lambda: processes_with(data_dir) == [], what="every process to be gone")


def test_a_taken_port_is_named_with_who_holds_it(tmp_path: Path, ports: dict[str, str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", int(ports["APP_PORT"]))), started(tmp_path / "var", **ports) as failed:
        assert failed.process.wait(60) == 1
        assert f"Port {ports['APP_PORT']} is taken by" in failed.text
        assert f"process {os.getpid()}" in failed.text
        assert "APP_PORT=" in failed.text
        assert processes_with(tmp_path / "var") == []


def test_a_second_start_on_the_same_data_is_refused(tmp_path: Path, ports: dict[str, str]) -> None:
    data_dir = tmp_path / "var"
    with started(data_dir, **ports) as running:
        wait_until(lambda: (data_dir / "start_all.pid").is_file() or running.process.poll(), what="the lock")
        with started(data_dir) as refused:
            assert refused.process.wait(60) == 1
            assert "runs on" in refused.text
        running.wait_until_ready()


@pytest.mark.parametrize(("name", "value"), [("APP_PORT", "no"), ("PROXY_PORT", "70000")])
def test_a_port_that_is_no_port_is_named(tmp_path: Path, name: str, value: str) -> None:
    with started(tmp_path / "var", **{name: value}) as failed:
        assert failed.process.wait(60) == 1
        assert f"{name} is '{value}'" in failed.text


def test_docker_that_is_asked_for_and_away_is_an_error_with_its_mend(tmp_path: Path, ports: dict[str, str]) -> None:
    away = {"SANDBOX_BACKEND": "docker", "DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    with started(tmp_path / "var", **ports, **away) as failed:
        assert failed.process.wait(60) == 1
        assert "Docker" in failed.text
        assert "DOCKER_HOST" in failed.text
        assert "Traceback" not in failed.text


def test_without_docker_auto_falls_back_to_bubblewrap(tmp_path: Path, ports: dict[str, str]) -> None:
    away = {"SANDBOX_BACKEND": "auto", "DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    with started(tmp_path / "var", **ports, **away) as running:
        running.wait_until_ready()
        assert "bubblewrap" in running.text


def test_help_needs_nothing(tmp_path: Path) -> None:
    script = ["/bin/bash", str(ROOT / "start_all.sh"), "--help"]
    shown = subprocess.run(
        script, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "APP_PORT" in shown.stdout


def _stdout(api: httpx.Client, body: dict[str, str]) -> str:
    try:
        return str(api.post("/sandbox/execute", json=body).json().get("stdout"))
    except httpx.TransportError:
        return ""
