"""A CI run must start its engines on a machine that never had one, after a clean stop, and after a kill."""

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "run"


def drop_stale_pid(file: Path, command: str) -> None:
    """Call the script's own function as the script does: the first line that fails ends it."""
    text = SCRIPT.read_text()
    options = re.search(r"^set -.*$", text, re.MULTILINE)
    function = re.search(r"^drop_stale_pid\(\) \{.*?^\}$", text, re.MULTILINE | re.DOTALL)
    assert options
    assert function
    lines = [options[0], function[0], 'drop_stale_pid "$1" "$2"', "echo went on"]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines), "bash", str(file), command], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_a_machine_without_an_earlier_engine_goes_on(tmp_path: Path) -> None:
    drop_stale_pid(tmp_path / "docker.pid", "dockerd")


@pytest.mark.parametrize("content", ["", "999999999", str(os.getpid())])
def test_the_pid_of_no_engine_is_removed(tmp_path: Path, content: str) -> None:
    file = tmp_path / "docker.pid"
    file.write_text(content)
    drop_stale_pid(file, "dockerd")
    assert not file.exists()


def test_the_pid_of_an_engine_that_runs_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "docker.pid"
    with subprocess.Popen(["sleep", "60"]) as engine:
        file.write_text(str(engine.pid))
        drop_stale_pid(file, "sleep")
        engine.kill()
    assert file.read_text() == str(engine.pid)


def test_the_pid_of_an_engine_that_nobody_has_waited_for_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "docker.pid"
    with subprocess.Popen(["sleep", "0"]) as engine:
        file.write_text(str(engine.pid))
        os.waitid(os.P_PID, engine.pid, os.WEXITED | os.WNOWAIT)
        drop_stale_pid(file, "sleep")
    assert not file.exists()
