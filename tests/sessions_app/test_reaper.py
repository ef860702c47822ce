"""The reaper's steps: what each finds, what it leaves alone, and that nothing stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sessions_app import reaper
from sessions_app.attempts import Reaper
from sessions_app.exceptions import ProxyUnavailable
from sessions_app.models import Execution, IdempotencyRecord, ReaperSweep, Session
from sessions_app.reaper import sweep
from sessions_app.services import idempotency
from sessions_app.services.executions import run_once, start_execution, submit_execution
from sessions_app.services.sessions import create_session, terminate_session
from tests.sessions_app.fake_proxy import FakeProxy

MakeSession = Callable[..., Session]
ONE = Reaper(workers=1)


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as traveller:
        yield traveller


def state(row: Session | Execution) -> str:
    row.refresh_from_db()
    return f"{row.status} {row.termination_reason}" if isinstance(row, Session) else row.status


# --- Expiry


def test_an_idle_session_ends_with_its_sandbox(clock: Any, make_session: MakeSession, proxy: FakeProxy) -> None:
    idle, kept = make_session(idle_timeout=2), make_session(idle_timeout=60)
    clock.shift(2)
    assert reaper.end_expired(ONE) == 1
    assert (state(idle), state(kept)) == ("terminated idle", "active ")
    assert list(proxy.sandboxes) == [str(kept.pk)]
    assert reaper.end_expired(ONE) == 0
    assert [event.actor for event in idle.events.all()] == ["api", "reaper", "reaper"]


def test_code_that_runs_for_longer_than_the_idle_timeout_is_left_alone(
    clock: Any, make_session: MakeSession, proxy: FakeProxy
) -> None:
    session = make_session(idle_timeout=2)
    execution = start_execution(submit_execution(session=session, code="wait", actor="api"), actor="api")
    clock.shift(10)
    sweep(ONE)
    assert state(session) == "active "
    proxy.execution(execution).end()
    clock.shift(10)
    sweep(ONE)
    assert (state(execution), state(session)) == ("succeeded", "active ")
    clock.shift(2)
    sweep(ONE)
    assert state(session) == "terminated idle"


def test_the_maximum_lifetime_ends_it_all_and_keeps_the_output_so_far(
    clock: Any, make_session: MakeSession, proxy: FakeProxy
) -> None:
    session = make_session(max_lifetime=3)
    execution = start_execution(submit_execution(session=session, code="wait", actor="api"), actor="api")
    proxy.execution(execution).say("stdout", "so far")
    clock.shift(3)
    assert reaper.end_expired(ONE) == 1
    assert (state(session), state(execution)) == ("terminated max_lifetime", "cancelled")
    assert execution.stdout == "so far"


def test_without_the_proxy_sessions_expire_all_the_same_and_their_sandboxes_go_later(
    clock: Any, make_session: MakeSession, proxy: FakeProxy
) -> None:
    session = make_session(idle_timeout=2)
    proxy.away = True
    clock.shift(2)
    done = sweep(ONE)
    assert state(session) == "terminating idle"
    assert "reconcile" in done.failures
    proxy.away = False
    sweep(ONE)
    assert state(session) == "terminated idle"
    assert proxy.sandboxes == {}


# --- What crashes leave


def test_a_session_whose_making_was_cut_off_fails(clock: Any, owner: User, proxy: FakeProxy) -> None:
    def die(_request: Any) -> None:
        raise KeyboardInterrupt

    proxy.before = die
    with pytest.raises(KeyboardInterrupt):
        create_session(owner=owner, actor="api")
    proxy.before = None
    session = Session.objects.get()
    clock.shift(17)
    assert reaper.finish_stuck(ONE) == 0
    clock.shift(1)
    assert reaper.finish_stuck(ONE) == 1
    assert state(session) == "failed error"


def test_a_session_whose_end_was_cut_off_ends(clock: Any, running: Execution, proxy: FakeProxy) -> None:
    running.session.begin_end(reason="user", actor="api")
    clock.shift(15)
    assert reaper.finish_stuck(ONE) == 1
    assert (state(running.session), state(running)) == ("terminated user", "cancelled")
    assert proxy.sandboxes == {}


def test_an_execution_whose_web_process_died_is_settled(clock: Any, running: Execution, proxy: FakeProxy) -> None:
    proxy.execution(running).say("stdout", "whole")
    proxy.execution(running).end()
    clock.shift(1)
    assert reaper.settle_executions(ONE) == 1
    assert (state(running), running.stdout) == ("succeeded", "whole")


def test_an_execution_that_runs_on_is_looked_at_less_and_less_often(
    clock: Any, running: Execution, proxy: FakeProxy
) -> None:
    looks = 0
    for _ in range(120):
        clock.shift(1)
        before = len(proxy.requests)
        reaper.settle_executions(ONE)
        looks += len(proxy.requests) > before
    assert 10 < looks < 30


def test_a_one_shot_whose_web_process_died_ends_with_its_execution(clock: Any, owner: User, proxy: FakeProxy) -> None:
    session = create_session(owner=owner, actor="api", one_shot=True)
    execution = submit_execution(session=session, code="1", actor="api")
    start_execution(execution, actor="api")
    clock.shift(2)
    assert reaper.settle_executions(ONE) == 1
    assert (state(execution), state(session)) == ("succeeded", "terminated user")
    assert proxy.sandboxes == {}


def test_a_one_shot_that_never_got_its_code_ends_soon(clock: Any, owner: User, proxy: FakeProxy) -> None:
    session = create_session(owner=owner, actor="api", one_shot=True)
    clock.shift(30)
    sweep(ONE)
    assert state(session) == "terminated idle"


# --- What really runs


def test_a_session_without_a_sandbox_is_lost(clock: Any, running: Execution, proxy: FakeProxy) -> None:
    proxy.sandboxes.clear()
    assert reaper.reconcile(ONE) == 1
    assert (state(running.session), state(running)) == ("failed lost", "lost")


def test_a_session_that_is_being_made_or_ended_is_not_lost(owner: User, proxy: FakeProxy) -> None:
    seen: list[int] = []

    def sweep_meanwhile(request: Any) -> None:
        if request.method == "POST":
            proxy.before = None
            seen.append(reaper.reconcile(ONE))

    proxy.before = sweep_meanwhile
    session = create_session(owner=owner, actor="api")
    assert (seen, state(session)) == ([0], "active ")


def test_a_session_that_became_active_after_the_rows_were_read_is_not_lost(
    owner: User, proxy: FakeProxy, session: Session
) -> None:
    def make_another(request: Any) -> None:
        if request.method == "GET":
            proxy.before = None
            create_session(owner=owner, actor="api")

    proxy.before = make_another
    assert reaper.reconcile(ONE) == 0
    assert Session.objects.active().count() == 2
    assert len(proxy.sandboxes) == 2


def test_the_sandbox_of_a_session_that_ended_is_destroyed_after_its_grace(
    clock: Any, session: Session, proxy: FakeProxy
) -> None:
    left = {**proxy.sandboxes}
    terminate_session(session=session, reason="user", actor="api")
    proxy.sandboxes.update(left)
    clock.shift(10)
    assert reaper.reconcile(ONE) == 0
    clock.shift(1)
    assert reaper.reconcile(ONE) == 1
    assert proxy.sandboxes == {}


def test_a_sandbox_that_no_row_knows_is_destroyed_after_a_longer_grace(
    clock: Any, session: Session, proxy: FakeProxy
) -> None:
    proxy.sandboxes["0c7e9b1a-0000-4000-8000-000000000000"] = {}
    proxy.made["0c7e9b1a-0000-4000-8000-000000000000"] = {"created_at": timezone.now().timestamp()}
    clock.shift(299)
    assert reaper.reconcile(ONE) == 0
    clock.shift(2)
    assert reaper.reconcile(ONE) == 1
    assert list(proxy.sandboxes) == [str(session.pk)]


def test_a_sandbox_of_unknown_age_is_left_alone(db: None, proxy: FakeProxy) -> None:
    proxy.sandboxes["not-a-uuid"] = {}
    proxy.made["not-a-uuid"] = {"created_at": None}
    assert reaper.reconcile(ONE) == 0


# --- The sweep


def test_a_sweep_with_nothing_due_asks_a_small_constant_number_of_questions(
    owner: User, make_session: MakeSession, proxy: FakeProxy
) -> None:
    def questions() -> int:
        with CaptureQueriesContext(connection) as captured:
            sweep(ONE)
        return sum("SAVEPOINT" not in query["sql"] for query in captured.captured_queries)

    sweep(ONE)
    few = questions()
    for _ in range(5):
        make_session()
        run_once(owner=owner, code="1", actor="api")
    assert questions() == few <= 13


def test_a_sweep_leaves_a_record(proxy: FakeProxy, clock: Any, make_session: MakeSession) -> None:
    make_session(idle_timeout=1)
    clock.shift(1)
    sweep(ONE)
    proxy.away = True
    sweep(ONE)
    row = ReaperSweep.objects.get()
    assert row.total_sweeps == 2
    assert row.failures.keys() == {"reconcile"}
    assert (row.counts["end_expired"], row.totals["end_expired"]) == (0, 1)


def test_one_step_that_breaks_does_not_stop_the_others(
    db: None, proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_reaper: Reaper) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(reaper, "STEPS", (broken, *reaper.STEPS))
    done = sweep(ONE)
    assert done.failures == {"broken": "RuntimeError"}
    assert "push_pool_targets" in done.counts


def test_one_row_that_breaks_does_not_stop_the_others() -> None:
    def handle(number: int) -> bool:
        if number == 1:
            raise ZeroDivisionError
        if number == 2:
            raise ProxyUnavailable("away")
        return True

    assert ONE.each([0, 1, 2, 3], handle) == 2


def test_a_reaper_that_should_stop_begins_nothing_more(db: None, proxy: FakeProxy) -> None:
    done = sweep(Reaper(workers=1, should_stop=lambda: True))
    assert done.counts == {}
    assert Reaper(workers=1, should_stop=lambda: True).each([1], lambda _row: True) == 0


def test_a_batch_is_bounded_and_a_full_one_calls_for_another_sweep(
    clock: Any, make_session: MakeSession, proxy: FakeProxy
) -> None:
    for _ in range(3):
        make_session(idle_timeout=1)
    clock.shift(1)
    small = Reaper(workers=1, batch=2)
    first, second = sweep(small), sweep(small)
    assert (first.counts["end_expired"], first.is_full) == (2, True)
    assert (second.counts["end_expired"], second.is_full) == (1, False)


def test_old_idempotency_records_go(clock: Any, owner: User, proxy: FakeProxy) -> None:
    idempotency.claim(owner=owner, key="k", fingerprint="f")
    clock.shift(24 * 3600 + 1)
    assert reaper.drop_idempotency_records(ONE) == 1
    assert not IdempotencyRecord.objects.exists()


def test_the_questions_are_answered_by_partial_indexes(db: None) -> None:
    now = timezone.now()
    questions = {
        "session_due": Session.objects.due(now),
        "session_stuck": Session.objects.stuck(now),
        "execution_unattended": Execution.objects.unattended(now),
    }
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Of empty tables all plans cost the same; these give the rows unordered.
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
    for index, rows in questions.items():
        assert index in rows[:10].explain()
