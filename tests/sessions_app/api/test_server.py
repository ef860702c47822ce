"""Health, what the server can run, and its metrics."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from sessions_app.api import server
from sessions_app.models import Execution, SandboxTemplate, Session
from tests.sessions_app.api.conftest import Caller
from tests.sessions_app.fake_proxy import FakeProxy

pytestmark = pytest.mark.django_db


def test_health_needs_no_key(nobody: Caller) -> None:
    answer = nobody.get("/")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["database"], body["proxy"]["status"]) == ("ok", {"status": "ok"}, "ok")


def test_without_the_proxy_it_is_degraded_and_still_200(nobody: Caller, proxy: FakeProxy) -> None:
    proxy.away = True
    answer = nobody.get("/")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["proxy"]["status"] == "unavailable"


def test_without_the_database_it_is_503(nobody: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> bool:
        raise OperationalError("gone")

    monkeypatch.setattr(server, "database_answers", away)
    answer = nobody.get("/")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")


def test_many_who_ask_cost_the_proxy_one_question(nobody: Caller, proxy: FakeProxy) -> None:
    for _ in range(5):
        nobody.get("/")
    assert proxy.requests.count("GET /") == 1


@pytest.mark.parametrize("away", [False, True])
def test_a_browser_gets_a_page_with_the_ways_in(nobody: Caller, proxy: FakeProxy, away: bool) -> None:
    proxy.away = away
    page = nobody.get("/", Accept="text/html,application/xhtml+xml,*/*;q=0.8").content.decode()
    for way in ("/docs", "/sessions", "/admin/", "/sandbox/execute", "/login"):
        assert f'href="{way}"' in page


def test_languages_are_those_that_have_a_template(api: Caller) -> None:
    assert api.get("/languages").json() == {"languages": [{"lang": "python", "version": "3"}], "default": "python"}
    SandboxTemplate.objects.update(is_default=False)
    assert api.get("/languages").json()["languages"] == []


def test_templates_are_those_that_are_enabled(api: Caller) -> None:
    SandboxTemplate.objects.create(name="secret", is_enabled=False)
    names = [template["name"] for template in api.get("/templates").json()["templates"]]
    assert "python" in names
    assert "secret" not in names


def test_metrics_tell_what_lives(api: Caller, session: Session, running: Execution) -> None:
    answer = api.get("/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }
    assert samples["sandboxweb_sessions", "active"] == 1
    assert samples["sandboxweb_executions", "running"] == 1
    assert samples["sandboxweb_sessions_overdue",] == 0


def test_metrics_are_for_keys_and_staff(owner: User, api: Caller) -> None:
    browser = Client()
    browser.force_login(owner)
    assert browser.get("/metrics").status_code == 403
    owner.is_staff = True
    owner.save()
    assert browser.get("/metrics").status_code == 200
