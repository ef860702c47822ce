"""A private PostgreSQL cluster for the tests: its own directory, port and life."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from deploy.supervisor.processes import TETHER
from tests.groups import postgres_bin
from tests.waiting import wait_until

# Nothing of a test outlives the machine: durability would only cost time.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60", "shared_buffers=32MB")


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Run a cluster for as long as the block lasts; yield the URL of its database `postgres`."""
    bin_dir = postgres_bin()
    assert bin_dir is not None
    owner = database_owner()
    home = Path(tempfile.mkdtemp(prefix="sandboxweb-pg-"))
    log = home / "log"
    try:
        if owner:
            shutil.chown(home, owner["user"], owner["group"])
        data = home / "data"
        initdb = [bin_dir / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run([*initdb, "--locale=C"], check=True, capture_output=True, cwd=home, **owner)
        port = free_port()
        options = [part for option in FAST for part in ("-c", option)]
        server = [str(bin_dir / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(home)]
        tether = [sys.executable, "-I", "-S", TETHER, str(os.getpid())] if not owner else []
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*tether, *server, *options], cwd=home, stdout=output, stderr=subprocess.STDOUT, **owner
            )
        try:
            url = f"postgres://postgres@127.0.0.1:{port}/postgres"
            wait_until(lambda: _answers(url), timeout_s=30, what=f"PostgreSQL to answer: {log}")
            yield url
        finally:
            # SIGINT is PostgreSQL's fast shutdown: sessions are ended, files are left whole.
            process.send_signal(2)
            process.wait(20)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def create_database(server_url: str, name: str) -> str:
    """Make an empty database; return its URL."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{server_url.rsplit('/', 1)[0]}/{name}"


def database_owner() -> dict[str, Any]:
    """Return whom to run it as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    message = "no user to run PostgreSQL as"
    raise LookupError(message)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
