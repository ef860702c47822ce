"""Patience with things that keep failing."""

from __future__ import annotations

from sessions_app.backoff import Backoff


class Time:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_keeps_failing_is_tried_less_and_less_often() -> None:
    time = Time()
    backoff = Backoff(time)
    assert [backoff.failed("a") for _ in range(9)] == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    time.now += 299
    assert backoff.held() == {"a"}
    time.now += 1
    assert backoff.held() == set()
    assert backoff.failed("a") == 300


def test_what_works_again_begins_anew() -> None:
    backoff = Backoff(Time())
    backoff.failed("a"), backoff.failed("a"), backoff.failed("b")
    backoff.worked("a")
    assert backoff.held() == {"b"}
    assert backoff.failed("a") == 5


def test_what_vanished_is_forgotten() -> None:
    time = Time()
    backoff = Backoff(time)
    backoff.failed("a")
    time.now += 700
    assert backoff.held() == set()
    assert backoff.failed("a") == 5
