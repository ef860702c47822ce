"""Code that ends in every odd way: each is a result with its true status, and the session lives on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Case:
    name: str
    code: str
    answer: dict[str, Any]
    body: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case(
        "output that is not UTF-8",
        r"import sys; sys.stdout.buffer.write(b'a\xff\xfeb\n')",
        {"status": "succeeded", "exit_code": 0, "stdout": "a\ufffd\ufffdb\n"},
    ),
    Case(
        "a signal of its own",
        "import os, signal; print('before', flush=True); os.kill(os.getpid(), signal.SIGTERM)",
        {"status": "failed", "stdout": "before\n"},
    ),
    Case("sys.exit(3)", "import sys; sys.exit(3)", {"status": "failed", "exit_code": 3}),
    Case("input() at the end of input", "input()", {"status": "failed", "exit_code": 1}),
    Case("an exception", "print('x'); 1/0", {"status": "failed", "exit_code": 1, "stdout": "x\n"}),
    Case("standard input", "print(input())", {"status": "succeeded", "stdout": "given\n"}, {"stdin": "given\n"}),
    Case(
        "a busy loop past its time",
        "print('on the way', flush=True)\nwhile True: pass",
        {"status": "timed_out", "stdout": "on the way\n"},
        {"timeout": 1},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_odd_code_is_a_result_and_the_session_lives_on(api: httpx.Client, session_id: str, case: Case) -> None:
    run = f"/sessions/{session_id}/execute"
    started = time.monotonic()
    ran = api.post(run, json={"code": case.code, **case.body})
    assert ran.status_code == 200, ran.text
    answer = ran.json()
    assert {key: answer[key] for key in case.answer} == case.answer
    assert time.monotonic() - started < 10
    assert api.post(run, json={"code": "print('alive')"}).json()["stdout"] == "alive\n"


def test_a_signal_is_named_and_an_end_of_input_says_so(api: httpx.Client, session_id: str) -> None:
    run = f"/sessions/{session_id}/execute"
    killed = api.post(run, json={"code": "import os; os.kill(os.getpid(), 9)"}).json()
    assert killed["status"] == "failed"
    assert killed["signal"] in ("SIGKILL", 9)
    assert "EOFError" in api.post(run, json={"code": "input()"}).json()["stderr"]


def test_output_of_50_mb_is_cut_in_the_middle(api: httpx.Client, session_id: str) -> None:
    run = f"/sessions/{session_id}/execute"
    code = f"print('HEAD')\nfor _ in range(50): print('x' * {MEGABYTE})\nprint('TAIL')"
    ran = api.post(run, json={"code": code, "timeout": 60})
    assert ran.status_code == 200
    answer = ran.json()
    assert (answer["status"], answer["exit_code"], answer["truncated"]) == ("succeeded", 0, True)
    assert answer["stdout"].startswith("HEAD\n")
    assert answer["stdout"].endswith("TAIL\n")
    assert len(answer["stdout"]) < 20 * MEGABYTE
    assert api.post(run, json={"code": "print('alive')"}).json()["stdout"] == "alive\n"
