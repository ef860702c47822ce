"""Output: told as it comes, capped in the middle, kept in the journal, and told again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proxy_service.agent.client import AgentProcess, Finished, Refused

StartAgent = Callable[..., AgentProcess]


def test_events_are_numbered_without_a_gap(agent: AgentProcess) -> None:
    done = agent.run("import sys\nfor n in range(200):\n    print(n, file=[sys.stdout, sys.stderr][n % 2], flush=True)")
    assert [event["seq"] for event in done.events] == list(range(1, len(done.events) + 1))
    assert done.events[0]["ev"] == "started"
    assert [event["at"] for event in done.events] == sorted(event["at"] for event in done.events)
    assert done.text.split() == [str(n) for n in range(0, 200, 2)]
    assert done.exit["stdout_bytes"] == len(done.stdout)


def test_output_is_told_while_the_code_runs(agent: AgentProcess) -> None:
    agent.start("print('first', flush=True)\ninput()\nprint('second')", stdin="data", execution_id="a")
    assert agent.wait_event("stdout")["body"] == b"first\n"
    agent.ask("stdin", b"\n", execution_id="a", eof=True)
    assert agent.finish("a").text == "second\n"


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 150, 65536, 1_000_000])
@pytest.mark.parametrize("limit", [0, 1, 100, 100_000])
def test_output_past_the_limit_is_cut_in_the_middle(agent: AgentProcess, size: int, limit: int) -> None:
    code = f"import sys\nsys.stdout.buffer.write(bytes(i * 7 % 251 for i in range({size})))"
    done = agent.run(code, output_limit_bytes=limit)
    whole = bytes(i * 7 % 251 for i in range(size))
    head = limit // 2
    expected = whole if size <= limit else whole[:head] + whole[size - (limit - head) :]
    assert done.stdout == expected
    assert done.truncated() == size - len(expected)
    assert done.exit["stdout_bytes"] == size
    assert done.exit["exit_code"] == 0


def test_each_stream_has_its_own_limit(agent: AgentProcess) -> None:
    done = agent.run("import sys\nprint('o' * 5000)\nprint('e' * 50, file=sys.stderr)", output_limit_bytes=1000)
    assert len(done.stdout) == 1000
    assert done.truncated("stdout") == 4001
    assert done.stderr == b"e" * 50 + b"\n"
    assert done.truncated("stderr") == 0


def test_code_that_prints_without_end_is_drained_and_stopped(agent: AgentProcess) -> None:
    done = agent.run("while True: print('y' * 1000)", timeout_s=0.5, output_limit_bytes=100_000)
    assert done.exit["reason"] == "timed_out"
    assert len(done.stdout) == 100_000
    assert done.exit["stdout_bytes"] == 100_000 + done.truncated()


def test_many_small_words_make_few_events(agent: AgentProcess) -> None:
    done = agent.run("import os\nfor _ in range(30000): os.write(1, b'.')")
    assert done.stdout == b"." * 30000
    assert len(done.events) < 3000


def test_output_waits_for_nobody(agent: AgentProcess) -> None:
    agent.start("print('z' * 20_000_000, end='')\nopen('through', 'w').close()", output_limit_bytes=30_000_000)
    while not (agent.workdir / "through").exists():
        assert agent.ask("ping")["ok"]
    events = []
    while not events or events[-1]["ev"] != "exit":
        events.append(agent.next_event())
    assert Finished.of(events).exit["stdout_bytes"] == 20_000_000


def test_the_journal_is_told_again_from_any_event(agent: AgentProcess) -> None:
    code = "import time\nfor n in range(5):\n    print(n, flush=True)\n    time.sleep(0.02)"
    done = agent.run(code, execution_id="a")
    for after in range(len(done.events)):
        agent.ask("resume", execution_id="a", after=after)
        assert agent.finish("a").events == done.events[after:]
    agent.ask("resume", execution_id="a", after=len(done.events))
    assert agent.ask("ping")["ok"]
    assert not agent.events


def test_a_new_proxy_gets_all_of_an_execution_that_went_on(agent: AgentProcess) -> None:
    agent.start("import time\nfor n in range(50):\n    print(n, flush=True)\n    time.sleep(0.01)", execution_id="a")
    agent.wait_event("stdout")
    hello = agent.attach()
    assert hello["executions"][0]["state"] == "running"
    assert agent.ask("ping")["ok"]
    assert not agent.events
    agent.ask("resume", execution_id="a", after=0)
    done = agent.finish("a")
    assert [event["seq"] for event in done.events] == list(range(1, len(done.events) + 1))
    assert done.text.split() == [str(n) for n in range(50)]


def test_the_same_execution_never_runs_twice(agent: AgentProcess) -> None:
    code = "open('count', 'a').write('x')"
    agent.run(code, execution_id="a")
    answer = agent.ask("exec", code.encode(), execution_id="a", kind="python")
    assert answer["joined"] is True
    assert answer["state"] == "finished"
    assert (agent.workdir / "count").read_text() == "x"


def test_only_one_execution_runs_at_a_time(agent: AgentProcess) -> None:
    agent.start("input()", stdin="data", execution_id="a")
    with pytest.raises(Refused) as refused:
        agent.start("print(1)", execution_id="b")
    assert refused.value.code == "busy"
    assert agent.ask("exec", execution_id="a", kind="python")["joined"] is True
    agent.ask("cancel", execution_id="a")
    agent.finish("a")
    assert agent.run("print(1)", execution_id="b").text == "1\n"


def test_a_forgotten_execution_is_unknown(agent: AgentProcess) -> None:
    agent.run("", execution_id="a")
    agent.ask("forget", execution_id="a")
    with pytest.raises(Refused) as refused:
        agent.ask("resume", execution_id="a", after=0)
    assert refused.value.code == "unknown_execution"


def test_only_the_last_executions_are_kept(agent: AgentProcess) -> None:
    for number in range(40):
        agent.run("", execution_id=str(number))
    kept = [execution["execution_id"] for execution in agent.attach()["executions"]]
    assert kept == [str(number) for number in range(8, 40)]


def test_journals_are_bounded_in_size(start_agent: StartAgent) -> None:
    agent = start_agent(max_journal_bytes=1_000_000)
    for number in range(8):
        agent.run("print('x' * 299_999)", execution_id=str(number))
    kept = [execution["execution_id"] for execution in agent.attach()["executions"]]
    assert kept == ["4", "5", "6", "7"]


def test_output_that_is_no_text_arrives_unharmed(agent: AgentProcess) -> None:
    done = agent.run("import sys\nsys.stdout.buffer.write(bytes(range(256)) * 10)")
    assert done.stdout == bytes(range(256)) * 10


def test_input_larger_than_a_pipe_reaches_the_code(agent: AgentProcess) -> None:
    agent.start("import sys, time\ntime.sleep(0.1)\nprint(len(sys.stdin.read()))", stdin="data", execution_id="a")
    for number in range(6):
        agent.ask("stdin", b"i" * 1_000_000, execution_id="a", eof=number == 5)
    assert agent.finish("a").text == "6000000\n"


def test_input_that_nobody_reads_is_bounded(agent: AgentProcess) -> None:
    agent.start("import time\ntime.sleep(60)", stdin="data", execution_id="a")
    with pytest.raises(Refused) as refused:
        for _ in range(20):
            agent.ask("stdin", b"i" * 1_000_000, execution_id="a")
    assert refused.value.code == "stdin_full"
    agent.ask("cancel", execution_id="a")
    assert agent.finish("a").exit["reason"] == "cancelled"


def test_input_after_the_end_is_refused(agent: AgentProcess) -> None:
    agent.start("", stdin="data", execution_id="a")
    agent.finish("a")
    with pytest.raises(Refused) as refused:
        agent.ask("stdin", b"x", execution_id="a")
    assert refused.value.code == "stdin_closed"


def test_files_made_only_to_be_run_are_removed(agent: AgentProcess, tmp_path: Path) -> None:
    agent.run("print(1)")
    agent.start("import time\ntime.sleep(60)", execution_id="a")
    agent.wait_event("started")
    agent.ask("cancel", execution_id="a")
    agent.finish("a")
    assert list(agent.workdir.iterdir()) == []
