"""`Idempotency-Key` over HTTP: nothing is made or run twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
import time_machine
from django.utils import timezone

from sessions_app.models import Execution, IdempotencyRecord, Session
from tests.sessions_app.api.conftest import Caller, errors
from tests.sessions_app.fake_proxy import FakeProxy

pytestmark = pytest.mark.django_db

KEY = "one"


def paths(session: Session) -> dict[str, tuple[str, Any]]:
    """Return the requests that take a key."""
    return {
        "session": ("/sessions", {"lang": "python"}),
        "execution": (f"/sessions/{session.pk}/execute", {"code": "print(1)"}),
        "snippet": ("/sandbox/execute", {"code": "print(1)"}),
    }


@pytest.mark.parametrize("what", ["session", "execution", "snippet"])
def test_the_same_again_gets_the_first_answer_again(api: Caller, session: Session, proxy: FakeProxy, what: str) -> None:
    path, body = paths(session)[what]
    first = api.post(path, body, Idempotency_Key=KEY)
    asked = len(proxy.requests)
    again = api.post(path, body, Idempotency_Key=KEY)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert len(proxy.requests) == asked


def test_another_body_is_refused(api: Caller, session: Session) -> None:
    path = f"/sessions/{session.pk}/execute"
    api.post(path, {"code": "print(1)"}, Idempotency_Key=KEY)
    answer = api.post(path, {"code": "print(2)"}, Idempotency_Key=KEY)
    assert (answer.status_code, errors(answer)) == (409, [("idempotency_mismatch", None)])
    assert Execution.objects.count() == 1


def test_the_order_of_names_makes_no_other_body(api: Caller) -> None:
    api("post", "/sessions", raw=b'{"lang": "python", "keep_template": false}', Idempotency_Key=KEY)
    answer = api("post", "/sessions", raw=b'{"keep_template":false,"lang":"python"}', Idempotency_Key=KEY)
    assert answer.status_code == 201
    assert Session.objects.count() == 1


def test_keys_of_two_users_are_two_keys(api: Caller, stranger: Caller) -> None:
    mine, theirs = (caller.post("/sessions", {}, Idempotency_Key=KEY).json() for caller in (api, stranger))
    assert mine["session_id"] != theirs["session_id"]


def test_a_key_lasts_a_day(api: Caller) -> None:
    first = api.post("/sessions", {}, Idempotency_Key=KEY).json()["session_id"]
    IdempotencyRecord.objects.update(created_at=timezone.now() - timedelta(hours=24, seconds=1))
    assert api.post("/sessions", {}, Idempotency_Key=KEY).json()["session_id"] != first


def test_a_repetition_while_the_first_is_answered_waits_its_turn(api: Caller) -> None:
    api.post("/sessions", {}, Idempotency_Key=KEY)
    IdempotencyRecord.objects.update(state="in_progress", session=None, response_status=None, response_body=None)
    answer = api.post("/sessions", {}, Idempotency_Key=KEY)
    assert (answer.status_code, errors(answer)) == (409, [("idempotency_in_progress", None)])
    assert answer.headers["Retry-After"] == "1"
    with time_machine.travel(timezone.now() + timedelta(seconds=20)):
        assert api.post("/sessions", {}, Idempotency_Key=KEY).status_code == 201


def test_after_a_death_in_the_middle_the_repetition_takes_up_what_was_made(
    api: Caller, session: Session, proxy: FakeProxy
) -> None:
    path, body = paths(session)["execution"]
    first = api.post(path, body, Idempotency_Key=KEY).json()
    IdempotencyRecord.objects.update(state="in_progress", response_status=None, response_body=None)
    assert api.post(path, body, Idempotency_Key=KEY).json() == first
    assert Execution.objects.count() == 1
    assert proxy.execution(Execution.objects.get()).runs == 1


def test_a_request_that_timed_out_is_joined_by_its_repetition(api: Caller, session: Session, proxy: FakeProxy) -> None:
    path = f"/sessions/{session.pk}/execute"
    assert api.post(path, {"code": "wait"}, Idempotency_Key=KEY).status_code == 503
    row = Execution.objects.get()
    proxy.execution(row).end()
    answer = api.post(path, {"code": "wait"}, Idempotency_Key=KEY)
    assert (answer.status_code, answer.json()["execution_id"]) == (200, str(row.pk))
    assert Execution.objects.count() == 1


@pytest.mark.parametrize("what", ["session", "execution", "snippet"])
def test_after_an_answer_without_the_proxy_the_repetition_tries_anew(
    api: Caller, session: Session, proxy: FakeProxy, what: str
) -> None:
    path, body = paths(session)[what]
    proxy.away = True
    assert api.post(path, body, Idempotency_Key=KEY).status_code == 503
    proxy.away = False
    assert api.post(path, body, Idempotency_Key=KEY).status_code in (200, 201)


def test_code_whose_sandbox_broke_is_not_run_again(api: Caller, session: Session, proxy: FakeProxy) -> None:
    path, body = paths(session)["execution"]
    proxy.failures[f"POST {path}"] = httpx.Response(502, json={"error": "sandbox_failed", "detail": "Broken."})
    first = api.post(path, body, Idempotency_Key=KEY)
    again = api.post(path, body, Idempotency_Key=KEY)
    assert first.status_code == 502
    assert again.status_code in (410, 502)
    assert Execution.objects.count() == 1


def test_what_was_refused_leaves_the_key_free(api: Caller) -> None:
    assert api.post("/sessions", {"lang": "cobol"}, Idempotency_Key=KEY).status_code == 422
    assert api.post("/sessions", {"lang": "python"}, Idempotency_Key=KEY).status_code == 201


def test_an_answer_that_was_accepted_is_repeated_as_it_was(api: Caller, session: Session) -> None:
    path, body = f"/sessions/{session.pk}/execute", {"code": "wait", "wait": False}
    first = api.post(path, body, Idempotency_Key=KEY)
    again = api.post(path, body, Idempotency_Key=KEY)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
