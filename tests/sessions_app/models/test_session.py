"""Transitions of sessions: each happens once, leaves its event, and keeps the one deadline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from sessions_app.limits import MAX_LIVE_EXECUTIONS
from sessions_app.models import Execution, SandboxTemplate, Session, SessionEvent

NOON = datetime(2030, 6, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def pending(owner: User) -> Session:
    return Session.objects.create(
        owner=owner,
        template=SandboxTemplate.objects.get(name="python"),
        lang="python",
        idle_timeout_s=60,
        max_lifetime_s=600,
        execution_timeout_s=30,
        attend_at=timezone.now(),
    )


def activate(session: Session) -> bool:
    return session.activate(sandbox="sbx", backend="fake", capabilities={}, actor="api")


def run(session: Session, status: str | None) -> Execution:
    assert status is not None
    return Execution.objects.create(
        session=session, status=status, code="1", timeout_s=1, attend_at=timezone.now(), created_at=timezone.now()
    )


def test_a_transition_happens_once(pending: Session) -> None:
    copy = Session.objects.get(pk=pending.pk)
    assert activate(pending)
    assert not activate(copy)
    assert not copy.fail(reason="error", error="late", actor="reaper")
    assert [event.to_status for event in pending.events.all()] == ["active"]


def test_every_transition_leaves_an_event_with_actor_and_reason(pending: Session) -> None:
    activate(pending)
    pending.begin_end(reason="user", actor="api", user_id=pending.owner_id)
    pending.finish_end(actor="reaper")
    events = list(pending.events.values_list("from_status", "to_status", "actor", "reason", "user_id"))
    assert events == [
        ("pending", "active", "api", "", None),
        ("active", "terminating", "api", "user", pending.owner_id),
        ("terminating", "terminated", "reaper", "user", None),
    ]
    assert set(pending.events.values_list("type", flat=True)) == {SessionEvent.Type.SESSION_STATE}
    pending.refresh_from_db()
    assert pending.finished_at is not None and pending.attend_at is None


def test_the_deadline_is_the_nearer_of_idleness_and_lifetime(pending: Session) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        activate(pending)
        assert pending.expires_at == NOON + timedelta(seconds=60)
        clock.shift(50)
        execution = run(pending, pending.admit(timezone.now()))
        clock.shift(500)
        execution.finish("succeeded", actor="api")
        pending.refresh_from_db()
        assert pending.expires_at == NOON + timedelta(seconds=600)


def test_a_session_that_runs_code_is_not_idle(pending: Session) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        activate(pending)
        execution = run(pending, pending.admit(timezone.now()))
        clock.shift(120)
        assert not Session.objects.due(timezone.now()).exists()
        execution.finish("succeeded", actor="api")
        pending.refresh_from_db()
        assert pending.expires_at == NOON + timedelta(seconds=180)
        clock.shift(60)
        assert list(Session.objects.due(timezone.now())) == [pending]


def test_the_idle_clock_starts_when_the_last_of_several_executions_ends(pending: Session) -> None:
    with time_machine.travel(NOON, tick=False):
        activate(pending)
        first = run(pending, pending.admit(timezone.now()))
        second = run(pending, pending.admit(timezone.now()))
        first.finish("succeeded", actor="api")
        pending.refresh_from_db()
        assert (pending.live_executions, pending.expires_at) == (1, NOON + timedelta(seconds=600))
        second.finish("succeeded", actor="api")
        pending.refresh_from_db()
        assert (pending.live_executions, pending.expires_at) == (0, NOON + timedelta(seconds=60))


def test_a_new_idle_timeout_holds_for_an_execution_that_began_before_it(pending: Session) -> None:
    with time_machine.travel(NOON, tick=False):
        activate(pending)
        execution = run(pending, pending.admit(timezone.now()))
        copy = Session.objects.get(pk=pending.pk)
        assert copy.change(now=timezone.now(), active=False, idle_timeout_s=300)
        assert copy.expires_at == NOON + timedelta(seconds=600)
        execution.finish("succeeded", actor="api")
        pending.refresh_from_db()
        assert pending.expires_at == NOON + timedelta(seconds=300)


def test_admission_is_bounded_and_only_for_active_sessions_before_their_deadline(pending: Session) -> None:
    now = timezone.now()
    assert pending.admit(now) is None
    activate(pending)
    assert pending.admit(now) == "running"
    assert {pending.admit(now) for _ in range(MAX_LIVE_EXECUTIONS - 1)} == {"queued"}
    assert pending.admit(now) is None
    Session.objects.update(live_executions=0)
    assert pending.admit(now + timedelta(days=1)) is None


def test_an_expiry_does_not_hit_a_session_that_was_renewed_meanwhile(pending: Session) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        activate(pending)
        stale = Session.objects.get(pk=pending.pk)
        pending.change(now=timezone.now(), active=True, idle_timeout_s=500)
        clock.shift(61)
        assert not stale.begin_expiry(actor="reaper")
        clock.shift(500)
        assert stale.begin_expiry(actor="reaper")


def test_the_reason_of_an_expiry_is_the_clock_that_ran_out(pending: Session) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        activate(pending)
        clock.shift(60)
        assert pending.expiry_reason(timezone.now()) == "idle"
        clock.shift(540)
        assert pending.expiry_reason(timezone.now()) == "max_lifetime"


@pytest.mark.parametrize(
    "values",
    [
        {"status": "sleeping"},
        {"status": "terminated", "attend_at": None},
        {"status": "failed", "termination_reason": "bored", "finished_at": NOON, "attend_at": None},
        {"status": "active", "attend_at": None},
        {"termination_reason": "user"},
        {"attend_at": None},
        {"idle_timeout_s": 0},
    ],
)
def test_the_database_refuses_rows_that_contradict_themselves(pending: Session, values: dict[str, object]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Session.objects.filter(pk=pending.pk).update(**values)


def test_only_one_reaper_takes_a_stuck_row(pending: Session) -> None:
    now = timezone.now()
    first, second = Session.objects.stuck(now).get(), Session.objects.stuck(now).get()
    lease = timedelta(seconds=15)
    assert first.claim(now=now, lease=lease)
    assert not second.claim(now=now, lease=lease)
    assert not Session.objects.stuck(now).exists()
    assert Session.objects.stuck(now + lease).exists()
