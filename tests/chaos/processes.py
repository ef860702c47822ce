"""What stands beside the servers and is struck like them: a PostgreSQL cluster and a Docker engine of the run's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from deploy.supervisor.processes import TETHER
from tests.groups import postgres_bin
from tests.postgres import database_owner, free_port
from tests.waiting import wait_until

Spawn = Callable[[Callable[[], None]], None]

ANSWER_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
# What a crash of a process can lose must be what a crash of this database can lose: its durability stays on.
OPTIONS = ("max_connections=80", "shared_buffers=32MB", "listen_addresses=127.0.0.1")
IMAGE = "sandboxweb-python:latest"


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


class Daemon:
    """A process that is killed with its whole family, and started again from what it left on the disk.

    `spawn` runs what starts the process: see `Installation`.
    """

    def __init__(self, home: Path, spawn: Spawn) -> None:
        self.home = home
        self.spawn = spawn
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command line."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Tell whether it serves."""
        raise NotImplementedError

    def launch(self, **options: Any) -> None:
        """Start it without waiting."""
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.home, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **options
            )

    def start(self) -> None:
        """Start it until it answers: a database refuses while the last of its predecessor's processes ends."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            if self.process is None or self.process.poll() is not None:
                self.spawn(self.launch)
            if self.answers():
                return
            assert time.monotonic() < deadline, f"it does not answer:\n{(self.home / 'log').read_text()[-3000:]}"
            time.sleep(0.1)

    def signal(self, number: signal.Signals) -> None:
        """Signal the process alone."""
        assert self.process is not None
        self.process.send_signal(number)

    def signal_family(self, number: signal.Signals) -> None:
        """Signal the process and all that descend from it."""
        assert self.process is not None
        for pid in family(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def ended(self) -> bool:
        """Tell whether the process has ended."""
        return self.process is None or self.process.poll() is not None

    def wait(self) -> None:
        """Wait for its end after a signal."""
        if self.process is not None:
            self.process.wait(STOP_TIMEOUT_S)
            self.process = None


class Database(Daemon):
    """A PostgreSQL cluster whose durability is not switched off."""

    def __init__(self, home: Path, spawn: Spawn) -> None:
        super().__init__(home, spawn)
        self.port = free_port()
        self.owner = database_owner()
        bin_dir = postgres_bin()
        assert bin_dir is not None
        self.bin_dir = bin_dir
        if self.owner:
            shutil.chown(home, self.owner["user"], self.owner["group"])
        initdb = [bin_dir / "initdb", "-D", home / "data", "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=home, **self.owner)

    @property
    def url(self) -> str:
        """Return the URL of its database."""
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def command(self) -> list[str]:
        """Return the server's command line."""
        options = [part for option in OPTIONS for part in ("-c", option)]
        server = [str(self.bin_dir / "postgres"), "-D", str(self.home / "data"), "-p", str(self.port)]
        return [*server, "-k", str(self.home), *options]

    def launch(self, **options: Any) -> None:
        """Start it as the user that it wants to be."""
        super().launch(**self.owner, **options)

    def answers(self) -> bool:
        """Tell whether it takes connections."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


class DockerEngine(Daemon):
    """A Docker daemon with its own directories and socket, and this project's image in it.

    As distributions install it: containerd is a process of its own, so that a killed daemon takes nothing with it.
    """

    def __init__(self, home: Path, spawn: Spawn) -> None:
        super().__init__(home, spawn)
        self.url = f"unix://{home / 'docker.sock'}"
        self.live_restore = True
        self.containerd: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the daemon's command line."""
        directories = ["--data-root", self.home / "data", "--exec-root", self.home / "exec"]
        network = ["--bridge=none", "--iptables=false", "--ip-masq=false"]
        restore = ["--live-restore"] if self.live_restore else []
        where = ["--containerd", self.home / "containerd.sock", "--pidfile", self.home / "pid", "-H", self.url]
        return self._tethered("dockerd", *directories, *where, *network, *restore)

    def _tethered(self, *command: object) -> list[str]:
        return [sys.executable, "-I", "-S", TETHER, str(os.getpid()), *map(str, command)]

    def launch(self, **options: Any) -> None:
        """Start it, whatever file a killed one left."""
        if self.containerd is None:
            self._launch_containerd()
        (self.home / "pid").unlink(missing_ok=True)
        super().launch(start_new_session=True, **options)

    def _launch_containerd(self) -> None:
        config = self.home / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        directories = ["--root", self.home / "containerd", "--state", self.home / "containerd-state"]
        socket = self.home / "containerd.sock"
        command = self._tethered("containerd", "--config", config, *directories, "--address", socket)
        with (self.home / "containerd-log").open("ab") as log:
            self.containerd = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        wait_until(socket.exists, timeout_s=30, what="containerd")

    def answers(self) -> bool:
        """Tell whether it serves."""
        try:
            return self.docker("version", timeout_s=5).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def docker(self, *arguments: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        """Run the client against this daemon."""
        command = ["docker", "--host", self.url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)

    def load_image(self) -> None:
        """Bring the image over from the machine's own daemon."""
        with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as saved:
            loaded = subprocess.run(
                ["docker", "--host", self.url, "load"], stdin=saved.stdout, capture_output=True, check=False
            )
        assert loaded.returncode == 0, loaded.stderr.decode()

    def containers(self) -> dict[str, str]:
        """Return {container id: name of the sandbox} of all containers, running or not."""
        listed = self.docker("ps", "-a", "--no-trunc", "--format", '{{.ID}} {{.Label "sandboxweb.name"}}')
        assert listed.returncode == 0, listed.stderr
        return {line.split()[0]: [*line.split(), ""][1] for line in listed.stdout.splitlines()}

    def shims(self) -> dict[str, int]:
        """Return {container id: pid} of the containers that have a process, whether or not the daemon knows them."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if (
                    words[0].endswith("containerd-shim-runc-v2")
                    and str(self.home) in words[words.index("-address") + 1]
                ):
                    found[words[words.index("-id") + 1]] = int(entry.name)
        return found

    def unknown(self) -> tuple[dict[str, str], int]:
        """Return {container id: what runs in it} of what this daemon has lost sight of, and how many empty shims.

        Killed while it starts a container, a daemon may leave containerd's shim behind with nothing in it.
        """
        known, running, empty = self.containers(), {}, 0
        for key, pid in self.shims().items():
            if key in known:
                continue
            if inside := family(pid)[1:]:
                running[key] = _command(inside[-1])
            else:
                empty += 1
        return running, empty

    def remove(self) -> None:
        """End the containers, the daemon and its directories."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            for container in self.containers():
                self.docker("rm", "-f", container)
        self.signal(signal.SIGTERM)
        self.wait()
        for pid in (each for shim in self.shims().values() for each in reversed(family(shim))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.containerd is not None:
            self.containerd.terminate()
            self.containerd.wait(STOP_TIMEOUT_S)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((mount for mount in mounts if mount.startswith(f"{self.home}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return "nothing"
