"""The reaper when things go wrong: one that keeps failing, a proxy that is away or silent, rows kept too long."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import override_settings

from sessions_app import reaper
from sessions_app.attempts import Reaper
from sessions_app.backoff import Backoff
from sessions_app.models import Execution, Session, SessionEvent
from sessions_app.reaper import sweep
from sessions_app.services.executions import run_once, start_execution, submit_execution
from sessions_app.services.sessions import create_session, terminate_session
from tests.sessions_app.fake_proxy import FakeProxy

MakeSession = Callable[..., Session]

DAY = 24 * 3600


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as traveller:
        yield traveller


@pytest.fixture
def one(clock: Any) -> Reaper:
    """A reaper of a single thread whose patience goes by the traveller's clock."""
    import time

    return Reaper(workers=1, backoff=Backoff(time.time))


def state(row: Session | Execution) -> str:
    row.refresh_from_db()
    return f"{row.status} {row.termination_reason}" if isinstance(row, Session) else row.status


def refuse(proxy: FakeProxy, request: str) -> None:
    """Have the proxy fail at one request only."""
    proxy.failures[request] = httpx.Response(503, text=json.dumps({"error": "busy", "detail": "this one fails"}))


# --- One that keeps failing


def test_a_sandbox_that_cannot_be_destroyed_is_tried_less_and_less_and_stops_no_other(
    clock: Any, one: Reaper, make_session: MakeSession, proxy: FakeProxy
) -> None:
    stubborn, other = make_session(idle_timeout=1), make_session(idle_timeout=2)
    deletion = f"DELETE /sessions/{stubborn.pk}"
    refuse(proxy, deletion)
    clock.shift(2)
    for _ in range(300):
        sweep(one)
        clock.shift(1)
    assert (state(stubborn), state(other)) == ("terminating idle", "terminated idle")
    # at once, and after 5, 10, 20, 40 and 80 s; the 160 s are not yet over
    assert proxy.requests.count(deletion) == 6
    proxy.failures.clear()
    clock.shift(300)
    sweep(one)
    assert state(stubborn) == "terminated idle"


def test_many_that_keep_failing_do_not_keep_others_from_their_turn(
    clock: Any, one: Reaper, make_session: MakeSession, proxy: FakeProxy
) -> None:
    one.batch = 3
    stuck = [make_session() for _ in range(4)]
    for session in stuck[:3]:
        refuse(proxy, f"DELETE /sessions/{session.pk}")
    for session in stuck:
        session.begin_end(reason="user", actor="api")
        clock.shift(1)
    clock.shift(20)
    sweep(one), sweep(one)
    assert [state(session) for session in stuck] == ["terminating user"] * 3 + ["terminated user"]


def test_a_row_that_the_database_refuses_to_change_keeps_no_other_from_its_end(
    clock: Any, one: Reaper, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.batch = 1
    broken, whole = make_session(idle_timeout=1), make_session(idle_timeout=2)
    begin_expiry = Session.begin_expiry

    def refuse_one(self: Session, *, actor: str) -> bool:
        if self.pk == broken.pk:
            raise RuntimeError("no")
        return begin_expiry(self, actor=actor)

    monkeypatch.setattr(Session, "begin_expiry", refuse_one)
    clock.shift(2)
    assert (reaper.end_expired(one), reaper.end_expired(one)) == (0, 1)
    assert (state(broken), state(whole)) == ("active ", "terminated idle")


def test_an_execution_that_cannot_be_read_is_put_off(
    clock: Any, one: Reaper, running: Execution, proxy: FakeProxy
) -> None:
    question = f"GET /sessions/{running.session_id}/executions"
    refuse(proxy, question)
    for _ in range(100):
        clock.shift(1)
        reaper.settle_executions(one)
    assert sum(request.startswith(question) for request in proxy.requests) == 5
    assert state(running) == "running"


def test_an_orphan_that_cannot_be_destroyed_is_tried_less_and_less(
    clock: Any, one: Reaper, db: None, proxy: FakeProxy
) -> None:
    orphan = "0c7e9b1a-0000-4000-8000-000000000000"
    proxy.sandboxes[orphan] = {}
    proxy.made[orphan] = {"created_at": 0}
    refuse(proxy, f"DELETE /sessions/{orphan}")
    for _ in range(36):
        reaper.reconcile(one)
        clock.shift(1)
    assert proxy.requests.count(f"DELETE /sessions/{orphan}") == 4


def test_each_failure_is_said_once_with_its_reason(
    clock: Any, one: Reaper, make_session: MakeSession, proxy: FakeProxy, caplog: pytest.LogCaptureFixture
) -> None:
    session = make_session(idle_timeout=1)
    refuse(proxy, f"DELETE /sessions/{session.pk}")
    clock.shift(1)
    with caplog.at_level(logging.WARNING):
        sweep(one), sweep(one), sweep(one)
    (said,) = caplog.messages
    assert said == f"Session {session.pk} could not be handled, and is left alone for 5 s: this one fails"


# --- The proxy is away


def test_while_the_proxy_is_away_sessions_end_and_nothing_is_tried_in_vain(
    clock: Any, one: Reaper, make_session: MakeSession, owner: User, proxy: FakeProxy
) -> None:
    idle = [make_session(idle_timeout=2) for _ in range(3)]
    busy = make_session()
    execution = start_execution(submit_execution(session=busy, code="wait", actor="api"), actor="api")
    proxy.execution(execution).say("stdout", "so far")
    ended = make_session()
    ended.begin_end(reason="user", actor="api")
    tried = 0

    def refused(_request: Any) -> None:
        nonlocal tried
        tried += 1

    real = FakeProxy.__call__

    def away(request: httpx.Request) -> httpx.Response:
        refused(request)
        return real(proxy, request)

    proxy.away = True
    sweeps = 12
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeProxy, "__call__", lambda _self, request: away(request))
        for _ in range(sweeps):
            clock.shift(5)
            done = sweep(one)
            assert done.failures.keys() == {"reconcile"}
    # only the list of what runs, once a sweep (tried again by no one)
    assert tried == sweeps
    assert [state(session) for session in idle] == ["terminating idle"] * 3
    assert (state(busy), state(execution), state(ended)) == ("active ", "running", "terminating user")

    proxy.away = False
    proxy.execution(execution).end()
    sweep(one)
    assert [state(session) for session in idle] == ["terminated idle"] * 3
    assert (state(busy), state(execution), state(ended)) == ("active ", "succeeded", "terminated user")
    assert list(proxy.sandboxes) == [str(busy.pk)]
    ends = SessionEvent.objects.filter(session__in=[*idle, ended], to_status="terminated")
    assert ends.count() == 4


def test_a_session_being_made_when_everything_died_fails_without_the_proxy(
    clock: Any, one: Reaper, owner: User, proxy: FakeProxy
) -> None:
    def die(_request: Any) -> None:
        raise KeyboardInterrupt

    proxy.before = die
    with pytest.raises(KeyboardInterrupt):
        create_session(owner=owner, actor="api")
    proxy.before, proxy.away = None, True
    clock.shift(25)
    sweep(one)
    assert state(Session.objects.get()) == "failed error"


def test_a_proxy_that_goes_away_amid_a_sweep_puts_nothing_off(
    clock: Any, one: Reaper, make_session: MakeSession, proxy: FakeProxy
) -> None:
    sessions = [make_session(idle_timeout=2) for _ in range(4)]
    clock.shift(2)

    def vanish(request: httpx.Request) -> None:
        if request.method == "DELETE":
            proxy.away = True
            raise httpx.ConnectError("refused", request=request)

    proxy.before = vanish
    sweep(one)
    assert {state(session) for session in sessions} == {"terminating idle"}
    proxy.before, proxy.away = None, False
    sweep(one)
    assert {state(session) for session in sessions} == {"terminated idle"}


def test_a_proxy_that_hangs_amid_a_sweep_costs_one_wait_not_one_for_each_session(
    clock: Any, one: Reaper, make_session: MakeSession, proxy: FakeProxy
) -> None:
    sessions = [make_session(idle_timeout=2) for _ in range(4)]
    clock.shift(2)
    waited: list[str] = []

    def hang(request: httpx.Request) -> None:
        if request.url.path != "/sessions":
            waited.append(request.method)
            raise httpx.ReadTimeout("silence", request=request)

    proxy.before = hang
    sweep(one)
    # neither in this step nor in those after it
    assert waited == ["DELETE", "GET"]
    assert {state(session) for session in sessions} == {"terminating idle"}
    proxy.before = None
    sweep(one)
    assert {state(session) for session in sessions} == {"terminated idle"}


# --- Retention


def test_old_sessions_are_dropped_after_their_time(clock: Any, one: Reaper, owner: User, proxy: FakeProxy) -> None:
    run_once(owner=owner, code="old", actor="api")
    live = create_session(owner=owner, actor="api", max_lifetime=86400, idle_timeout=3600)
    clock.shift(30 * DAY)
    run_once(owner=owner, code="new", actor="api")
    assert reaper.drop_old_sessions(one) == 0
    clock.shift(1)
    with override_settings(SESSION_RETENTION=None):
        assert reaper.drop_old_sessions(one) == 0
    assert reaper.drop_old_sessions(one) == 1
    assert [execution.code for execution in Execution.objects.all()] == ["new"]
    assert Session.objects.filter(pk=live.pk).exists()


def test_old_sessions_are_dropped_in_bounded_batches(
    clock: Any, one: Reaper, make_session: MakeSession, proxy: FakeProxy
) -> None:
    for session in [make_session() for _ in range(5)]:
        terminate_session(session=session, reason="user", actor="api")
    one.batch = 2
    with override_settings(SESSION_RETENTION=timedelta(days=1)):
        clock.shift(DAY + 1)
        assert [reaper.drop_old_sessions(one) for _ in range(4)] == [2, 2, 1, 0]
