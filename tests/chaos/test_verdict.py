"""What a chaos run must find, it finds."""

from __future__ import annotations

import socket
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.chaos.ledger import Asked, Ledger
from tests.chaos.programs import Program
from tests.chaos.verdict import FINDINGS, Truth, lost_without_cause
from tests.chaos.witness import Witness
from tests.waiting import wait_until

SESSION, EXECUTION = str(uuid.uuid4()), str(uuid.uuid4())
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def books(**told: Any) -> Ledger:
    """Return the books of a client whose session lives and whose code succeeded."""
    ledger = Ledger()
    ledger.note_session(SESSION)
    program = Program("mark", 1, exit_code=told.pop("exit_code", 0))
    asked = Asked(program, "execute")
    answer = {"execution_id": EXECUTION, "status": "succeeded", "stdout": program.stdout, "stderr": program.stderr}
    ledger.note_asked(asked)
    ledger.note_answer(asked, {**answer, "error": "", **told})
    return ledger


def truth(session: dict[str, Any] | None = None, execution: dict[str, Any] | None = None, **values: Any) -> Truth:
    """Return what is true when nothing is wrong, but for what is given."""
    program = Program("mark", 1)
    row = {"id": EXECUTION, "status": "succeeded", "stdout": program.stdout, "stderr": program.stderr, "error": ""}
    nothing_wrong: dict[str, Any] = {
        "sessions": [{"id": SESSION, "status": "active", "sandbox": "sbx-1", **(session or {})}],
        "executions": [{**row, **(execution or {})}],
        "sandboxes": {"sbx-1"},
        "left_behind": [],
        "of_proxy": {SESSION: "sbx-1"},
        "runs": {"mark": 1},
    }
    return Truth(**{**nothing_wrong, **values})


def found(what_is: Truth, ledger: Ledger) -> set[str]:
    """Return the names of the findings that are not empty."""
    return {name for name, look in FINDINGS.items() if look(what_is, ledger)}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert found(truth(), books()) == set()


@pytest.mark.parametrize(
    ("what_is", "name"),
    [
        (truth(session={"status": "terminating"}), "rows in a passing state that nothing works on"),
        (truth(sandboxes={"sbx-1", "sbx-2"}), "sandboxes, processes or directories without a live row"),
        (truth(left_behind=["process 1"]), "sandboxes, processes or directories without a live row"),
        (truth(of_proxy={SESSION: "sbx-1", "x": "y"}), "sandboxes, processes or directories without a live row"),
        (truth(sandboxes=set()), "live rows without a sandbox"),
        (truth(of_proxy={}), "live rows without a sandbox"),
        (truth(runs={"mark": 2}), "executions run twice under one Idempotency-Key"),
        (truth(executions=[]), "acknowledged rows missing"),
        (truth(execution={"stdout": "other"}), "executions whose result is not what the code does"),
        (truth(runs={}), "executions whose result is not what the code does"),
        (truth(execution={"status": "lost", "stdout": ""}), "acknowledged ends that are not so"),
    ],
)
def test_what_is_wrong_is_found(what_is: Truth, name: str) -> None:
    assert found(what_is, books()) == {name}


@pytest.mark.parametrize("told", [{"stdout": ""}, {"stderr": ""}, {"exit_code": 3}])
def test_an_answer_that_is_wrong_is_found(told: dict[str, Any]) -> None:
    assert "executions whose result is not what the code does" in found(truth(), books(**told))


def test_a_session_that_was_ended_and_lives_is_found() -> None:
    ledger = books()
    ledger.note_end(SESSION)
    assert found(truth(), ledger) == {"acknowledged ends that are not so"}


def test_a_session_is_lost_for_a_cause_or_it_is_found() -> None:
    row = {"id": SESSION, "termination_reason": "lost", "error": "", "created_at": NOW, "finished_at": NOW}
    before, after = NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)
    assert lost_without_cause([row], [(before, after)]).cases == []
    assert len(lost_without_cause([row], [(after, after)]).cases) == 1


def test_the_witness_counts_every_run_of_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    witness = Witness()
    try:
        program = Program("mark", witness.port, lines=3, width=2)
        for _ in range(2):
            with pytest.raises(SystemExit):
                exec(program.code, {"__name__": "__main__"})  # noqa: S102 - our own few lines
            captured = capsys.readouterr()
            assert (captured.out, captured.err) == (program.stdout, program.stderr)
        wait_until(lambda: witness.runs() == {"mark": 2}, what="both runs to be counted")
    finally:
        witness.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", witness.port), 1)
