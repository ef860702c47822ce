"""Real servers for the tests: proxy, app and reaper as processes, on free ports, with data of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from deploy.supervisor.processes import TETHER
from tests.postgres import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "the-proxy-token-of-the-integration-tests"
ADMIN, PASSWORD = "admin", "only-for-the-tests-7"
START_TIMEOUT_S = 60


@dataclass
class Servers:
    """One installation; `start`, `kill` and `stop` take the names `proxy`, `app` and `reaper`."""

    backend: str
    database_url: str
    data_dir: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    app_port: int = field(default_factory=free_port)
    proxy_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    key: str = ""

    @property
    def app_url(self) -> str:
        return f"http://127.0.0.1:{self.app_port}"

    @property
    def proxy_url(self) -> str:
        return f"http://127.0.0.1:{self.proxy_port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DATABASE_URL": self.database_url,
            "DATA_DIR": str(self.data_dir),
            "PROXY_TOKEN": TOKEN,
            "PROXY_URL": self.proxy_url,
            "PROXY_PORT": str(self.proxy_port),
            "APP_PORT": str(self.app_port),
            "SANDBOX_BACKEND": self.backend,
            "PROXY_INSTANCE": f"test-{self.proxy_port}",
            "PYTHONUNBUFFERED": "1",
            **self.settings,
        }

    def set_up(self) -> None:
        """Migrate, make an administrator and their key, start everything."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.manage("migrate", "--noinput", "--verbosity", "0")
        self.key = self.make_administrator()
        self.start("proxy", "app", "reaper")

    def make_user(self, name: str) -> str:
        """Make a user who may not log in to the admin; return a key of theirs."""
        return self.make_key(name, "--create-user")

    def make_administrator(self) -> str:
        """Make the administrator; return a key of theirs."""
        account = {"DJANGO_SUPERUSER_USERNAME": ADMIN, "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
        self.manage("createsuperuser", "--noinput", "--email", f"{ADMIN}@localhost", extra=account)
        return self.make_key(ADMIN)

    def make_key(self, *arguments: str) -> str:
        """Make an API key by the project's own command."""
        found = re.search(r"\bsbx_\S+", self.manage("create_api_key", *arguments))
        assert found is not None
        return found.group(0)

    def manage(self, *arguments: str, extra: Mapping[str, str] | None = None, check: bool = True) -> str:
        """Run a management command; return what it printed."""
        result = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={**self.environment, **(extra or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def command(self, name: str) -> list[str]:
        """Return the command line of a process."""
        where = ["-b", "127.0.0.1", "-p", str(self.app_port)]
        arguments = {
            "proxy": ["-m", "proxy_service", "serve"],
            "app": ["-m", "sandboxweb.server", *where, "sandboxweb.asgi:application"],
            "reaper": ["manage.py", "reap_sessions", "--interval", "1"],
        }
        return [sys.executable, "-I", "-S", TETHER, str(os.getpid()), sys.executable, *arguments[name]]

    def start(self, *names: str) -> None:
        """Start processes, and wait until those that are servers answer."""
        for name in names:
            self.launch(name)
        for name, url in (("proxy", self.proxy_url), ("app", self.app_url)):
            if name in names:
                wait_until(lambda n=name, u=url: self.answers(n, u), timeout_s=START_TIMEOUT_S, what=f"the {name}")

    def launch(self, name: str) -> None:
        """Start a process without waiting for it."""
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.command(name),
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def answers(self, name: str, url: str) -> bool:
        """Return whether a server answers; fail with its log when its process ended."""
        assert self.processes[name].poll() is None, f"{name} ended:\n{self.log(name).read_text()[-3000:]}"
        try:
            return httpx.get(f"{url}/", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def log(self, name: str) -> Path:
        """Return the path of a process's log."""
        return self.data_dir / f"{name}.log"

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one process."""
        self.processes[name].send_signal(number)

    def kill(self, *names: str) -> None:
        """End processes as a crash would."""
        for name in names:
            self.signal(name, signal.SIGKILL)
        for name in names:
            self.processes.pop(name).wait(10)

    def stop(self, *names: str) -> None:
        """End processes as an operator would; fail when one takes longer than 10 s."""
        for name in names:
            self.signal(name, signal.SIGTERM)
        for name in names:
            self.processes.pop(name).wait(10)

    def tear_down(self) -> None:
        """End everything that still runs, the proxy last."""
        for name in ("app", "reaper", "proxy"):
            if name in self.processes:
                self.stop(name)

    def containers_left(self) -> list[str]:
        """Return the containers of this installation that still exist; none on other backends."""
        if self.backend != "docker":
            return []
        ours = f"label=sandboxweb.instance={self.environment['PROXY_INSTANCE']}"
        listed = subprocess.run(["docker", "ps", "-aq", "--filter", ours], capture_output=True, text=True, check=True)
        return listed.stdout.split()

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        """Return a client of the app server with a key (the administrator's unless given)."""
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.Client(base_url=self.app_url, headers=headers, timeout=60, trust_env=False, **options)

    def proxy_client(self) -> httpx.Client:
        """Return a client of the proxy server."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.Client(base_url=self.proxy_url, headers=headers, timeout=60, trust_env=False)
