"""Who gets in, and as whom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from sessions_app.models import ApiKey, Session
from tests.sessions_app.api.conftest import Caller, errors

pytestmark = pytest.mark.django_db

CLOSED = ["/sessions", "/languages", "/templates", "/metrics", "/executions/x", "/sessions/x/executions"]


@pytest.mark.parametrize("path", CLOSED)
def test_without_a_key_there_is_no_way_in(nobody: Caller, path: str) -> None:
    answer = nobody.get(path)
    assert answer.status_code == 401
    assert errors(answer) == [("not_authenticated", None)]
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/sessions", "/sandbox/execute", "/sessions/x/execute"])
def test_without_a_key_nothing_is_made(nobody: Caller, path: str) -> None:
    assert nobody.post(path, {"code": "print(1)"}).status_code == 401
    assert not Session.objects.exists()


@pytest.mark.parametrize(
    "key", ["sbx_wrong.key", "sbx_", "nonsense", "", "sbx_a.b.c", "sbx_" + "x" * 5000, "sbx_\u00e9.x", "sbx_' OR 1=1"]
)
def test_a_wrong_key_is_refused(nobody: Caller, key: str) -> None:
    nobody.headers["Authorization"] = f"Bearer {key}"
    answer = nobody.get("/sessions")
    assert answer.status_code == 401
    assert errors(answer) == [("authentication_failed", None)]


def test_the_right_prefix_with_another_secret_is_refused(nobody: Caller, raw_key: str) -> None:
    nobody.headers["Authorization"] = f"Bearer {raw_key[:-1]}{'a' if raw_key[-1] != 'a' else 'b'}"
    assert nobody.get("/sessions").status_code == 401


@pytest.mark.parametrize("spelling", ["Bearer {}", "bearer {}", "BEARER   {}"])
def test_a_key_comes_as_a_bearer_token(nobody: Caller, raw_key: str, spelling: str) -> None:
    nobody.headers["Authorization"] = spelling.format(raw_key)
    assert nobody.get("/sessions").status_code == 200


def test_a_key_comes_in_a_header_of_its_own(nobody: Caller, raw_key: str) -> None:
    nobody.headers["X-API-Key"] = raw_key
    assert nobody.get("/sessions").status_code == 200


def test_another_scheme_is_no_key(nobody: Caller, raw_key: str) -> None:
    nobody.headers["Authorization"] = f"Basic {raw_key}"
    assert nobody.get("/sessions").status_code == 401


def test_a_revoked_key_shuts_at_once(api: Caller) -> None:
    assert api.get("/sessions").status_code == 200
    ApiKey.objects.update(revoked=True)
    assert api.get("/sessions").status_code == 401


def test_an_expired_key_shuts(api: Caller) -> None:
    ApiKey.objects.update(expiry_date=timezone.now() - timedelta(seconds=1))
    assert api.get("/sessions").status_code == 401


def test_the_key_of_a_user_who_was_put_out_shuts(api: Caller) -> None:
    User.objects.update(is_active=False)
    assert api.get("/sessions").status_code == 401


def test_the_use_of_a_key_is_written_once_a_minute(api: Caller) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        api.get("/sessions")
        first = ApiKey.objects.get().last_used_at
        clock.shift(59)
        api.get("/sessions")
        assert ApiKey.objects.get().last_used_at == first
        clock.shift(2)
        api.get("/sessions")
        assert ApiKey.objects.get().last_used_at == timezone.now()


def test_a_key_costs_one_query(
    api: Caller, session: Session, statements: Callable[[int], AbstractContextManager[None]]
) -> None:
    api.get("/sessions")
    with statements(1):
        assert api.get("/sessions/x").status_code == 404


def test_a_browsers_session_gets_in_and_its_posts_need_a_token(owner: User, session: Session) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(owner)
    assert browser.get("/sessions", headers={"Accept": "application/json"}).json()["count"] == 1
    answer = browser.post("/sessions", data={}, content_type="application/json", headers={"Accept": "application/json"})
    assert answer.status_code == 403
    assert errors(answer) == [("permission_denied", None)]


def test_a_reader_who_is_not_logged_in_is_shown_the_way(nobody: Caller) -> None:
    answer = nobody.get("/sessions?status=active", Accept="text/html")
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/login?next=%2Fsessions%3Fstatus%3Dactive"
