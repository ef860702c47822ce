"""Where code was when its time was over."""

# A table of programs is read by its lines.
# ruff: noqa: E501

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.proxy_service.agent.client import AgentProcess

ENDLESS = {
    "busy": ("def f(n):\n    while True:\n        n += 1\n\nf(3)", {"line": (2, 3), "function": "f"}),
    "at the top": ("x = 1\nwhile True: pass", {"line": (2,), "function": "<module>"}),
    "asleep": ("import time\n\ndef nap():\n    time.sleep(100)\n\nnap()", {"line": (4,), "function": "nap"}),
    "in a module of Python's": ("import subprocess\nsubprocess.run(['sleep', '100'])", {"line": (2,), "function": "<module>"}),
    "in a method": ("class A:\n  def go(self):\n    for _ in iter(int, 1):\n      pass\nA().go()", {"line": (3, 4), "function": "go"}),
    "in a generator": ("def g():\n    while True: pass\n    yield 1\n\nsum(g())", {"line": (2,), "function": "g"}),
    "deep": ("def f(n):\n    if n: return f(n - 1)\n    while True: pass\nf(900)", {"line": (3,), "function": "f"}),
    "over many lines": ("import time\n" + "x = 1\n" * 3000 + "time.sleep(\n  100\n)", {"line": (3002,), "function": "<module>"}),
    "a name that is not ASCII": ("def wörk():\n    while True: pass\nwörk()", {"line": (2,), "function": ""}),
    "a lock": ("import threading\nl = threading.Lock()\nl.acquire()\nl.acquire()", {"line": (4,), "function": "<module>"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_the_line_and_function_are_told(agent: AgentProcess, name: str) -> None:
    code, expected = ENDLESS[name]
    where = agent.run(code, timeout_s=0.5).exit["where"]
    assert where["line"] in expected["line"]
    assert where["function"] == expected["function"]
    assert "file" not in where


def test_a_module_of_the_code_is_named(agent: AgentProcess) -> None:
    (agent.workdir / "part").mkdir()
    (agent.workdir / "part" / "util.py").write_text("def spin():\n    while True: pass\n")
    where = agent.run("from part.util import spin\nspin()", timeout_s=0.5).exit["where"]
    assert where == {"line": 2, "function": "spin", "file": "part/util.py"}


def test_a_library_that_was_put_there_is_not_the_code(agent: AgentProcess) -> None:
    library = agent.workdir / ".sandboxweb" / "lib"
    library.mkdir(parents=True)
    (library / "slow.py").write_text("def spin():\n    while True: pass\n")
    ended = agent.run("import slow\n\nslow.spin()", timeout_s=0.5, python_path=[str(library)]).exit
    assert ended["where"] == {"line": 3, "function": "<module>"}


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.execvp('sleep', ['sleep', '100'])",
        "import os, time\nos.kill(os.getpid(), 19)",
        "import sys, ctypes\nctypes.CDLL(None).prctl(4, 0)\nwhile True: pass",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(100,)).start()",
    ],
)
def test_where_it_cannot_be_said_the_code_ends_all_the_same(agent: AgentProcess, code: str) -> None:
    ended = agent.run(code, timeout_s=0.5).exit
    assert ended["reason"] == "timed_out"
    assert ended.get("where", {}).get("line") in (None, 2, 3)
    assert agent.run("print(1)").stdout == b"1\n"


def test_code_that_forges_its_own_frames_harms_nobody(agent: AgentProcess) -> None:
    forge = (
        "import ctypes, sys\n"
        "thread = ctypes.pythonapi.PyThreadState_Get\n"
        "thread.restype = ctypes.c_void_p\n"
        "frame = ctypes.c_uint64.from_address(id(sys._getframe()) + 24).value\n"
        "code = id(sys._getframe().f_code)\n"
        "import random\n"
        "random.seed({seed})\n"
        "for at in range(code + 16, code + 200, 8):\n"
        "    if random.random() < 0.5:\n"
        "        ctypes.c_uint64.from_address(at).value = random.choice([0, 1, 2 ** 63, 2 ** 64 - 1, id(b'x' * 99)])\n"
        "while True: pass"
    )
    for seed in range(6):
        ended = agent.run(forge.replace("{seed}", str(seed)), timeout_s=0.3).exit
        assert ended["reason"] in ("timed_out", "exited")
    assert agent.run("print(1)").stdout == b"1\n"


def test_looking_costs_a_time_out_little(agent: AgentProcess) -> None:
    agent.run("print(1)")
    began = time.monotonic()
    agent.run("while True: pass", timeout_s=0.2)
    assert time.monotonic() - began < 2


def test_code_that_ends_in_time_or_is_cancelled_is_not_looked_at(
    start_agent: Callable[..., AgentProcess],
) -> None:
    agent = start_agent()
    assert "where" not in agent.run("1 / 0").exit
    running = agent.start("while True: pass")
    agent.ask("cancel", execution_id=running)
    assert "where" not in agent.finish(running).exit
    assert "where" not in agent.shell("sleep 100", timeout_s=0.2).exit
