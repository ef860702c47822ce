"""What comes out of a sandbox is hostile: nothing of it breaks a row."""

from __future__ import annotations

from typing import Any

import pytest

from sessions_app.limits import WHOLE_OUTPUT_LIMIT_BYTES
from sessions_app.models import Execution
from sessions_app.services.outcome import TAKEN_LIMIT_BYTES, from_events, from_reply, kept


def test_text_that_no_database_can_hold_is_replaced() -> None:
    assert kept("a\x00b\ud800c") == ("a\ufffdb?c", False)


def test_text_that_is_too_long_loses_its_middle() -> None:
    text, cut = kept("a" * TAKEN_LIMIT_BYTES + "é" * 10)
    assert cut
    assert text.startswith("aaa") and text.endswith("ééé")
    assert f"{TAKEN_LIMIT_BYTES + 20 - WHOLE_OUTPUT_LIMIT_BYTES} bytes omitted" in text


def test_output_that_is_no_utf8_and_fills_its_limit_is_not_cut_again() -> None:
    assert not kept("\ufffd" * WHOLE_OUTPUT_LIMIT_BYTES)[1]


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"status": "running"},
        {"status": ["succeeded"], "stdout": 5, "stderr": None, "exit_code": "0", "duration_ms": "fast"},
        {"status": "succeeded", "exit_code": 2**70, "max_rss_bytes": True, "duration_ms": float("nan"), "cpu_ms": -1},
        {"status": "succeeded", "started_at": 1e300, "last_seq": "9", "results": {"a": 1}, "hint": ["x"]},
        {"status": "succeeded", "results": [{"text": "\x00\ud800", "n": [1, {"k\x00": None}]}], "artifacts": "x"},
    ],
)
def test_any_answer_fits_the_row(session: Any, reply: dict[str, Any]) -> None:
    result = from_reply(reply)
    execution = Execution(session=session, status=result.status, code="1", timeout_s=1, **result.values)
    execution.finished_at = session.created_at
    execution.save()
    execution.refresh_from_db()
    assert execution.status in Execution.Status.values


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"seq": "x", "type": None, "data": None},
        {"type": "stdout", "data": {"not": "text"}},
        {"type": "truncated", "data": {"stream": "nowhere", "omitted_bytes": "many"}},
        {"type": "truncated", "data": "x"},
        {"type": "exit", "data": "x"},
        {"type": "started", "at": "yesterday"},
        {"type": "queued", "seq": 0},
    ],
)
def test_a_strange_event_is_no_end(event: dict[str, Any]) -> None:
    assert from_events([event]).outcome is None


def test_without_an_end_there_is_the_output_so_far() -> None:
    journal = from_events([{"seq": 1, "type": "started", "at": 5}, {"seq": 2, "type": "stdout", "data": "x"}])
    assert journal.outcome is None
    assert journal.started_at is not None
    assert journal.partial["stdout"] == "x"


def test_an_exit_by_signal_is_a_failure_of_the_code() -> None:
    end = {"exit_code": None, "signal": 11, "reason": "exited"}
    outcome = from_events([{"seq": 1, "type": "exit", "data": end}]).outcome
    assert outcome is not None
    assert (outcome.status, outcome.values["signal"]) == ("failed", 11)


@pytest.mark.parametrize(
    ("told", "phase"), [("compile", "compile"), ("run", "run"), ("x" * 99, ""), (None, ""), (1, "")]
)
def test_a_phase_is_one_of_two_or_unknown(told: object, phase: str) -> None:
    assert from_reply({"status": "failed", "phase": told}).values["phase"] == phase
    journal = from_events([{"seq": 1, "type": "exit", "data": {"exit_code": 1, "phase": told}, "at": 1.0}])
    assert journal.outcome is not None
    assert journal.outcome.values["phase"] == phase


@pytest.mark.parametrize(
    ("count", "said", "told"),
    [(2, None, False), (2, "yes", False), (2, True, True), (101, None, True), (0, True, True)],
)
def test_files_that_are_not_listed_are_told(count: int, said: object, told: bool) -> None:
    files = [{"path": f"f{number}", "size": 1, "mode": "0644", "change": "created"} for number in range(count)]
    end = {"exit_code": 0, "reason": "exited", "files": files, "files_truncated": said}
    outcome = from_events([{"seq": 1, "type": "exit", "data": end, "at": 1.0}]).outcome
    assert outcome
    for values in (outcome.values, from_reply({"status": "succeeded", **end}).values):
        assert (len(values["files"]), values["files_truncated"]) == (min(count, 100), told)
