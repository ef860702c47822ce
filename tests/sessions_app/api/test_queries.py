"""What a request may cost the database; a statement more is a decision, not an accident."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from sessions_app.models import Session
from tests.sessions_app.api.conftest import Caller

pytestmark = pytest.mark.django_db

Statements = Callable[[int], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def _used_key(api: Caller) -> None:
    """Have the key's use written already."""
    api.get("/sessions/x")


def test_looking_at_a_session(api: Caller, session: Session, statements: Statements) -> None:
    with statements(2):
        api.get(f"/sessions/{session.pk}")


def test_executing(api: Caller, session: Session, statements: Statements) -> None:
    # key, session, place, row, result, place, event
    with statements(7):
        assert api.post(f"/sessions/{session.pk}/execute", {"code": "print(1)"}).status_code == 200


@pytest.mark.parametrize("count", [1, 10])
def test_listing_sessions_costs_the_same_for_few_and_many(
    api: Caller, make_session: Callable[..., Session], statements: Statements, count: int
) -> None:
    for _ in range(count):
        make_session()
    with statements(3):
        assert len(api.get("/sessions").json()["sessions"]) == count


def test_listing_executions(api: Caller, session: Session, statements: Statements) -> None:
    for _ in range(3):
        api.post(f"/sessions/{session.pk}/execute", {"code": "print(1)"})
    with statements(4):
        api.get(f"/sessions/{session.pk}/executions")


def test_health(nobody: Caller, statements: Statements) -> None:
    with statements(1):
        nobody.get("/")
