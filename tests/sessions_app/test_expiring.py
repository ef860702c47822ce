"""The announcement of a session's end: once for each deadline, and in time to renew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine

from sessions_app import reaper
from sessions_app.attempts import Reaper
from sessions_app.models import Session, SessionEvent, TimeoutPolicy
from sessions_app.reaper import sweep
from sessions_app.services.executions import start_execution, submit_execution
from sessions_app.services.sessions import renew_session, update_session
from tests.sessions_app.fake_proxy import FakeProxy

MakeSession = Callable[..., Session]
ONE = Reaper(workers=1)


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as traveller:
        yield traveller


def announced(session: Session) -> list[tuple[str, str]]:
    """Return reason and deadline of each announcement."""
    events = session.events.filter(type=SessionEvent.Type.EXPIRING)
    return [(event.reason, event.data["expires_at"]) for event in events]


def test_an_end_is_announced_once_when_its_grace_begins(clock: Any, make_session: MakeSession) -> None:
    session, later = make_session(idle_timeout=100), make_session(idle_timeout=200)
    clock.shift(69)
    assert reaper.announce_ends(ONE) == 0
    clock.shift(1)
    assert reaper.announce_ends(ONE) == 1
    clock.shift(5)
    assert reaper.announce_ends(ONE) == 0
    assert announced(session) == [("idle", "2030-01-01T00:01:40Z")]
    assert announced(later) == []


def test_a_renewed_session_is_announced_again(clock: Any, make_session: MakeSession) -> None:
    session = make_session(idle_timeout=100)
    clock.shift(75)
    sweep(ONE)
    renew_session(session=session, actor="api")
    sweep(ONE)
    clock.shift(75)
    sweep(ONE)
    session.refresh_from_db()
    assert session.status == "active"
    assert announced(session) == [("idle", "2030-01-01T00:01:40Z"), ("idle", "2030-01-01T00:02:55Z")]


def test_a_busy_session_is_not_about_to_become_idle(clock: Any, make_session: MakeSession, proxy: FakeProxy) -> None:
    session = make_session(idle_timeout=100, max_lifetime=1000)
    start_execution(submit_execution(session=session, code="wait", timeout=600, actor="api"), actor="api")
    clock.shift(75)
    assert reaper.announce_ends(ONE) == 0
    clock.shift(900)
    # But its lifetime ends whatever it does.
    assert reaper.announce_ends(ONE) == 1
    assert announced(session) == [("max_lifetime", "2030-01-01T00:16:40Z")]


def test_what_is_due_already_is_ended_not_announced(clock: Any, make_session: MakeSession) -> None:
    session = make_session(idle_timeout=100)
    clock.shift(100)
    assert reaper.announce_ends(ONE) == 0
    sweep(ONE)
    assert announced(session) == []


def test_a_deadline_that_moved_meanwhile_is_not_announced(clock: Any, make_session: MakeSession) -> None:
    session = make_session(idle_timeout=100)
    clock.shift(75)
    as_read = Session.objects.get(pk=session.pk)
    update_session(session=session, idle_timeout=300, actor="api")
    assert not as_read.announce_end(actor="reaper")
    assert announced(session) == []


def test_two_reapers_announce_it_once(clock: Any, make_session: MakeSession) -> None:
    session = make_session(idle_timeout=100)
    clock.shift(75)
    first, second = (Session.objects.get(pk=session.pk) for _ in range(2))
    assert (first.announce_end(actor="reaper"), second.announce_end(actor="reaper")) == (True, False)
    assert len(announced(session)) == 1


@pytest.mark.parametrize(("grace_s", "count"), [(0, 0), (40, 1)])
def test_the_policy_says_how_long_before(clock: Any, make_session: MakeSession, grace_s: int, count: int) -> None:
    TimeoutPolicy.objects.update(grace_s=grace_s)
    make_session(idle_timeout=100)
    clock.shift(timedelta(seconds=60))
    assert reaper.announce_ends(ONE) == count
