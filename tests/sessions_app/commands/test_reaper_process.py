"""The reaper as a process: it sweeps until a signal, and then goes at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a migrated database."""
    path = tmp_path_factory.mktemp("reaper")
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(command, env=environment(path, 9), cwd=ROOT, check=True, timeout=60)
    return path


def environment(data_dir: Path, proxy_port: int) -> dict[str, str]:
    return {
        **os.environ,
        "DATA_DIR": str(data_dir),
        "DATABASE_URL": f"sqlite:///{data_dir / 'db.sqlite3'}",
        "PROXY_URL": f"http://127.0.0.1:{proxy_port}",
        "PROXY_TOKEN": "token",
        "LOG_LEVEL": "INFO",
    }


@contextmanager
def reaper(data_dir: Path, proxy_port: int, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run a reaper; yield it with the lines of its log."""
    command = [sys.executable, "manage.py", "reap_sessions", *arguments]
    process = subprocess.Popen(
        command, env=environment(data_dir, proxy_port), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    assert process.stderr is not None
    reader = threading.Thread(target=lines.extend, args=(process.stderr,))
    reader.start()
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


def stop(process: subprocess.Popen[str], number: int) -> float:
    """Send a signal; return after how many seconds the process was gone."""
    started = time.monotonic()
    process.send_signal(number)
    assert process.wait(10) == 0
    return time.monotonic() - started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_between_two_sweeps(database: Path, number: int) -> None:
    with reaper(database, 9, "--interval", "60") as (process, lines):
        wait_until(lambda: any("reconcile fails" in line for line in lines), timeout_s=30, what="the first sweep")
        # An idle machine shows some 0.2 s; the bound only tells it from one that waits for the next sweep.
        assert stop(process, number) < 5
    assert "Reaper stopped" in lines[-1]


def test_a_signal_ends_it_while_it_waits_for_a_proxy_that_does_not_answer(database: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        reaper(database, silent.getsockname()[1], "--interval", "60") as (process, _lines),
    ):
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            assert stop(process, signal.SIGTERM) < 5


def test_it_says_once_that_the_proxy_is_away_and_ends_by_itself(database: Path) -> None:
    with reaper(database, 9, "--interval", "0.05", "--max-seconds", "1") as (process, lines):
        assert process.wait(30) == 0
    assert sum("reconcile fails" in line for line in lines) == 1
    assert not any("Traceback" in line for line in lines)
