"""A whole installation that can be struck anywhere, and that says what really runs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.chaos.plan import Blow
from tests.chaos.processes import Daemon, Database, DockerEngine
from tests.integration.servers import Servers

SERVERS = ("app", "proxy", "reaper")
TEMPLATE = "chaos"
# How long a process may take to end after SIGTERM before this is a finding; the servers promise 10 s.
STOP_TIMEOUT_S = 12.0
# How a supervisor starts a process again that ended by itself.
RESTART_PAUSE_S = 0.5
LOOK_S = 0.1

MAKE_TEMPLATE = """
from sessions_app.models import SandboxTemplate
SandboxTemplate.objects.exclude(name={name!r}).update(warm_pool_size=0)
SandboxTemplate.objects.update_or_create(
    name={name!r}, defaults={{"lang": "python", "network": "host", "warm_pool_size": {pool_size}}}
)
"""


def private_engine_possible() -> str | None:
    """Return why this machine cannot run a Docker daemon of the run's own; None when it can."""
    if os.geteuid() != 0:
        return "only root can start a Docker daemon"
    return None if shutil.which("dockerd") else "there is no dockerd"


class Installation:
    """Servers on a database and a backend; `strike` and `mend` do what a plan says."""

    def __init__(self, *, backend: str, database: str, pool_size: int = 2) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="sandboxweb-chaos-"))
        self.home.chmod(0o755)
        # Processes end with the thread that started them (`tether.py`): so one thread that lives on starts them all.
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner")
        self.backend = backend
        self.pool_size = pool_size
        self.daemons: dict[str, Daemon] = {}
        self.deaths: list[str] = []
        """What ended by itself: `proxy: exit code 1`."""
        self.slow_stops: list[str] = []
        self.empty_shims = 0
        self._struck: set[str] = set()
        self._locks = {name: threading.RLock() for name in (*SERVERS, "database", "engine")}
        settings = {}
        url = f"sqlite:///{self.home / 'db.sqlite3'}"
        if database == "postgres":
            self.daemons["database"] = cluster = Database(self._directory("postgres"), self._spawn)
            url = cluster.url
        if backend == "docker":
            self.daemons["engine"] = engine = DockerEngine(self._directory("docker"), self._spawn)
            settings["DOCKER_HOST"] = engine.url
        self.servers = Servers(
            backend=backend, database_url=url, data_dir=self._directory("servers"), settings=settings
        )

    def _spawn(self, launch: Callable[[], None]) -> None:
        self._spawner.submit(launch).result()

    def _directory(self, name: str) -> Path:
        path = self.home / name
        path.mkdir()
        return path

    @property
    def targets(self) -> list[str]:
        """Return what can be struck."""
        return [*SERVERS, *self.daemons]

    @property
    def engine(self) -> DockerEngine | None:
        """Return the Docker engine, where there is one."""
        engine = self.daemons.get("engine")
        return engine if isinstance(engine, DockerEngine) else None

    @contextmanager
    def running(self) -> Iterator[Installation]:
        """Run everything for as long as the block lasts, and leave nothing behind."""
        try:
            for daemon in self.daemons.values():
                daemon.start()
            if self.engine is not None:
                self.engine.load_image()
            self.servers.set_up()
            self.set_pool(self.pool_size)
            yield self
        finally:
            self._tear_down()

    def set_pool(self, size: int) -> None:
        """Make the run's template, or change how many of its sandboxes are kept ready."""
        self.servers.manage("shell", "-v0", "-c", MAKE_TEMPLATE.format(name=TEMPLATE, pool_size=size))

    def _tear_down(self) -> None:
        for name, process in list(self.servers.processes.items()):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.slow_stops.append(name)
                process.kill()
                process.wait()
        database = self.daemons.get("database")
        if database is not None and not database.ended():
            database.signal(signal.SIGINT)
            database.wait()
        if self.engine is not None and not self.engine.ended():
            self.engine.remove()
        self._spawner.shutdown()
        shutil.rmtree(self.home, ignore_errors=True)

    def takes_sandboxes(self, blow: Blow) -> bool:
        """Tell whether a blow ends sandboxes: bubblewrap's end with their proxy, containers with their engine."""
        if self.backend == "bubblewrap":
            return blow.target == "proxy" and blow.kind != "stop"
        return blow.loses

    # --- striking and mending

    def strike(self, blow: Blow) -> None:
        """Do the first half of a blow."""
        with self._locks[blow.target]:
            self._struck.add(blow.target)
            daemon = self.daemons.get(blow.target)
            if daemon is None:
                number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "restart": signal.SIGTERM}[blow.kind]
                process = self.servers.processes[blow.target]
                process.send_signal(number)
            elif blow.kind == "kill":
                daemon.signal_family(signal.SIGKILL)  # PostgreSQL's processes are one server
            elif blow.kind == "stop":
                daemon.signal_family(signal.SIGSTOP)
            else:
                # PostgreSQL's own gentle end waits for its clients to leave: SIGINT is its fast one.
                daemon.signal(signal.SIGINT if blow.target == "database" else signal.SIGTERM)

    def mend(self, blow: Blow) -> None:
        """Do the second half: let go on, or start again once it has ended. Returns when servers were launched."""
        with self._locks[blow.target]:
            daemon = self.daemons.get(blow.target)
            if blow.kind == "stop":
                if daemon is not None:
                    daemon.signal_family(signal.SIGCONT)
                else:
                    self.servers.processes[blow.target].send_signal(signal.SIGCONT)
            elif daemon is not None:
                daemon.wait()
                if blow.loses and isinstance(daemon, DockerEngine):
                    self._start_losing(daemon)
                daemon.start()
            else:
                self._end_of(blow.target)
                self._spawn(lambda: self.servers.launch(blow.target))
            self._struck.discard(blow.target)

    @staticmethod
    def _start_losing(engine: DockerEngine) -> None:
        """Start a daemon that ends the containers which it finds, and end it again."""
        engine.live_restore = False
        engine.start()
        engine.live_restore = True
        engine.signal(signal.SIGTERM)
        engine.wait()

    def _end_of(self, name: str) -> None:
        process = self.servers.processes[name]
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.slow_stops.append(name)
            process.kill()
            process.wait()

    def supervise(self, stop: threading.Event) -> None:
        """Start a server again that ended by itself, as `start_all.sh` does, and keep account of it."""
        while not stop.wait(LOOK_S):
            for name in SERVERS:
                with self._locks[name]:
                    process = self.servers.processes[name]
                    if name in self._struck or process.poll() is None:
                        continue
                    self.deaths.append(f"{name}: exit code {process.returncode}")
                    time.sleep(RESTART_PAUSE_S)
                    self._spawn(partial(self.servers.launch, name))

    # --- what is true

    def rows(self, table: str, *columns: str) -> list[dict[str, Any]]:
        """Read columns of a whole table of the app, past the app: ids as text with dashes, instants in UTC."""
        query = f"SELECT {', '.join(columns)} FROM sessions_app_{table}"  # noqa: S608
        if isinstance(database := self.daemons.get("database"), Database):
            with psycopg.connect(database.url, row_factory=dict_row) as connection:
                found: list[dict[str, Any]] = connection.execute(query).fetchall()  # type: ignore[call-overload]
        else:
            path = self.servers.database_url.removeprefix("sqlite:///")
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)) as lite:
                lite.row_factory = sqlite3.Row
                found = [dict(row) for row in lite.execute(query)]
        return [{name: _plain(name, value) for name, value in row.items()} for row in found]

    def sandboxes(self) -> set[str]:
        """Return the names of the sandboxes that exist on this machine, found without asking the proxy."""
        if self.engine is not None:
            unknown, self.empty_shims = self.engine.unknown()
            strays = {f"{key[:12]}, unknown to its engine: {what}" for key, what in unknown.items()}
            return {name or key for key, name in self.engine.containers().items()} | strays
        return {name for _, name in self._bubblewrap_processes()}

    def _bubblewrap_processes(self) -> list[tuple[int, str]]:
        """Return (pid, sandbox) of every process whose command line names a directory of this installation."""
        pattern = re.compile(rf"{re.escape(str(self.servers.data_dir))}\S*/(sbx-[0-9a-f]+)/workspace")
        found = []
        for pid, line in _command_lines():
            if match := pattern.search(line):
                found.append((pid, match.group(1)))
        return found

    def left_behind(self) -> list[str]:
        """Return processes and directories of this installation that belong to nothing that lives."""
        live = {process.pid for process in self.servers.processes.values()}
        owner = f"DATA_DIR={self.servers.data_dir}\0".encode()
        parents = dict(_parents())
        left = []
        for pid, line in _command_lines():
            with contextlib.suppress(OSError):
                if owner in Path(f"/proc/{pid}/environ").read_bytes() and not _descends(pid, live, parents):
                    left.append(f"process {pid}: {line[:100]}")
        names = self.sandboxes()
        for directory in self.servers.data_dir.glob("**/sbx-*"):
            if directory.is_dir() and directory.name not in names:
                left.append(f"directory {directory.name}")
        return left

    def proxy_sessions(self) -> dict[str, str]:
        """Return {session id: sandbox} of what the proxy says that it runs."""
        with self.servers.proxy_client() as proxy:
            items = proxy.get("/sessions").raise_for_status().json()["items"]
        return {item["session_id"]: item["sandbox"] for item in items}

    def versions(self) -> str:
        """Describe the machine in a line."""
        cores = os.cpu_count()
        return f"{cores} cores, Linux {os.uname().release.split('-')[0]}, Python {sys.version.split()[0]}"


def _plain(name: str, value: Any) -> Any:
    if name == "id" or name.endswith("_id"):
        return str(uuid.UUID(str(value))) if value is not None else None
    if name.endswith("_at") and isinstance(value, str):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return value


def _command_lines() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])


def _descends(pid: int, ancestors: set[int], parents: dict[int, int]) -> bool:
    while pid > 1:
        if pid in ancestors:
            return True
        pid = parents.get(pid, 0)
    return False
