from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from deploy.supervisor import processes
from deploy.supervisor.processes import LogFile, Service
from tests.waiting import wait_until


class Console:
    """What was announced."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, name: str, text: str) -> None:
        self.lines.append(f"{name} {text}")


def python(program: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]


def alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def until(condition: object, timeout_s: float = 10) -> None:
    """Wait for a condition with the loop running."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_what_a_process_says_is_logged_and_its_end_is_seen(tmp_path: Path) -> None:
    service = Service("app", python("print('one'); print('two')"), os.environ, tmp_path, Console())
    await service.start()
    assert await service.ended() == 0
    assert (tmp_path / "app.log").read_text() == "one\ntwo\n"
    assert service.last_words() == "one\ntwo"


async def test_a_process_that_dies_is_started_again_with_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "FIRST_DELAY_S", 0.01)
    console = Console()
    service = Service("app", python("raise SystemExit(3)"), os.environ, tmp_path, console)
    await service.start()
    watcher = asyncio.create_task(service.keep_running())
    await until(lambda: len(console.lines) >= 3)
    watcher.cancel()
    await service.stop(1)
    assert [line.split(";")[0] for line in console.lines[:3]] == [
        "app died (exit code 3), starts again in 0.01 s",
        "app died (exit code 3), starts again in 0.02 s",
        "app died (exit code 3), starts again in 0.04 s",
    ]


async def test_a_stop_kills_what_will_not_end_and_all_of_its_group(tmp_path: Path) -> None:
    stubborn = """
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(child.pid, flush=True)
        time.sleep(60)
    """
    console = Console()
    service = Service("app", python(stubborn), os.environ, tmp_path, console)
    await service.start()
    await until(lambda: bool(service.tail))
    child = int(service.tail[0])
    started = time.monotonic()
    await service.stop(0.2)
    assert time.monotonic() - started < 5
    await until(lambda: not alive(child))
    assert "killed" in console.lines[0]


async def test_a_grandchild_that_holds_the_log_open_does_not_hold_the_end(tmp_path: Path) -> None:
    leaver = """
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    """
    service = Service("app", python(leaver), os.environ, tmp_path, Console())
    await service.start()
    async with asyncio.timeout(10):
        assert await service.ended() == 0


async def test_verbose_shows_the_lines_under_their_name(tmp_path: Path) -> None:
    console = Console()
    service = Service("app", python("print('shown')"), os.environ, tmp_path, console, verbose=True)
    await service.start()
    await service.ended()
    assert console.lines == ["app | shown"]


def test_children_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    supervisor = """
        import asyncio, os, pathlib, sys
        from deploy.supervisor.processes import Service

        async def main():
            program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
            service = Service("app", [sys.executable, "-c", program], os.environ, pathlib.Path(sys.argv[1]), print)
            await service.start()
            await asyncio.sleep(60)

        asyncio.run(main())
    """
    with subprocess.Popen(python(supervisor, tmp_path), cwd=Path(__file__).resolve().parents[3]) as parent:
        log = tmp_path / "app.log"
        child = int(wait_until(lambda: log.exists() and log.read_text().strip(), what="the child"))
        assert alive(child)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(child), what="the child's end")


def test_a_tether_to_a_parent_that_is_gone_does_not_start_anything(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    command = [sys.executable, processes.TETHER, "1", "/bin/sh", "-c", f"touch {mark}"]
    assert subprocess.run(command, check=False).returncode == 1
    assert not mark.exists()


def test_a_log_keeps_one_older_part(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "app.log", limit_bytes=10)
    for text in (b"first\n", b"second\n", b"third\n"):
        log.write(text)
    log.close()
    assert (tmp_path / "app.log").read_bytes() == b"third\n"
    assert (tmp_path / "app.log.1").read_bytes() == b"second\n"
