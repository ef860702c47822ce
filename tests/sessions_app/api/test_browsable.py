"""The API in a browser: pages, links, and forms that work."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from sessions_app.models import Execution, Session
from tests.sessions_app.fake_proxy import FakeProxy

pytestmark = pytest.mark.django_db

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class Browser:
    """Fetch pages and send forms, with their tokens."""

    def __init__(self, owner: User) -> None:
        self.client = Client(enforce_csrf_checks=True, raise_request_exception=False)
        self.client.force_login(owner)

    def open(self, path: str) -> str:
        answer = self.client.get(path, headers=HTML)
        assert answer.status_code == 200, answer.content
        return answer.content.decode()

    def send(self, path: str, **fields: str) -> Any:
        """Send the form of a page."""
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.open(path))
        assert found is not None
        return self.client.post(path, {**fields, "csrfmiddlewaretoken": found[1]}, headers=HTML)


@pytest.fixture
def browser(owner: User, proxy: FakeProxy) -> Browser:
    """A browser whose user is logged in."""
    return Browser(owner)


def test_every_page_opens(browser: Browser, session: Session, running: Execution) -> None:
    for path in (
        "/sessions",
        f"/sessions/{session.pk}",
        f"/sessions/{session.pk}/execute",
        f"/sessions/{session.pk}/renew",
        f"/sessions/{session.pk}/executions",
        f"/executions/{running.pk}",
        f"/executions/{running.pk}/cancel",
        "/sandbox/execute",
        "/languages",
        "/templates",
    ):
        page = browser.open(path)
        assert "Sandboxweb" in page
        assert "django-rest-framework.org" not in page
        assert "Method \\" not in page or "sbx-form-only" in page


def test_a_session_is_made_by_its_form(browser: Browser) -> None:
    answer = browser.send("/sessions", lang="python", metadata="agent=a\nb=c=d", idle_timeout="60", env="")
    session = Session.objects.get()
    assert answer.status_code == 201
    assert (session.metadata, session.idle_timeout_s) == ({"agent": "a", "b": "c=d"}, 60)
    assert f'href="/sessions/{session.pk}/execute"' in answer.content.decode()


def test_an_empty_form_is_enough_for_a_session(browser: Browser) -> None:
    empty = dict.fromkeys(
        ("lang", "template", "idle_timeout", "max_lifetime", "execution_timeout", "metadata", "env"), ""
    )
    assert browser.send("/sessions", **empty).status_code == 201


def test_code_is_run_by_its_form_and_its_output_shown(browser: Browser, session: Session, proxy: FakeProxy) -> None:
    code = "for i in range(2):\r\n    print(i)"
    answer = browser.send(
        f"/sessions/{session.pk}/execute", code=code, libraries="numpy, requests\r\npandas", stdin="", wait="true"
    )
    page = answer.content.decode()
    row = Execution.objects.get()
    assert answer.status_code == 200
    assert row.code == "for i in range(2):\n    print(i)"
    assert row.libraries == ["numpy", "requests", "pandas"]
    assert '<div class="sbx-output"' in page
    assert "for i in range(2):" in page.split("<textarea")[1]


def test_a_mistake_in_a_form_is_shown_at_its_field_and_costs_no_typing(browser: Browser, session: Session) -> None:
    answer = browser.send(f"/sessions/{session.pk}/execute", code="print('precious')", timeout="-4", env="no pair")
    page = answer.content.decode()
    assert answer.status_code == 400
    assert "A time-out must be more than 0 seconds." in page
    assert "Expected a dictionary" in page
    assert "print(&#x27;precious&#x27;)" in page.split("<textarea")[1]


def test_a_form_with_a_mistake_of_the_services_keeps_the_code(browser: Browser, session: Session) -> None:
    answer = browser.send(f"/sessions/{session.pk}/execute", code="keep me", timeout="100000")
    assert answer.status_code == 400
    assert "keep me" in answer.content.decode().split("<textarea")[1]


def test_a_snippet_is_run_by_its_form(browser: Browser) -> None:
    answer = browser.send("/sandbox/execute", code="print(1)", lang="", template="", timeout="")
    assert answer.status_code == 200
    assert "ran print(1)" in answer.content.decode()


def test_an_ended_session_is_said_so(browser: Browser, make_session: Callable[..., Session]) -> None:
    session = make_session()
    session.begin_end(reason="user", actor="api"), session.finish_end(actor="api")
    assert browser.send(f"/sessions/{session.pk}/execute", code="print(1)").status_code == 410


def test_output_cannot_script_the_page(browser: Browser, session: Session) -> None:
    evil = "<script>alert(1)</script>"
    page = browser.send(f"/sessions/{session.pk}/execute", code=evil).content.decode()
    assert evil not in page


def test_logging_in_leads_back_and_out_again(owner: User, proxy: FakeProxy) -> None:
    owner.set_password("correct horse")
    owner.save()
    client = Client()
    answer = client.post("/login?next=/sessions", {"username": "ada", "password": "correct horse"})
    assert answer.headers["Location"] == "/sessions"
    assert client.post("/logout").headers["Location"] == "/"
    wrong = client.post("/login", {"username": "ada", "password": "wrong"})
    assert 'role="alert"' in wrong.content.decode()


def test_logging_in_leads_to_no_other_host(owner: User) -> None:
    owner.set_password("correct horse")
    owner.save()
    answer = Client().post("/login?next=https://evil.example", {"username": "ada", "password": "correct horse"})
    assert answer.headers["Location"] == "/"
