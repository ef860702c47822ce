"""Processes: how executions end, and that nothing of them is left."""

# Programs are read by their lines.
# ruff: noqa: E501

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proxy_service.agent import client
from tests.proxy_service.agent.client import AgentProcess, Finished

StartAgent = Callable[..., AgentProcess]

ENDLESS = {
    "busy": "while True: pass",
    "asleep": "import time\nwhile True: time.sleep(100)",
    "deaf": "import signal, time\nfor n in range(1, 32):\n    try: signal.signal(n, signal.SIG_IGN)\n"
    "    except OSError: pass\nwhile True: time.sleep(100)",
    "stopped": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "child": "import subprocess\nsubprocess.run(['sleep', '100'])",
    "session of its own": "import os, time\nif os.fork() == 0:\n    os.setsid()\ntime.sleep(100)",
    "double fork": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(100)\n"
    "    os._exit(0)\nos.wait()\ntime.sleep(100)",
    "many": "import os, time\nfor _ in range(30):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(100)\n"
    "        os._exit(0)\ntime.sleep(100)",
    "two parents": "import os, time\nend = time.time() + 20\nif os.fork(): time.sleep(100)\nwhile time.time() < end:\n"
    "    if os.fork(): os._exit(0)\n    os.setsid()",
    "thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(100,)).start()\ntime.sleep(100)",
    "atexit": "import atexit, time\natexit.register(time.sleep, 100)",
}


def descendants(pid: int) -> set[int]:
    """Return all processes below one."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(name)] = int(fields[1])
    found = {pid}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found - {pid}
        found |= more


def zygotes_only(agent: AgentProcess) -> bool:
    """Say whether nothing is left below the agent but its one warm interpreter."""
    return len(descendants(agent.pid)) <= 1


@pytest.mark.parametrize("name", ENDLESS)
def test_a_time_out_leaves_no_process(name: str, agent: AgentProcess) -> None:
    done = agent.run(ENDLESS[name], timeout_s=0.4)
    assert done.exit["reason"] == "timed_out"
    assert done.exit["signal"] == 9
    assert zygotes_only(agent)
    started = time.monotonic()
    assert agent.run("print('next')").text == "next\n"
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("name", ["busy", "double fork", "deaf", "stopped"])
def test_a_cancellation_leaves_no_process(name: str, agent: AgentProcess) -> None:
    agent.start(ENDLESS[name], execution_id="a")
    agent.wait_event("started")
    agent.ask("cancel", execution_id="a")
    assert agent.finish("a").exit["reason"] == "cancelled"
    assert zygotes_only(agent)


def test_a_shell_line_that_times_out_leaves_no_process(agent: AgentProcess) -> None:
    done = agent.shell("setsid sleep 100 & sleep 100 | cat", timeout_s=0.3)
    assert done.exit["reason"] == "timed_out"
    assert zygotes_only(agent)


def test_a_bounded_fork_bomb_is_swept(agent: AgentProcess) -> None:
    code = (
        "import os, time\nopen('n', 'w').close()\n"
        "def grow(depth):\n    while depth:\n        depth -= 1\n        try:\n            os.fork()\n"
        "        except OSError: pass\n    time.sleep(100)\ngrow(7)"
    )
    done = agent.run(code, timeout_s=1)
    assert done.exit["reason"] == "timed_out"
    assert zygotes_only(agent)
    assert agent.run("print('next')").text == "next\n"


def test_processes_of_others_are_left_alone(agent: AgentProcess) -> None:
    agent.shell("sleep 30 >/dev/null 2>&1 & echo $!")
    before = descendants(agent.pid)
    assert len(before) >= 1
    agent.run("while True: pass", timeout_s=0.2)
    assert before <= descendants(agent.pid) | set()
    assert [pid for pid in before if b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_service_lives_on_between_executions(agent: AgentProcess) -> None:
    service = (
        "import os, time\nfor n in range(600):\n"
        " print(n, flush=True)\n open('beat.new', 'w').write(str(n))\n os.replace('beat.new', 'beat')\n time.sleep(0.05)"
    )
    code = f"import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', {service!r}])\nprint('started')"
    started = time.monotonic()
    done = agent.run(code)
    assert time.monotonic() - started < 5
    assert done.exit["reason"] == "exited"
    assert done.exit["background"] == 1
    assert done.text.startswith("started")
    first = agent.run("import time\ntime.sleep(0.4)\nprint(open('beat').read())").text
    second = agent.run("import time\ntime.sleep(0.4)\nprint(open('beat').read())").text
    assert int(second) > int(first)
    agent.run("while True: pass", timeout_s=0.2)
    third = agent.run("import time\ntime.sleep(0.4)\nprint(open('beat').read())").text
    assert int(third) > int(second)


def test_shell_lines_run_until_one_fails(agent: AgentProcess) -> None:
    done = agent.shell("echo a", "cd /; pwd", "pwd; exit 3", "echo never")
    assert done.text == f"a\n/\n{agent.workdir}\n"
    assert done.exit["exit_code"] == 3


def test_shell_lines_share_one_input(agent: AgentProcess) -> None:
    execution_id = agent.start(kind="commands", commands=["read a; echo 1 $a", "read b; echo 2 $b"], stdin="data")
    agent.ask("stdin", b"x\ny\n", execution_id=execution_id, eof=False)
    assert b"1 x" in agent.finish(execution_id).stdout


def test_a_file_is_written_for_shell_lines(agent: AgentProcess) -> None:
    execution_id = agent.start(
        "echo from $1\n", kind="commands", filename="dir/run.sh", commands=["sh dir/run.sh file"]
    )
    assert agent.finish(execution_id).text == "from file\n"
    assert (agent.workdir / "dir/run.sh").exists()


def test_code_may_run_in_another_directory(agent: AgentProcess) -> None:
    (agent.workdir / "sub").mkdir()
    assert agent.run("import os\nprint(os.getcwd())", cwd="sub").text == f"{agent.workdir}/sub\n"
    done = agent.run("print(1)", cwd="missing")
    assert done.exit["exit_code"] == 2
    assert b"can't enter" in done.stderr


def test_code_that_kills_its_interpreter_harms_only_itself(agent: AgentProcess) -> None:
    agent.run("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nprint('killed')")
    assert agent.run("print('next')").text == "next\n"


def test_code_that_stops_its_interpreter_still_ends(agent: AgentProcess) -> None:
    done = agent.run("import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\nprint('out')\nraise SystemExit(4)")
    assert done.text == "out\n"
    assert done.exit["exit_code"] == 4
    assert agent.run("print('next')").text == "next\n"


def test_code_that_stops_its_interpreter_still_times_out(agent: AgentProcess) -> None:
    code = "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\nwhile True: pass"
    done = agent.run(code, timeout_s=0.3)
    assert done.exit["reason"] == "timed_out"
    assert agent.run("print('next')").text == "next\n"


def test_orphans_are_reaped(agent: AgentProcess) -> None:
    agent.shell("for i in 1 2 3 4 5; do (setsid sleep 0.05 >/dev/null 2>&1 &) ; done")
    until = time.monotonic() + 5
    while time.monotonic() < until and len(descendants(agent.pid)) > 0:
        time.sleep(0.02)
    agent.ask("ping")
    zombies = [name for name in os.listdir("/proc") if name.isdigit() and _stat(name)[:2] == ["Z", str(agent.pid)]]
    assert zombies == []


def _stat(name: str) -> list[str]:
    try:
        return Path(f"/proc/{name}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def test_what_an_execution_used_is_told(agent: AgentProcess) -> None:
    done = agent.run("x = bytearray(60_000_000)\nfor i in range(0, len(x), 4096): x[i] = 1\nsum(range(3_000_000))")
    assert done.exit["max_rss_bytes"] > 60_000_000
    assert done.exit["cpu_ms"] > 10
    assert done.exit["duration_ms"] >= done.exit["cpu_ms"] / 2


def test_memory_is_limited(start_agent: StartAgent) -> None:
    agent = start_agent(rlimits={"as": 300_000_000})
    done = agent.run("x = bytearray(400_000_000)")
    assert done.exit["exit_code"] == 1
    assert b"MemoryError" in done.stderr
    assert done.exit["reason"] == "exited"


def test_a_kill_at_the_memory_limit_is_told_as_such(start_agent: StartAgent) -> None:
    agent = start_agent(memory_limit_bytes=60_000_000)
    hog = "import os\nx = bytearray(80_000_000)\nfor i in range(0, len(x), 4096): x[i] = 1\nos.kill(os.getpid(), 9)"
    assert agent.run(hog).exit["reason"] == "out_of_memory"
    assert agent.run("import os\nos.kill(os.getpid(), 9)").exit["reason"] == "exited"


def test_limits_hold_for_code_and_what_it_starts(start_agent: StartAgent) -> None:
    agent = start_agent(rlimits={"nofile": 50, "fsize": 1000})
    code = "import resource as r\nprint(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_FSIZE), r.getrlimit(r.RLIMIT_CORE))"
    assert agent.run(code).text == "(50, 50) (1000, 1000) (0, 0)\n"
    assert agent.shell("ulimit -n; ulimit -c").text == "50\n0\n"


def test_code_starts_with_nothing_of_the_agents(agent: AgentProcess) -> None:
    code = (
        "import os\n"
        "print(sorted(os.listdir('/proc/self/fd'), key=int), os.getsid(0) == os.getpid(), os.umask(0))\n"
        "print([l for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapPrm', 'NoNewPrivs', 'SigBlk'))])\n"
        "print('SBX' in str(os.environ), b'SBX' in open('/proc/self/environ', 'rb').read())"
    )
    text = agent.run(code).text
    assert "['0', '1', '2', '3'] True 18" in text
    assert "CapEff:\\t0000000000000000" in text
    assert "NoNewPrivs:\\t1" in text
    assert text.endswith("False False\n")
    shell = agent.shell("ls /proc/self/fd | tr '\\n' ' '; umask; env | grep -c SBX").text
    assert shell == "0 1 2 3 0022\n0\n"


def test_the_secret_is_in_no_memory_that_code_can_read(agent: AgentProcess) -> None:
    masked = bytes(byte ^ 0x5A for byte in agent.secret)
    hidden = bytes(byte ^ 0x5A for byte in agent.secret.hex().encode())
    code = f"""
import re
def found(masked):
    first, rest, mask = masked[0] ^ 0x5A, masked[1:], 0x5A
    for line in open('/proc/self/maps'):
        start, end, mode = re.match('(\\\\w+)-(\\\\w+) (\\\\S+)', line).groups()
        if 'r' not in mode or '[v' in line:
            continue
        with open('/proc/self/mem', 'rb', 0) as memory:
            memory.seek(int(start, 16))
            data = memory.read(int(end, 16) - int(start, 16))
        at = data.find(first)
        while at >= 0:
            if all(data[at + 1 + i] ^ mask == b for i, b in enumerate(rest) if at + 1 + i < len(data)) \\
                    and at + len(masked) <= len(data):
                return True
            at = data.find(first, at + 1)
    return False
print(found({masked!r}), found({hidden!r}))
"""
    assert agent.run(code, timeout_s=60).text == "False False\n"


def test_code_cannot_look_into_the_agent(agent: AgentProcess) -> None:
    code = (
        "import os\n"
        "def status(pid): return open(f'/proc/{pid}/status').read()\n"
        "zygote = os.getppid()\n"
        "agent = int(status(zygote).split('PPid:')[1].split()[0])\n"
        "for pid in (zygote, agent):\n    print(os.stat(f'/proc/{pid}/mem').st_uid)\n"
        "print(os.stat('/proc/self/mem').st_uid == os.getuid())"
    )
    assert agent.run(code).text.endswith("True\n")


def test_a_preloaded_module_is_there_at_once(start_agent: StartAgent) -> None:
    agent = start_agent(preload=["decimal", "no_such_module"])
    while not agent.ask("ping")["ready"]:
        time.sleep(0.01)
    hello = agent.attach()
    assert hello["preloaded"] == ["decimal"]
    assert "ModuleNotFoundError" in hello["preload_errors"]["no_such_module"]
    assert (
        agent.run("import sys\nprint('decimal' in sys.modules, 'no_such_module' in sys.modules)").text == "True False\n"
    )


def test_an_import_that_hangs_is_given_up(start_agent: StartAgent, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/hangs.py").write_text("import time\ntime.sleep(100)")
    env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": str(tmp_path / "lib")}
    agent = start_agent(preload=["hangs"], preload_timeout_s=0.5, env=env)
    assert agent.hello["ready"] is False
    assert agent.run("print('in time')").text in ("in time\n", "")
    while not agent.ask("ping")["ready"]:
        time.sleep(0.01)
    assert "hangs" in agent.ask("ping")["preload_errors"]
    assert agent.run("print('on')").text == "on\n"


def test_an_execution_can_be_cancelled_while_the_interpreter_warms_up(start_agent: StartAgent, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/slow.py").write_text("import time\ntime.sleep(3)")
    env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": str(tmp_path / "lib")}
    agent = start_agent(preload=["slow"], env=env)
    agent.start("print('never')", execution_id="a")
    agent.ask("cancel", execution_id="a")
    done = agent.finish("a")
    assert done.exit["reason"] == "cancelled"
    assert done.stdout == b""


def test_stats_tell_what_the_sandbox_uses(agent: AgentProcess) -> None:
    agent.start("import time\nx = bytearray(b'1' * 50_000_000)\nprint(1, flush=True)\ntime.sleep(60)", execution_id="a")
    agent.wait_event("stdout")
    stats = agent.ask("stats")
    assert stats["processes"] == 1
    assert stats["memory_bytes"] > 50_000_000
    assert stats["disk_bytes"] > 0
    assert stats["disk_limit_bytes"] > stats["disk_bytes"]
    agent.ask("cancel", execution_id="a")
    assert isinstance(agent.finish("a"), Finished)


def test_the_disk_used_is_counted_where_a_limit_is_known(start_agent: StartAgent) -> None:
    agent = start_agent(disk_limit_bytes=10_000_000)
    (agent.workdir / "data").write_bytes(b"x" * 3_000_000)
    stats = agent.ask("stats")
    assert 3_000_000 <= stats["disk_bytes"] < 3_300_000
    assert stats["disk_limit_bytes"] == 10_000_000


def test_an_interpreter_stopped_from_behind_goes_on(agent: AgentProcess) -> None:
    agent.run(
        "import os, signal\nzygote = os.getppid()\nif os.fork() == 0:\n    os.setsid()\n    os.close(1)\n    os.close(2)\n"
        "    import time\n    time.sleep(0.3)\n    os.kill(zygote, signal.SIGSTOP)\n    time.sleep(0.2)\n"
        "    open('stopped', 'w').close()\n    os._exit(0)"
    )
    while not (agent.workdir / "stopped").exists():
        agent.ask("ping")
    assert agent.run("print('not lost')").text == "not lost\n"
    assert agent.run("print('next')").text == "next\n"


def test_an_idle_interpreter_that_imported_nothing_is_let_go(agent: AgentProcess) -> None:
    agent.ask("assign", session_id="s", digest="d", env={})
    until = time.monotonic() + 10
    while not descendants(agent.pid) and time.monotonic() < until:
        agent.ask("ping")
    while descendants(agent.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert descendants(agent.pid) == set()
    assert agent.run("print('again')").text == "again\n"


def test_an_interpreter_that_is_let_go_takes_no_execution_with_it(
    start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = client.AGENT.read_text()
    hasty = tmp_path / "hasty.py"
    hasty.write_text(source.replace("\nZYGOTE_IDLE_S = 10.0\n", "\nZYGOTE_IDLE_S = 0.0003\n"))
    assert hasty.read_text() != source
    monkeypatch.setattr(client, "AGENT", hasty)
    agent = start_agent()
    for number in range(200):
        assert agent.run("print(1)").text == "1\n"
        time.sleep(number % 20 * 0.0001)
