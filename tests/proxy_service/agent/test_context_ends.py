"""Time-outs, cancellations, deaths and hostile code in contexts, and what is left of them."""

# Programs are read by their lines.
# ruff: noqa: E501

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.proxy_service.agent.client import AgentProcess
from tests.proxy_service.agent.contexts import contexts, error, in_context, results, value

ENDLESS = {
    "asleep": "time.sleep(100)",
    "busy": "while True: pass",
    "stopped": "os.kill(os.getpid(), 19)",
    "waiting for a shell": "os.system('sleep 100')\n    while True: pass",
    "waiting for a child": "subprocess.run(['sleep', '100'])",
    "awaiting": "asyncio.run(asyncio.sleep(100))",
}


@pytest.mark.parametrize("how", ENDLESS)
def test_a_time_out_interrupts_and_keeps_the_state(how: str, agent: AgentProcess) -> None:
    in_context(agent, "import asyncio, os, subprocess, time\nkept = 1")
    done = in_context(agent, f"# what takes long\ndef work():\n    {ENDLESS[how]}\nwork()", timeout_s=0.3)
    name, _, traceback = error(done)
    assert (name, done.exit["reason"], done.exit["signal"]) == ("KeyboardInterrupt", "timed_out", 2)
    assert ", in work" in traceback
    assert done.exit["context_restarted"] is False
    assert value(in_context(agent, "kept")) == "1"


DEAF = {
    "ignores": "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)",
    "catches": "import time\nwhile True:\n    try: time.sleep(100)\n    except BaseException: pass",
    "blocked": "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\ntime.sleep(100)",
    "reads the agent's socket": "import os, signal\nsignal.signal(2, signal.SIG_IGN)\nwhile True: os.read(100, 1)",
}


@pytest.mark.parametrize("name", DEAF)
def test_a_deaf_context_is_killed_and_restarted(name: str, agent: AgentProcess) -> None:
    in_context(agent, "lost = 1")
    started = time.monotonic()
    done = in_context(agent, DEAF[name], timeout_s=0.2)
    assert time.monotonic() - started < 8
    assert (done.exit["reason"], done.exit["signal"], done.exit["context_restarted"]) == ("timed_out", 9, True)
    after = in_context(agent, "'lost' in globals()")
    assert (value(after), after.exit["context_restarted"]) == ("False", False)
    assert contexts(agent)["default"]["restarts"] == 1


def test_a_cancellation_interrupts_too_and_a_second_one_kills(agent: AgentProcess) -> None:
    execution_id = agent.start("import time\ntime.sleep(100)", kind="context", context_id="default")
    agent.wait_event("started")
    time.sleep(0.3)
    agent.ask("cancel", execution_id=execution_id)
    done = agent.finish(execution_id)
    assert (done.exit["reason"], done.exit["context_restarted"]) == ("cancelled", False)
    execution_id = agent.start(DEAF["catches"], kind="context", context_id="default")
    agent.wait_event("started")
    time.sleep(0.3)
    agent.ask("cancel", execution_id=execution_id)
    agent.ask("cancel", execution_id=execution_id)
    done = agent.finish(execution_id)
    assert (done.exit["reason"], done.exit["signal"], done.exit["context_restarted"]) == ("cancelled", 9, True)


def test_an_interrupt_is_the_code_s_to_deal_with(agent: AgentProcess) -> None:
    assert agent.ask("context_create", context_id="default")["made"] is True
    assert agent.ask("context_interrupt", context_id="default")["interrupted"] is False
    code = (
        "import time\ntry:\n    print('on', flush=True)\n    time.sleep(100)\nexcept KeyboardInterrupt: print('caught')"
    )
    execution_id = agent.start(code, kind="context", context_id="default")
    agent.wait_event("stdout")
    assert agent.ask("context_interrupt", context_id="default")["interrupted"] is True
    done = agent.finish(execution_id)
    assert (done.exit["reason"], done.exit["exit_code"], done.text) == ("exited", 0, "caught\n")


def test_an_interrupt_before_the_code_has_begun_is_not_lost(agent: AgentProcess) -> None:
    for _ in range(5):
        agent.ask("context_restart" if agent.ask("context_list")["contexts"] else "context_list", context_id="default")
        execution_id = agent.start("import time\ntime.sleep(100)", kind="context", context_id="default")
        assert agent.ask("context_interrupt", context_id="default")["interrupted"] is True
        done = agent.finish(execution_id)
        assert (error(done)[0], done.exit["exit_code"]) == ("KeyboardInterrupt", 1)
    assert in_context(agent, "import time\ntime.sleep(0.1)").exit["exit_code"] == 0


DEATHS = {
    "exits": ("import os; os._exit(4)", [(4, None)]),
    "dies of a signal": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", [(None, 11)]),
    # It notices, or is killed by who does.
    "closes everything": ("import os; os.closerange(0, 1000)", [(70, None), (None, 9)]),
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_context_that_dies_is_restarted_on_its_next_use(name: str, agent: AgentProcess) -> None:
    code, endings = DEATHS[name]
    done = in_context(agent, code)
    assert (done.exit["exit_code"], done.exit["signal"]) in endings
    assert done.exit["reason"] == "exited"
    assert done.exit["context_restarted"] is True
    assert contexts(agent)["default"]["state"] == "ended"
    after = in_context(agent, "'back'")
    assert (value(after), after.exit["context_restarted"]) == ("'back'", False)


def test_a_context_that_dies_between_executions_is_marked_in_the_next(agent: AgentProcess) -> None:
    code = "import threading, time, os\nthreading.Thread(target=lambda: (time.sleep(0.3), os._exit(1))).start()"
    assert in_context(agent, code).exit["exit_code"] == 0
    until = time.monotonic() + 10
    while contexts(agent)["default"]["state"] != "ended":
        assert time.monotonic() < until
    done = in_context(agent, "1")
    assert (value(done), done.exit["context_restarted"]) == ("1", True)
    assert in_context(agent, "1").exit["context_restarted"] is False


HOSTILE = {
    "garbage on every descriptor": (
        "import os\nfor fd in range(3, 300):\n    for data in (b'x', b'\\0' * 40, os.urandom(60), b'X' * 9):\n"
        "        try: os.write(fd, data)\n        except OSError: pass"
    ),
    "a flood on every descriptor": (
        "import os\nfor fd in range(3, 300):\n    for _ in range(300):\n        try: os.write(fd, os.urandom(20000))\n"
        "        except OSError: break"
    ),
    "a fork that comes back": "import os\nif os.fork() == 0:\n    print('child')",
    "a closed output": "import sys\nsys.stdout.close()",
    "broken tools": "import builtins, traceback, linecache\ntraceback.format_exception = None\nlinecache.cache = None",
    "a broken repr of everything": "import builtins\nbuiltins.repr = lambda value: 7",
    "no modules": "import sys\nsys.modules.clear()",
    "an odd last exception": "class E(BaseException):\n    __traceback__ = 7\n    __name__ = 5\nraise E",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_hurts_its_own_context_alone(name: str, agent: AgentProcess) -> None:
    agent.ask("context_create", context_id="other")
    in_context(agent, "kept = 1", "other")
    done = in_context(agent, HOSTILE[name], timeout_s=10)
    assert done.exit["reason"] in ("exited", "killed", "timed_out")
    assert value(in_context(agent, "kept", "other")) == "1"
    in_context(agent, "1 / 0", timeout_s=10)
    agent.ask("context_restart", context_id="default")
    assert value(in_context(agent, "'well'")) == "'well'"
    assert agent.run("print('plain')").text == "plain\n"


def test_forged_messages_are_no_more_than_code_may_say_anyway(agent: AgentProcess) -> None:
    """With the execution's own token, which code can find in its process, it reaches nobody but itself."""
    code = (
        "import gc, socket, struct\n"
        "kernel = next(o for o in gc.get_objects() if type(o).__name__ == 'Kernel')\n"
        "say = lambda kind, data, place=b'<>': kernel._channel.send(kernel._token + kind + bytes(4) + place + data)\n"
        "for kind in (b'R', b'M', b'E', b'?', b''):\n"
        "    for data in (b'', b'\\xff', b'\\x04text\\xff\\xff\\xff\\xff', b'\\x03odd\\0\\0\\0\\1x', b'\\x04text\\0\\0\\0\\1x' * 2):\n"
        "        say(kind, data)\n"
        "for _ in range(400): say(b'R', b'x' * 30000, b'--')\n"
        "for n in range(400): say(b'R', b'x' * 30000, b'<-' if n == 0 else b'--')\n"
        "say(b'D', b'not a number')"
    )
    done = in_context(agent, code, timeout_s=20)
    assert done.exit["exit_code"] == 1
    assert all(shown.keys() <= {"text"} for shown in results(done))
    assert value(in_context(agent, "'still here'", timeout_s=5)) == "'still here'"
    assert agent.errors() == ""


def test_the_kill_of_a_plain_execution_spares_contexts_and_what_they_started(agent: AgentProcess) -> None:
    in_context(agent, "import subprocess\np = subprocess.Popen(['sleep', '60'])")
    done = agent.run("import os, time\nos.fork()\ntime.sleep(100)", timeout_s=0.3)
    assert done.exit["reason"] == "timed_out"
    assert value(in_context(agent, "p.poll()")) is None
    assert value(in_context(agent, "p.poll() is None")) == "True"


def test_a_time_out_in_a_context_ends_what_that_execution_started_and_nothing_else(agent: AgentProcess) -> None:
    agent.ask("context_create", context_id="other")
    in_context(agent, "import subprocess\nold = subprocess.Popen(['sleep', '60'])")
    in_context(agent, "import subprocess\nfriend = subprocess.Popen(['sleep', '60'])", "other")
    service = agent.shell("setsid sleep 60 >/dev/null 2>&1 & echo $!").text.strip()
    code = "new = subprocess.Popen(['sleep', '60'], start_new_session=True)\nimport time\ntime.sleep(100)"
    done = in_context(agent, code, timeout_s=0.3)
    assert (done.exit["reason"], done.exit["context_restarted"]) == ("timed_out", False)
    assert value(in_context(agent, "new.wait() < 0, old.poll()")) == "(True, None)"
    assert value(in_context(agent, "friend.poll() is None", "other")) == "True"
    assert Path(f"/proc/{service}").exists()
