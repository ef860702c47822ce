"""Contexts: interpreters that keep their state, and what code shows in them."""

# Programs are read by their lines.
# ruff: noqa: E501

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from tests.proxy_service.agent.client import AgentProcess, Refused
from tests.proxy_service.agent.contexts import contexts, error, in_context, results, value
from tests.proxy_service.agent.test_processes import descendants

StartAgent = Callable[..., AgentProcess]

# code → the text of its value (None: it has none), what it prints
VALUES: list[tuple[str, str | None, str]] = [
    ("1 + 1", "2", ""),
    ("x = 5", None, ""),
    ("x = 5\nx", "5", ""),
    ("x = 5; x", "5", ""),
    ("'text'", "'text'", ""),
    ("None", None, ""),
    ("print('hi')", None, "hi\n"),
    ("1;", None, ""),
    ("1 # a comment", "1", ""),
    ("# only a comment", None, ""),
    ("", None, ""),
    ("def f(): return 3\nf()", "3", ""),
    ("for n in range(3): print(n)", None, "0\n1\n2\n"),
    ("if True:\n    7", None, ""),
    ("'''docs'''\n[n ** 2 for n in range(3)]", "[0, 1, 4]", ""),
    ("lambda: 1", "<function <lambda> at 0x", ""),
    ("__name__", "'__main__'", ""),
    ("import sys; sys.argv, sys.path[0]", "([''], '')", ""),
    ("import os; os.getcwd() == os.environ.get('PWD', os.getcwd())", "True", ""),
    ("await __import__('asyncio').sleep(0, 'slept')", "'slept'", ""),
    ("import asyncio\nasync def f(n): return n\nsum(await asyncio.gather(f(1), f(2)))", "3", ""),
    ("import asyncio\nasync def f(): return 4\nasyncio.run(f())", "4", ""),
    ("from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\nP(1)", "P(a=1)", ""),
    ("import pickle\nclass Q: pass\ntype(pickle.loads(pickle.dumps(Q()))).__name__", "'Q'", ""),
    ("'\\ud800'", "'\\ud800'", ""),
    ("'ü€😀'", "'ü€😀'", ""),
    ("display('a'); 'b'", "'b'", ""),
    ("input.__name__", "'input'", ""),
    (
        "import inspect\ndef g():\n    return 'source'\ninspect.getsource(g)",
        "\"def g():\\n    return 'source'\\n\"",
        "",
    ),
    ("_ = 3\n_", "3", ""),
]


@pytest.mark.parametrize(("code", "shown", "printed"), VALUES)
def test_the_last_expression_s_value_is_the_result(
    code: str, shown: str | None, printed: str, agent: AgentProcess
) -> None:
    done = in_context(agent, code)
    assert done.exit["exit_code"] == 0, done.events
    found = value(done)
    assert found == shown or (shown is not None and found is not None and shown.endswith("0x") and shown in found)
    assert done.text == printed
    assert done.stderr == b""


# code → name and value of the exception, a line of its traceback
ERRORS: list[tuple[str, str, str, str]] = [
    ("1 / 0", "ZeroDivisionError", "division by zero", '  File "<input 1>", line 1, in <module>\n    1 / 0\n'),
    ("\n\nx", "NameError", "name 'x' is not defined", '  File "<input 1>", line 3, in <module>\n    x\n'),
    ("def f():\n    raise KeyError('k')\nf()", "KeyError", "'k'", ", line 2, in f\n    raise KeyError("),
    ("1 +", "SyntaxError", "invalid syntax", '  File "<input 1>", line 1\n    1 +\n'),
    ("if True:\nx = 1", "IndentationError", "expected an indented block", '  File "<input 1>", line 2\n'),
    ("await 1", "TypeError", "can't be used in 'await' expression", "in <module>\n    await 1\n"),
    ("import nowhere", "ModuleNotFoundError", "No module named 'nowhere'", "import nowhere"),
    ("input('name? ')", "EOFError", "EOF when reading a line", "input('name? ')"),
    ("raise SystemError", "SystemError", "", "raise SystemError"),
    ("raise BaseException('base')", "BaseException", "base", "raise BaseException"),
    ("def f(): f()\nf()", "RecursionError", "maximum recursion depth exceeded", "Previous line repeated"),
    ("class E(Exception):\n    def __str__(self): 1 / 0\nraise E", "E", "<it cannot be shown>", "raise E"),
    ("class R:\n    def __repr__(self): raise ValueError('no repr')\nR()", "ValueError", "no repr", "__repr__"),
    ("try:\n    1 / 0\nexcept Exception as e:\n    raise OSError('late') from e", "OSError", "late", "direct cause"),
    ("x = 'a\0b'", "ValueError", "null bytes", ""),
]


@pytest.mark.parametrize(("code", "name", "says", "line"), ERRORS)
def test_what_nothing_catches_is_told_with_the_code_s_own_lines(
    code: str, name: str, says: str, line: str, agent: AgentProcess
) -> None:
    done = in_context(agent, code)
    found, message, traceback = error(done)
    if "null bytes" in says:
        assert found in ("ValueError", "SyntaxError")
    else:
        assert found == name
    assert says in message
    assert line in traceback
    assert "agent.py" not in traceback
    assert (done.exit["exit_code"], done.exit["signal"], done.exit["reason"]) == (1, None, "exited")
    assert value(in_context(agent, "'it lives'")) == "'it lives'"


@pytest.mark.parametrize(("code", "exit_code"), [("exit()", 0), ("import sys; sys.exit(3)", 3), ("exit('bye')", 1)])
def test_an_exit_ends_the_execution_and_not_the_context(code: str, exit_code: int, agent: AgentProcess) -> None:
    in_context(agent, "kept = 1")
    done = in_context(agent, code)
    assert (done.exit["exit_code"], done.exit["context_restarted"]) == (exit_code, False)
    assert done.stderr == (b"bye\n" if "bye" in code else b"")
    assert value(in_context(agent, "kept")) == "1"


def test_two_contexts_share_nothing_but_the_files(agent: AgentProcess) -> None:
    agent.ask("context_create", context_id="other")
    in_context(agent, "import os; x = 1; os.environ['A'] = 'here'; open('file', 'w').write('shared')")
    done = in_context(agent, "import os; 'x' in globals(), os.environ.get('A'), open('file').read()", "other")
    assert value(done) == "(False, None, 'shared')"
    assert value(in_context(agent, "x")) == "1"
    assert agent.run("print('x' in globals())").text == "False\n"


def test_what_shows_itself_in_many_ways_is_shown_in_all(agent: AgentProcess) -> None:
    code = (
        "class Rich:\n"
        "    def __repr__(self): return 'plain'\n"
        "    def _repr_html_(self): return '<b>ü</b>'\n"
        "    def _repr_markdown_(self): return '**m**'\n"
        "    def _repr_svg_(self): return '<svg/>'\n"
        "    def _repr_png_(self): return b'\\x89PNG'\n"
        "    def _repr_jpeg_(self): return '/9j/'\n"
        "    def _repr_pdf_(self): return b'%PDF'\n"
        "    def _repr_latex_(self): return '$x$', {'meta': 1}\n"
        "    def _repr_json_(self): return {'a': [1, None]}\n"
        "    def _repr_javascript_(self): return 'alert(1)'\n"
        "Rich()"
    )
    (shown,) = results(in_context(agent, code))
    assert shown == {
        "text": b"plain",
        "html": "<b>ü</b>".encode(),
        "markdown": b"**m**",
        "svg": b"<svg/>",
        "png": b"\x89PNG",
        "jpeg": b"\xff\xd8\xff",
        "pdf": b"%PDF",
        "latex": b"$x$",
        "json": b'{"a": [1, null]}',
        "javascript": b"alert(1)",
    }


def test_a_bundle_is_read_by_its_types_and_what_fails_is_left_out(agent: AgentProcess) -> None:
    bundle = "class B:\n    def __repr__(self): return 'b'\n    def _repr_mimebundle_(self, **k): return {}\n"
    types = {
        "text/html": "h",
        "application/vnd.plotly.v1+json": {"data": []},
        "image/png": "iVBORw==",
        "image/jpeg": "not base64!",
        "x/y": "?",
    }
    (shown,) = results(in_context(agent, bundle.replace("{}", repr(types)) + "B()"))
    assert shown == {"text": b"b", "html": b"h", "json": b'{"data": []}', "png": b"\x89PNG"}
    failing = "class F:\n    def _repr_html_(self): 1 / 0\n    def _repr_png_(self): return 7\n    def __repr__(self): return 'f'\nF()"
    assert results(in_context(agent, failing)) == [{"text": b"f"}]
    everything = "class Any:\n    def __getattr__(self, name): return lambda *a: 'yes'\n    def __repr__(self): return 'any'\nAny()"
    assert results(in_context(agent, everything)) == [{"text": b"any"}]
    raw = "display({'text/latex': '$y$'}, raw=True)"
    assert results(in_context(agent, raw)) == [{"latex": b"$y$"}]


def test_results_have_their_place_among_the_output(agent: AgentProcess) -> None:
    code = "for n in range(20):\n    print(n)\n    display(n)"
    done = in_context(agent, code)
    told = [event["body"].strip() for event in done.events if event["ev"] in ("stdout", "result")]
    assert told == [str(n).encode() for n in range(20) for _ in range(2)]


def test_limits_hold_for_one_result_and_for_all(agent: AgentProcess) -> None:
    big = "class P:\n    def __init__(self, mib): self.mib = mib\n    def __repr__(self): return 'p'\n    def _repr_png_(self): return b'x' * (self.mib << 20)\n"
    (shown,) = results(in_context(agent, big + "P(9)"))
    assert shown.keys() == {"text"}
    assert b"left out: png of 9437184 bytes" in shown["text"]
    many = results(in_context(agent, "for _ in range(6): display(P(7))"))
    assert [len(found.get("png", b"")) >> 20 for found in many] == [7, 7, 7, 7, 0, 0]
    assert b"left out" in many[-1]["text"]
    flood = results(in_context(agent, "for n in range(1000): display(n)"))
    assert len(flood) == 500
    assert b"at most 500 results" in flood[-1]["text"]
    assert value(in_context(agent, "'x' * (3 << 20)")) is not None
    assert agent.errors() == ""


def test_input_is_read_and_ends(agent: AgentProcess) -> None:
    execution_id = agent.start("a = input('? ')\nb = input()\na, b", kind="context", context_id="default", stdin="data")
    agent.ask("stdin", b"one\ntwo\n", execution_id=execution_id, eof=False)
    done = agent.finish(execution_id)
    assert (value(done), done.text) == ("('one', 'two')", "? ")
    assert error(in_context(agent, "input()"))[0] == "EOFError"


def test_variables_and_libraries_of_an_execution_are_there_for_it(agent: AgentProcess) -> None:
    (agent.workdir / "lib").mkdir()
    (agent.workdir / "lib" / "brought.py").write_text("value = 'from the library'")
    done = in_context(agent, "import os, brought; os.environ['A'], brought.value", env={"A": "1"}, python_path=["lib"])
    assert value(done) == "('1', 'from the library')"
    assert value(in_context(agent, "'A' in os.environ")) == "False"


def test_a_deleted_context_leaves_no_process(agent: AgentProcess) -> None:
    agent.ask("context_create", context_id="mine")
    in_context(agent, "import subprocess\np = subprocess.Popen(['sleep', '60'])", "mine")
    execution_id = agent.start("import time\ntime.sleep(100)", kind="context", context_id="mine")
    agent.wait_event("started")
    agent.ask("context_delete", context_id="mine")
    done = agent.finish(execution_id)
    assert (done.exit["reason"], done.exit["message"]) == ("killed", "The context was deleted.")
    until = time.monotonic() + 10
    while len(descendants(agent.pid)) > 1:
        assert time.monotonic() < until
    assert contexts(agent) == {}
    with pytest.raises(Refused) as refused:
        in_context(agent, "1", "mine")
    assert refused.value.code == "unknown_context"


def test_a_restart_forgets_and_counts(agent: AgentProcess) -> None:
    in_context(agent, "x = 1")
    restarted = agent.ask("context_restart", context_id="default")["context"]
    assert (restarted["restarts"], restarted["state"]) == (1, "starting")
    done = in_context(agent, "'x' in globals()")
    assert (value(done), done.exit["context_restarted"]) == ("False", False)


def test_contexts_are_bounded_in_number_and_found_again_by_their_id(agent: AgentProcess) -> None:
    made = [agent.ask("context_create", context_id=f"c{n}")["made"] for n in range(8)]
    assert made == [True] * 8
    assert agent.ask("context_create", context_id="c3")["made"] is False
    for ask in (lambda: agent.ask("context_create", context_id="c8"), lambda: in_context(agent, "1")):
        with pytest.raises(Refused) as refused:
            ask()
        assert refused.value.code == "too_many_contexts"
    for op in ("context_restart", "context_interrupt", "context_delete"):
        with pytest.raises(Refused) as refused:
            agent.ask(op, context_id="nowhere")
        assert refused.value.code == "unknown_context"
    assert value(in_context(agent, "1", "c7")) == "1"


def test_a_new_proxy_finds_the_contexts(agent: AgentProcess) -> None:
    in_context(agent, "x = 'kept'")
    hello = agent.attach()
    assert hello["can_contexts"] is True
    assert [(item["context_id"], item["executions"]) for item in hello["contexts"]] == [("default", 1)]
    assert value(in_context(agent, "x")) == "'kept'"


def test_a_context_can_be_made_while_code_runs(agent: AgentProcess) -> None:
    execution_id = agent.start("input()", stdin="data")
    agent.wait_event("started")
    assert agent.ask("context_create", context_id="early")["context"]["state"] == "starting"
    agent.ask("stdin", b"go\n", execution_id=execution_id, eof=True)
    assert agent.finish(execution_id).exit["exit_code"] == 0
    assert value(in_context(agent, "1", "early")) == "1"


def test_words_between_executions_are_dropped_and_those_during_one_are_its_own(agent: AgentProcess) -> None:
    code = (
        "import threading, time\ngo, said = threading.Event(), threading.Event()\n"
        "def talk():\n    time.sleep(0.2)\n    print('between', flush=True)\n    said.set()\n    go.wait()\n"
        "    print('during', flush=True)\nt = threading.Thread(target=talk)\nt.start()"
    )
    assert in_context(agent, code).text == ""
    time.sleep(0.5)
    assert in_context(agent, "assert said.is_set()\ngo.set()\nt.join()").text == "during\n"


def test_warm_libraries_are_there_and_starts_are_quick(start_agent: StartAgent) -> None:
    agent = start_agent(preload=["decimal", "sqlite3"])
    while not agent.ask("ping")["ready"]:
        time.sleep(0.02)
    assert value(in_context(agent, "import sys; 'decimal' in sys.modules, 'sqlite3' in sys.modules")) == "(True, True)"
    quickest = 1e9
    for number in range(5):
        done = in_context(agent, "import os; os.getpid()")
        agent.ask("context_restart", context_id="default")
        quickest = min(quickest, done.exit["duration_ms"]) if number else quickest
    assert quickest < 500


def test_an_idle_context_holds_no_output_of_the_agent(agent: AgentProcess) -> None:
    in_context(agent, "1")
    pid = int(value(in_context(agent, "import os; os.getpid()")) or 0)
    links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert {link for link in links if not link.startswith("socket:")} == {"/dev/null"}
