"""Transitions of executions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from sessions_app.models import Execution, Session
from sessions_app.services.executions import submit_execution


def submit(session: Session) -> Execution:
    return submit_execution(session=session, code="wait", actor="api")


def test_the_database_allows_one_running_execution_a_session(session: Session) -> None:
    submit(session)
    queued = submit(session)
    with pytest.raises(IntegrityError), transaction.atomic():
        Execution.objects.filter(pk=queued.pk).update(status="running")


def test_a_result_is_written_once(session: Session) -> None:
    execution = submit(session)
    copy = Execution.objects.get(pk=execution.pk)
    assert execution.finish("succeeded", actor="api", values={"stdout": "first"})
    assert not copy.finish("lost", actor="reaper", values={"stdout": "second"})
    assert (copy.status, copy.stdout) == ("succeeded", "first")
    session.refresh_from_db()
    assert session.live_executions == 0
    (event,) = execution.events.all()
    assert (event.from_status, event.to_status, event.actor) == ("running", "succeeded", "api")


def test_the_next_in_the_queue_runs_when_the_one_before_it_ended(session: Session) -> None:
    first, second, third = submit(session), submit(session), submit(session)
    assert [first.status, second.status, third.status] == ["running", "queued", "queued"]
    first.finish("failed", actor="api")
    second.refresh_from_db()
    third.refresh_from_db()
    assert (second.status, third.status) == ("running", "queued")
    assert second.started_at is not None


def test_one_that_waits_may_end_without_having_run(session: Session) -> None:
    first, second = submit(session), submit(session)
    assert second.finish("cancelled", actor="api")
    first.refresh_from_db()
    session.refresh_from_db()
    assert (first.status, session.live_executions) == ("running", 1)


def test_one_that_waits_does_not_run_beside_another(session: Session) -> None:
    submit(session)
    second = submit(session)
    assert not second.begin(actor="api")
    assert second.status == "queued"
    second.refresh_from_db()
    assert (second.status, second.started_at) == ("queued", None)


def test_only_one_reaper_looks_at_an_execution(make_session: Callable[..., Session]) -> None:
    submit(make_session())
    later = timezone.now() + timedelta(seconds=11)
    first, second = Execution.objects.unattended(later).get(), Execution.objects.unattended(later).get()
    assert first.claim(now=later)
    assert not second.claim(now=later)
    assert not Execution.objects.unattended(later).exists()
