"""Sessions over HTTP, by the contract."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from sessions_app.models import Session, SessionEvent
from tests.sessions_app.api.conftest import Caller, errors
from tests.sessions_app.fake_proxy import FakeProxy

pytestmark = pytest.mark.django_db


def test_a_session_is_made(api: Caller, proxy: FakeProxy) -> None:
    answer = api.post(
        "/sessions",
        {
            "lang": "python",
            "idle_timeout": 60,
            "metadata": {"agent": "a"},
            "env": {"TOKEN": "secret"},
            "keep_template": True,
        },
    )
    body = answer.json()
    assert answer.status_code == 201
    assert (body["status"], body["lang"], body["template"], body["metadata"]) == (
        "active",
        "python",
        "python",
        {"agent": "a"},
    )
    assert body["capabilities"] == {"contexts": True}
    assert parse_datetime(body["expires_at"]) == parse_datetime(body["started_at"]) + timedelta(seconds=60)  # type: ignore[operator]
    assert b"secret" not in answer.content
    assert proxy.made[body["session_id"]]["env"] == {"TOKEN": "secret"}
    assert proxy.made[body["session_id"]]["keep_template"] is True


@pytest.mark.parametrize("body", [{}, {"lang": None}, {"template": "python"}, {"lang": "python", "metadata": {}}])
def test_what_is_left_out_has_a_default(api: Caller, body: Any) -> None:
    assert api.post("/sessions", body).json()["lang"] == "python"


def test_a_session_is_shown_to_its_owner_alone(api: Caller, stranger: Caller, session: Session) -> None:
    assert api.get(f"/sessions/{session.pk}").json()["session_id"] == str(session.pk)
    for method, path in (
        ("get", ""),
        ("patch", ""),
        ("delete", ""),
        ("post", "/execute"),
        ("post", "/renew"),
        ("get", "/executions"),
    ):
        body = None if method in ("get", "delete") else {"code": "print(1)"}
        answer = stranger(method, f"/sessions/{session.pk}{path}", body)
        assert answer.status_code == 404, (method, path)
    session.refresh_from_db()
    assert session.status == "active"
    assert stranger.get("/sessions").json()["sessions"] == []


@pytest.mark.parametrize("session_id", ["abc", "1", "null", str(uuid.uuid4()), "0" * 32, "%00", "..", "a" * 5000])
def test_an_id_of_nothing_is_not_found(api: Caller, session_id: str) -> None:
    for method, path in (("get", ""), ("delete", ""), ("post", "/execute"), ("post", "/renew"), ("get", "/executions")):
        answer = api(method, f"/sessions/{session_id}{path}", {"code": "1"} if method == "post" else None)
        assert answer.status_code == 404, answer.content
        assert errors(answer)[0][0] == "not_found"


def test_a_list_has_the_ids_and_the_rows_newest_first(api: Caller, make_session: Callable[..., Session]) -> None:
    made = [str(make_session().pk) for _ in range(3)]
    body = api.get("/sessions?page_size=2").json()
    assert body["sessions"] == made[:0:-1]
    assert [row["session_id"] for row in body["results"]] == body["sessions"]
    assert (body["count"], body["previous"]) == (3, None)
    following = api.get(body["next"]).json()
    assert (following["sessions"], following["next"]) == (made[:1], None)


def test_an_empty_list_is_a_list(api: Caller) -> None:
    assert api.get("/sessions").json() == {"sessions": [], "count": 0, "next": None, "previous": None, "results": []}


def test_a_list_is_narrowed(api: Caller, make_session: Callable[..., Session]) -> None:
    odd = {"agent": "a", "0": "zero", "$x": "dollar", 'q"t': "quote", "with__lookup": "l", "gt": "5", "with space": "s"}
    mine = make_session(metadata=odd)
    ended = make_session(metadata={"agent": "b"})
    api("delete", f"/sessions/{ended.pk}")

    def found(**query: str) -> list[str]:
        answer = api.client.get("/sessions", query, headers=api.headers)
        return list(answer.json()["sessions"])

    for key, text in odd.items():
        assert found(**{f"metadata.{key}": text}) == [str(mine.pk)], key
    assert found(**{"metadata.agent": "c"}) == found(**{"metadata.nothing": "a"}) == []
    assert found(**{"metadata.agent": "a", "metadata.0": "one"}) == []
    assert found(status="terminated") == [str(ended.pk)]
    assert found(status="active", lang="python", template="python") == [str(mine.pk)]
    assert found(lang="go") == []


def test_several_states_may_be_asked_for(api: Caller, make_session: Callable[..., Session]) -> None:
    make_session(), api("delete", f"/sessions/{make_session().pk}")
    assert api.get("/sessions?status=active&status=terminated").json()["count"] == 2


def test_a_session_is_changed(api: Caller, session: Session) -> None:
    body = api("patch", f"/sessions/{session.pk}", {"metadata": {"a": "b"}, "idle_timeout": 900}).json()
    assert (body["metadata"], body["idle_timeout"]) == ({"a": "b"}, 900)
    assert api.get(f"/sessions/{session.pk}").json() == body


def test_a_session_is_renewed(api: Caller, session: Session) -> None:
    before = api.get(f"/sessions/{session.pk}").json()["expires_at"]
    assert api.post(f"/sessions/{session.pk}/renew").json()["expires_at"] > before
    assert api.post(f"/sessions/{session.pk}/renew", {"idle_timeout": 1800}).json()["idle_timeout"] == 1800


def test_a_session_is_ended_and_ended_again(api: Caller, session: Session, proxy: FakeProxy) -> None:
    for _ in range(2):
        answer = api("delete", f"/sessions/{session.pk}")
        assert answer.status_code == 200
        assert answer.json() == {
            "session_id": str(session.pk),
            "status": "terminated",
            "termination_reason": "user",
        }
    assert not proxy.sandboxes
    last = SessionEvent.objects.filter(session=session).last()
    assert last is not None
    assert (last.to_status, last.actor, last.user) == ("terminated", "api", session.owner)


def test_one_that_failed_is_ended_with_its_own_reason(api: Caller, session: Session) -> None:
    session.fail(reason="lost", error="gone", actor="reaper")
    assert api("delete", f"/sessions/{session.pk}").json()["termination_reason"] == "lost"
    assert api.get(f"/sessions/{session.pk}").json()["status"] == "failed"


def expire(session: Session) -> None:
    """Let its deadline have come."""
    Session.objects.filter(pk=session.pk).update(expires_at=timezone.now() - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("post", "/execute", {"code": "print(1)"}), ("post", "/renew", {}), ("patch", "", {"idle_timeout": 5})],
)
def test_whoever_touches_an_expired_session_is_told_that_it_ended(
    api: Caller, session: Session, method: str, path: str, body: Any
) -> None:
    expire(session)
    answer = api(method, f"/sessions/{session.pk}{path}", body)
    assert answer.status_code == 410
    assert answer.json()["termination_reason"] == "idle"
    assert errors(answer) == [("session_gone", None)]


def test_whoever_looks_at_an_expired_session_sees_that_it_ended(api: Caller, session: Session) -> None:
    expire(session)
    body = api.get(f"/sessions/{session.pk}").json()
    assert (body["status"], body["termination_reason"]) == ("terminated", "idle")


def test_a_session_that_is_being_made_is_not_active(api: Caller, session: Session) -> None:
    later = timezone.now() + timedelta(minutes=1)
    Session.objects.filter(pk=session.pk).update(status="pending", attend_at=later)
    answer = api.post(f"/sessions/{session.pk}/execute", {"code": "print(1)"})
    assert (answer.status_code, errors(answer)) == (409, [("session_not_active", None)])
