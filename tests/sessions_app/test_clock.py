"""The clock of deadlines: somebody sets a wall clock by an hour, and no session notices."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import DatabaseError, connection
from django.db.backends.utils import CursorWrapper

from sessions_app import clock
from sessions_app.api.bodies import session_body
from sessions_app.attempts import Reaper
from sessions_app.models import ClockAnchor, Session
from sessions_app.reaper import sweep
from sessions_app.services.executions import run_once, submit_execution
from sessions_app.services.sessions import require_active
from tests.sessions_app.fake_proxy import FakeProxy

MakeSession = Callable[..., Session]
HOURS = [pytest.param(1, id="forward"), pytest.param(-1, id="back")]
ONE = Reaper(workers=1)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _as_in_a_new_process() -> Iterator[None]:
    clock.forget()
    with clock.using(clock.reckoned):
        yield
    clock.forget()


@contextmanager
def wall_set_by(hours: int) -> Iterator[None]:
    """Set the wall clock of this machine, where app and reaper run."""
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=True):
        yield


@contextmanager
def database_set_by(hours: int) -> Iterator[None]:
    """Set the clock of the database's machine: with SQLite it is this one."""
    if connection.vendor == "sqlite":
        with wall_set_by(hours):
            yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock.ClockTimestamp, "template", f"(%(function)s() + interval '{hours} hours')")
        yield


def error_of(reading: datetime, truth: float) -> float:
    """Return how far a reading is from the truth, in seconds."""
    return abs(reading.timestamp() - truth)


def test_it_tells_the_time() -> None:
    assert error_of(clock.now(), time.time()) < 1
    first = clock.now()
    assert timedelta(0) <= clock.now() - first < timedelta(seconds=1)


def test_reading_it_again_asks_the_database_nothing(statements: Callable[[int], AbstractContextManager[None]]) -> None:
    clock.now()
    with statements(0):
        clock.now()


@pytest.mark.parametrize("hours", HOURS)
@pytest.mark.parametrize("which", [wall_set_by, database_set_by])
def test_no_session_ends_early_or_late_when_a_clock_is_set(
    which: Callable[[int], AbstractContextManager[None]], hours: int, make_session: MakeSession, proxy: FakeProxy
) -> None:
    kept, short = make_session(idle_timeout=60), make_session(idle_timeout=1)
    busy = make_session(idle_timeout=60, max_lifetime=120)
    with which(hours):
        sweep(ONE)
        for session in (kept, busy):
            session.refresh_from_db()
            assert session.status == "active"
            require_active(session, actor="api")
        submit_execution(session=busy, code="wait", actor="api")
        time.sleep(max(0, 1.05 - (clock.now() - short.created_at).total_seconds()))
        sweep(ONE)
        for session, status in ((short, "terminated"), (kept, "active"), (busy, "active")):
            session.refresh_from_db()
            assert session.status == status
    sweep(ONE)
    kept.refresh_from_db()
    assert kept.status == "active"


@pytest.mark.parametrize("hours", HOURS)
def test_a_process_that_starts_after_the_wall_clock_was_set_reads_the_same(hours: int) -> None:
    clock.now()
    truth = time.time()
    with wall_set_by(hours):
        clock.forget()
        assert error_of(clock.now(), truth) < 1


@pytest.mark.parametrize("hours", HOURS)
def test_a_process_that_starts_after_the_databases_clock_was_set_reads_the_same(hours: int) -> None:
    clock.now()
    truth = time.time()
    with database_set_by(hours):
        clock.refresh()  # some process sees it, the reaper at the latest
        clock.forget()
        assert error_of(clock.now(), truth) < 1
        clock.refresh()
        assert error_of(clock.now(), truth) < 1


@pytest.mark.parametrize("hours", HOURS)
def test_an_answer_shows_what_a_clock_on_the_wall_will_show(make_session: MakeSession, hours: int) -> None:
    session = make_session(idle_timeout=60)
    before = session_body(session)["expires_at"]
    with database_set_by(hours):
        clock.refresh()
        after = session_body(session)["expires_at"]
    shown = datetime.fromisoformat(after) - datetime.fromisoformat(before)
    assert abs(shown - timedelta(hours=hours)) <= timedelta(seconds=1)


def test_after_a_boot_the_wall_clock_counts_again() -> None:
    ClockAnchor.objects.update_or_create(pk=1, defaults={"boot_id": "an earlier boot", "offset_us": 5})
    assert error_of(clock.now(), time.time()) < 1


def test_a_database_that_is_away_stops_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    first = clock.now()

    def away(*_arguments: object) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(clock, "REFRESH_S", 0)
    monkeypatch.setattr(CursorWrapper, "execute", away)
    assert timedelta(0) <= clock.now() - first < timedelta(seconds=5)


def test_a_small_difference_is_followed_not_corrected() -> None:
    clock.now()
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=0.5), tick=True):
        clock.refresh()
    assert not ClockAnchor.objects.filter(revision__gt=0).exists()


def test_one_shots_and_their_executions_are_dated_by_it(make_session: MakeSession, proxy: FakeProxy) -> None:
    session = make_session()
    with wall_set_by(1):
        execution = run_once(owner=session.owner, code="1", actor="api")
    assert abs(execution.created_at - session.created_at) < timedelta(seconds=10)
    events = [*session.events.all(), *execution.session.events.all()]
    assert all(abs(event.created_at - session.created_at) < timedelta(seconds=10) for event in events)
