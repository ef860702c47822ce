"""One shape for every error, and never a trace."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from django.http import HttpRequest
from django.test import Client, override_settings

from sessions_app import exceptions
from sessions_app.api import sessions
from sessions_app.api.errors import STATUS, to_api_error
from sessions_app.models import Session
from tests.sessions_app.api.conftest import Caller, errors

pytestmark = pytest.mark.django_db

SECRET = "the-password-is-swordfish"


@pytest.mark.parametrize("path", ["/nowhere", "/sessions/a/b/c", "/sandbox", "/executions", "/favicon.ico"])
def test_an_unknown_address_is_not_found(api: Caller, path: str) -> None:
    answer = api.get(path)
    assert (answer.status_code, errors(answer)) == (404, [("not_found", None)])


@pytest.mark.parametrize("path", ["/sessions/", "/languages/", "/sandbox/execute/", "/docs//"])
def test_a_trailing_slash_is_told_of(api: Caller, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 404
    assert path.rstrip("/") in answer.json()["errors"][0]["detail"]


def test_a_reader_gets_a_page(nobody: Caller) -> None:
    answer = nobody.get("/nowhere", Accept="text/html,*/*;q=0.8")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(("method", "path"), [("put", "/sessions"), ("delete", "/"), ("get", "/sandbox/execute")])
def test_a_method_that_is_not_there_is_not_allowed(api: Caller, method: str, path: str) -> None:
    answer = api(method, path)
    assert (answer.status_code, errors(answer)) == (405, [("method_not_allowed", None)])


def test_what_nobody_foresaw_is_500_without_a_trace(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> Session:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(sessions, "own_session", broken)
    for accept in ("application/json", "text/html"):
        answer = api.get("/sessions/x", Accept=accept)
        assert answer.status_code == 500
        assert SECRET not in answer.content.decode()
        assert "Traceback (most recent" not in answer.content.decode()
    assert errors(api.get("/sessions/x")) == [("error", None)]


def test_a_database_that_is_away_is_503(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: object) -> Session:
        raise OperationalError(SECRET)

    monkeypatch.setattr(sessions, "own_session", away)
    answer = api.get("/sessions/x")
    assert (answer.status_code, errors(answer)) == (503, [("database_unavailable", None)])
    assert answer.headers["Retry-After"]
    assert SECRET not in answer.content.decode()


def test_a_host_that_is_not_ours_is_a_bad_request(nobody: Caller) -> None:
    answer = nobody.get("/", Host="elsewhere.example")
    assert answer.status_code == 400
    assert errors(answer) == [("bad_request", None)]


def test_a_form_without_its_token_is_refused_in_the_same_shape(db: None) -> None:
    answer = Client(enforce_csrf_checks=True).post("/login", {"username": "a"}, headers={"Accept": "application/json"})
    assert answer.status_code == 403
    assert errors(answer) == [("csrf_failed", None)]


@override_settings(DEBUG=True)
def test_debug_changes_nothing_for_callers(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(request: HttpRequest, *args: object) -> Session:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(sessions, "own_session", broken)
    assert SECRET not in api.get("/sessions/x").content.decode()


def leaves(kind: type[exceptions.SandboxwebError]) -> list[type[exceptions.SandboxwebError]]:
    """Return an exception and all that are made from it."""
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in leaves(child))]


@pytest.mark.parametrize("kind", leaves(exceptions.SandboxwebError)[1:], ids=lambda kind: kind.__name__)
def test_every_exception_of_the_services_has_a_status(kind: type[exceptions.SandboxwebError]) -> None:
    assert any(base in STATUS for base in kind.__mro__)


def test_an_exception_without_a_status_of_its_own_is_a_fault_of_ours() -> None:
    assert to_api_error(exceptions.SandboxwebError("?")).status_code == 500
