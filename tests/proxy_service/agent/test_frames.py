"""The frames: hello, requests that make no sense, and finding one's place again in the middle of anything."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proxy_service.agent.client import AgentProcess, Refused, frame

StartAgent = Callable[..., AgentProcess]


def test_hello_tells_who_the_agent_is(agent: AgentProcess) -> None:
    hello = agent.hello
    assert hello["protocol"] == 1
    assert hello["pid"] == agent.pid
    assert hello["python"].startswith("3.")
    assert hello["assigned"] is None
    assert hello["executions"] == []
    assert hello["ready"] is True


def test_ping_is_answered(agent: AgentProcess) -> None:
    assert agent.ask("ping")["ready"] is True


def test_nothing_is_answered_before_the_secret_is_known(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    try:
        agent.write(frame({"op": "ping", "id": 1}))
        agent.write(b"\xf5R" + os.urandom(16) + frame({"op": "hello", "id": 2, "nonce": "00" * 16}))
        agent.attach()
        assert agent._answers == {}
        assert agent.ask("ping")["ok"]
    finally:
        agent.close()


def test_requests_before_hello_are_refused(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    try:
        agent.write(b"\xf5R" + agent.secret + frame({"op": "ping", "id": 7}))
        with pytest.raises(Refused) as refused:
            agent.answer(7)
        assert refused.value.code == "not_greeted"
    finally:
        agent.close()


@pytest.mark.parametrize(
    ("op", "fields", "code"),
    [
        ("nonsense", {}, "unknown_operation"),
        ("exec", {}, "bad_request"),
        ("exec", {"execution_id": "", "kind": "python"}, "bad_request"),
        ("exec", {"execution_id": 5, "kind": "python"}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "poem"}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "commands", "commands": []}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "commands", "commands": "ls"}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "python", "env": {"A=B": "c"}}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "python", "env": {"A": 1}}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "python", "env": {"A": "\0"}}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "python", "timeout_s": "soon"}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "python", "timeout_s": float("nan")}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "python", "timeout_s": -1}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "python", "output_limit_bytes": -1}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "python", "output_limit_bytes": "1"}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "python", "filename": "../x.py"}, "bad_path"),
        ("exec", {"execution_id": "a", "kind": "python", "filename": "/etc/x.py"}, "bad_path"),
        ("exec", {"execution_id": "a", "kind": "python", "filename": ["x"]}, "bad_path"),
        ("exec", {"execution_id": "a", "kind": "python", "args": ["\0"]}, "bad_request"),
        ("exec", {"execution_id": "a", "kind": "python", "cwd": 7}, "bad_request"),
        ("stdin", {"execution_id": "none"}, "unknown_execution"),
        ("cancel", {"execution_id": "none"}, "unknown_execution"),
        ("resume", {"execution_id": "none", "after": 0}, "unknown_execution"),
        ("resume", {"execution_id": ["none"], "after": 0}, "bad_request"),
        ("forget", {"execution_id": "none"}, "unknown_execution"),
        ("hello", {"nonce": "xyz"}, "bad_request"),
        ("assign", {"session_id": "s"}, "bad_request"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    agent: AgentProcess, op: str, fields: dict[str, object], code: str
) -> None:
    with pytest.raises(Refused) as refused:
        agent.ask(op, **fields)
    assert refused.value.code == code
    assert agent.run("print(1)").text == "1\n"


def test_a_session_is_assigned_once(agent: AgentProcess) -> None:
    agent.ask("assign", session_id="s", digest="d", env={"A": "1"})
    agent.ask("assign", session_id="s", digest="d", env={"A": "1"})
    with pytest.raises(Refused) as refused:
        agent.ask("assign", session_id="other", digest="d", env={})
    assert refused.value.code == "assigned"
    assert agent.attach()["assigned"]["session_id"] == "s"
    assert agent.run("import os; print(os.environ['A'], os.environ['B'])", env={"B": "2"}).text == "1 2\n"
    assert agent.run("import os; print(os.environ['A'])", env={"A": "mine"}).text == "mine\n"


@pytest.mark.parametrize("kept", [1, 5, 10, 30, 100, 5000, 300_000])
def test_half_a_frame_of_a_dead_proxy_is_dropped(agent: AgentProcess, kept: int) -> None:
    whole = frame({"op": "file_write", "id": 9, "path": "x", "more": False}, b"y" * 900_000)
    agent.write(whole[:kept])
    agent.attach()
    assert agent.run("print('alive')").text == "alive\n"


def test_a_marker_in_pieces_is_found(agent: AgentProcess) -> None:
    agent.write(frame({"op": "ping", "id": 9}, b"z" * 1000)[:500])
    for byte in b"\xf5R" + agent.secret:
        agent.write(bytes([byte]))
        assert agent.process.poll() is None
    agent.attach()
    assert agent.ask("ping")["ok"]


def test_whole_frames_before_the_marker_are_done(agent: AgentProcess) -> None:
    agent.write(frame({"op": "exec", "id": 50, "execution_id": "kept", "kind": "python"}, b"print('done')"))
    hello = agent.attach()
    assert [execution["execution_id"] for execution in hello["executions"]] == ["kept"]
    agent.ask("resume", execution_id="kept", after=0)
    assert agent.finish("kept").text == "done\n"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xf5S" + b"\xff" * 8,
        b"\xf5S\0\0\0\2\0\0\0\0{]",
        b"\xf5S\0\0\0\2\0\0\0\0[]",
        b"\xf5S\0\0\0\4\0\0\0\0\xff\xfe\xfd\xfc",
        b"\xf5S\0\0\0\0\0\0\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xf5S\0\1\0\0\0\0\0\0" + b"[" * 65536,
        frame({"op": "ping", "id": None}),
        frame({"op": "ping", "id": 10**4000}),
        frame({"op": {}, "id": 1}),
        frame({"op": None, "id": 1}),
    ],
)
def test_garbage_is_survived(agent: AgentProcess, garbage: bytes) -> None:
    agent.write(garbage)
    agent.attach()
    assert agent.run("print('alive')").text == "alive\n"


def test_a_large_request_passes(agent: AgentProcess) -> None:
    code = b"x = '''" + b"a" * 3_000_000 + b"'''\nprint(len(x))"
    assert agent.run(code).text == "3000000\n"


def test_an_agent_lives_on_when_its_input_ends_unless_told_otherwise(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, exit_on_eof=False)
    try:
        agent.attach()
        agent.start("import time\ntime.sleep(0.2)\nopen('left', 'w').close()", execution_id="a")
        assert agent.process.stdin is not None
        agent.process.stdin.close()
        assert agent.finish("a").exit["exit_code"] == 0
        assert (tmp_path / "left").exists()
        assert agent.process.poll() is None
    finally:
        agent.process.kill()
        agent.close()


def test_an_agent_that_nobody_ever_greets_ends(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, exit_on_eof=False, greet_within_s=0.3)
    try:
        agent.write(frame({"op": "ping", "id": 1}))
        assert agent.process.wait(10) == 0
    finally:
        agent.process.kill()
        agent.close()


def test_an_agent_that_was_greeted_once_waits_for_ever(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, exit_on_eof=False, greet_within_s=1.0)
    try:
        agent.attach()
        assert agent.process.stdin is not None
        agent.process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            agent.process.wait(1.5)
    finally:
        agent.process.kill()
        agent.close()


def test_an_agent_dies_with_the_proxy_and_takes_code_along(start_agent: StartAgent) -> None:
    agent = start_agent()
    agent.start("import os, time\nos.fork()\nprint(os.getpid(), flush=True)\ntime.sleep(60)")
    printed = b""
    while printed.count(b"\n") < 2:
        printed += agent.wait_event("stdout")["body"]
    pids = [int(line) for line in printed.split()]
    assert agent.process.stdin is not None
    agent.process.stdin.close()
    agent.process.wait(5)
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def test_headers_are_plain_json(agent: AgentProcess) -> None:
    done = agent.run("raise SystemExit(3)")
    assert json.loads(json.dumps(done.exit, default=repr))["exit_code"] == 3
