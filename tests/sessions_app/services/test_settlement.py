"""Executions that nobody waited for are settled from the journal, and code never runs twice."""

from __future__ import annotations

import httpx
import pytest
import time_machine
from django.utils import timezone

from sessions_app.models import Execution, Session
from sessions_app.services.executions import start_execution, submit_execution
from sessions_app.services.settlement import settle_execution
from tests.sessions_app.fake_proxy import FakeProxy


def settle(execution: Execution) -> str:
    return settle_execution(execution, actor="reaper").status


def test_one_that_runs_stays_as_it_is(running: Execution) -> None:
    assert settle(running) == "running"


def test_one_that_ended_is_settled_with_its_whole_output(running: Execution, proxy: FakeProxy) -> None:
    fake = proxy.execution(running)
    fake.say("stdout", "one\n")
    fake.say("stderr", "two\n")
    fake.say("stdout", "three\n")
    fake.end(exit_code=3)
    assert settle(running) == "failed"
    stored = Execution.objects.get(pk=running.pk)
    assert (stored.stdout, stored.stderr, stored.exit_code, stored.last_seq) == ("one\nthree\n", "two\n", 3, 5)
    assert stored.events.get().actor == "reaper"


def test_the_instants_are_those_of_the_sandbox(running: Execution, proxy: FakeProxy) -> None:
    proxy.execution(running).end()
    began, ended = (event["at"] for event in proxy.execution(running).events)
    with time_machine.travel(timezone.now().timestamp() + 60):
        settle(running)
    assert running.started_at is not None and running.finished_at is not None
    assert (running.started_at.timestamp(), running.finished_at.timestamp()) == pytest.approx((began, ended), abs=1e-5)


@pytest.mark.parametrize("reason", ["timed_out", "out_of_memory", "cancelled"])
def test_the_reason_of_the_end_is_the_status(running: Execution, proxy: FakeProxy, reason: str) -> None:
    proxy.execution(running).end(reason=reason, exit_code=None, signal=9)
    assert settle(running) == reason


def test_what_was_cut_out_is_said_where_it_was(running: Execution, proxy: FakeProxy) -> None:
    fake = proxy.execution(running)
    fake.say("stdout", "head")
    fake.say("truncated", {"stream": "stdout", "omitted_bytes": 1000})
    fake.say("stdout", "tail")
    fake.end()
    settle(running)
    assert running.truncated
    assert running.stdout == "head\n[… 1000 bytes omitted …]\ntail"


def test_a_proxy_that_is_away_changes_nothing(running: Execution, proxy: FakeProxy) -> None:
    proxy.away = True
    assert settle(running) == "running"


def test_a_proxy_that_fails_changes_nothing(running: Execution, proxy: FakeProxy) -> None:
    proxy.failures["GET /sessions"] = httpx.Response(500, text="oops")
    assert settle(running) == "running"


def test_a_sandbox_that_is_gone_loses_it(running: Execution, proxy: FakeProxy) -> None:
    proxy.sandboxes.clear()
    assert settle(running) == "lost"
    assert Session.objects.get().termination_reason == "lost"


def test_one_that_waits_is_running_once_its_sandbox_says_so(session: Session, proxy: FakeProxy) -> None:
    first = submit_execution(session=session, code="wait", actor="api")
    second = start_execution(submit_execution(session=session, code="wait", actor="api"), actor="api")
    # A web process died between settling the first and calling the second running.
    Execution.objects.filter(pk=first.pk).update(status="succeeded", finished_at=timezone.now(), attend_at=None)
    assert settle(second) == "running"


def test_one_that_never_arrived_is_handed_over_after_a_while(session: Session, proxy: FakeProxy) -> None:
    execution = submit_execution(session=session, code="1", actor="api")
    assert settle(execution) == "running"
    assert proxy.sandboxes[str(session.pk)] == {}, "it may still be on its way"
    with time_machine.travel(timezone.now().timestamp() + 11, tick=False) as clock:
        assert settle(execution) == "running"
        assert proxy.execution(execution).runs == 1
        clock.shift(1)
        assert settle(execution) == "succeeded"


def test_one_that_never_arrived_waits_for_those_before_it(running: Execution, proxy: FakeProxy) -> None:
    second = submit_execution(session=running.session, code="1", actor="api")
    with time_machine.travel(timezone.now().timestamp() + 11, tick=False):
        assert settle(second) == "queued"
    assert str(second.pk) not in proxy.sandboxes[str(running.session_id)]


def test_one_that_is_unknown_though_a_later_one_ran_is_lost_and_not_run(session: Session, proxy: FakeProxy) -> None:
    first = submit_execution(session=session, code="1", actor="api")
    second = submit_execution(session=session, code="2", actor="api")
    second.finish("succeeded", actor="api", values={"started_at": timezone.now()})
    with time_machine.travel(timezone.now().timestamp() + 11, tick=False):
        assert settle(first) == "lost"
    assert proxy.sandboxes[str(session.pk)] == {}
    session.refresh_from_db()
    assert session.status == "active"
