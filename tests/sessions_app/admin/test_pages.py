"""Every page of the admin opens, says what there is, and costs the same for many rows as for few."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import httpx
import pytest
from django.contrib import admin as django_admin
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sessions_app.models import (
    ApiKey,
    Artifact,
    Execution,
    IdempotencyRecord,
    LibraryRule,
    ReaperSweep,
    Session,
    SessionEvent,
    TimeoutPolicy,
)
from sessions_app.services.executions import complete_execution, submit_execution
from tests.sessions_app.fake_proxy import FakeProxy

pytestmark = pytest.mark.django_db

BASE = "/admin/sessions_app"
LISTS = [
    "session",
    "execution",
    "sessionevent",
    "sandboxtemplate",
    "timeoutpolicy",
    "userpolicy",
    "libraryrule",
    "apikey",
    "idempotencyrecord",
    "reapersweep",
    "artifact",
]


def run(session: Session, code: str = "print(1)") -> Execution:
    """Run code in a session."""
    return complete_execution(submit_execution(session=session, code=code, actor="api"), actor="api")


@pytest.fixture
def rows(session: Session, owner: User) -> Session:
    """A row of everything."""
    execution = run(session)
    ApiKey.objects.create_key(owner=owner, name="ci")
    Artifact.objects.create(
        owner=owner, session=session, execution=execution, name="p.png", content_type="image/png", size=3, sha256="0"
    )
    LibraryRule.objects.create(pattern="pycrypto*", note="Not maintained.")
    IdempotencyRecord.objects.create(owner=owner, key="k", fingerprint="f", session=session, execution=execution)
    now = timezone.now()
    ReaperSweep.objects.create(started_at=now, finished_at=now, counts={"expired": 3}, failures={"lost": "away"})
    return session


def test_all_models_are_there_and_no_others_of_the_key_package() -> None:
    registered = {model._meta.label for model in django_admin.site._registry}
    assert {f"sessions_app.{name}" for name in LISTS} == {
        label.lower() for label in registered if label.startswith("sessions_app.")
    }
    assert "rest_framework_api_key.APIKey" not in registered


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("who", ["admin", "viewer"])
def test_a_list_opens_is_searched_and_leads_to_its_rows(
    request: pytest.FixtureRequest, rows: Session, name: str, who: str
) -> None:
    client: Client = request.getfixturevalue(who)
    page = client.get(f"{BASE}/{name}/")
    assert page.status_code == 200
    model = page.context["cl"].model
    for row in model.objects.all():
        assert client.get(f"{BASE}/{name}/{row.pk}/change/").status_code == 200
    if page.context["cl"].search_fields:
        assert client.get(f"{BASE}/{name}/?q=a%00b%27").status_code == 200


@pytest.mark.parametrize("query", ["e=1", "status__exact=nonsense", "created_at__year=2026", "p=99", "o=99"])
def test_an_odd_query_breaks_no_list(admin: Client, rows: Session, query: str) -> None:
    assert admin.get(f"{BASE}/session/?{query}", follow=True).status_code == 200


def test_sessions_are_found_by_id_owner_and_sandbox(admin: Client, make_session: Callable[..., Session]) -> None:
    wanted, _other = make_session(), make_session()
    for query in (str(wanted.pk), str(wanted.pk)[:8], wanted.sandbox):
        found = admin.get(f"{BASE}/session/", {"q": query}).context["cl"].result_list
        assert [session.pk for session in found] == [wanted.pk], query
    assert len(admin.get(f"{BASE}/session/", {"q": "ada"}).context["cl"].result_list) == 2


def test_a_session_shows_its_executions_and_events(admin: Client, rows: Session) -> None:
    page = admin.get(f"{BASE}/session/{rows.pk}/change/").content.decode()
    assert "print(1)" in page
    assert "ran print(1)" in page
    assert "sbx-good" in page
    assert "End this session" in page
    for event in SessionEvent.objects.filter(session=rows):
        assert event.to_status in page


def test_a_long_session_shows_its_newest_executions(admin: Client, session: Session) -> None:
    for number in range(30):
        run(session, f"number_{number}")
    page = admin.get(f"{BASE}/session/{session.pk}/change/").content.decode()
    assert "number_29" in page
    assert "number_5<" in page or "number_5 " in page or "number_5" in page
    assert "number_4<" not in page


def test_an_execution_shows_code_and_output_and_cannot_script_the_page(admin: Client, session: Session) -> None:
    evil = "<script>alert(1)</script>"
    execution = run(session, evil)
    for path in (f"execution/{execution.pk}/change/", "execution/", f"session/{session.pk}/change/"):
        page = admin.get(f"{BASE}/{path}").content.decode()
        assert evil not in page
        assert "&lt;script&gt;" in page


def test_megabytes_of_output_are_cut_in_the_middle(admin: Client, session: Session) -> None:
    execution = run(session)
    Execution.objects.filter(pk=execution.pk).update(stdout="a" * 2_000_000 + "THE END")
    page = admin.get(f"{BASE}/execution/{execution.pk}/change/").content.decode()
    assert len(page) < 300_000
    assert "THE END" in page
    assert "characters are not shown" in page
    assert "1.9 MB" in page.replace("\xa0", " ")


def test_values_of_an_environment_are_not_shown(admin: Client, make_session: Callable[..., Session]) -> None:
    session = make_session(env={"TOKEN": "swordfish"})
    page = admin.get(f"{BASE}/session/{session.pk}/change/").content.decode()
    assert "TOKEN" in page
    assert "swordfish" not in page


@pytest.mark.parametrize("name", ["session", "execution", "sessionevent"])
def test_a_list_costs_the_same_for_few_and_many(admin: Client, make_session: Callable[..., Session], name: str) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(f"{BASE}/{name}/").status_code == 200
        return len(captured)

    run(make_session())
    few = cost()
    for _ in range(5):
        run(make_session())
    assert cost() == few


def test_a_list_of_executions_reads_no_output(admin: Client, session: Session) -> None:
    run(session)
    with CaptureQueriesContext(connection) as captured:
        admin.get(f"{BASE}/execution/")
    assert not [query["sql"] for query in captured if '"sessions_app_execution"."stdout"' in query["sql"]]


@pytest.fixture
def front(admin: Client) -> Callable[[], str]:
    """The front page."""
    return lambda: admin.get("/admin/").content.decode()


def test_the_front_page_tells_how_things_are(front: Callable[[], str], running: Execution) -> None:
    page = front()
    assert "Live sessions</span><strong>1</strong>" in page
    assert "Running executions</span><strong>1</strong>" in page
    assert "never" in page
    assert "fake" in page


def test_the_front_page_tells_of_a_sweep_and_of_one_that_is_late(front: Callable[[], str], rows: Session) -> None:
    assert "expired: 3" in front()
    assert "1 failed" in front()
    then = timezone.now() - timedelta(minutes=5)
    ReaperSweep.objects.update(started_at=then, finished_at=then)
    assert 'class="sbx-alarm" title=' in front()


def test_the_front_page_opens_without_the_proxy(front: Callable[[], str], proxy: FakeProxy) -> None:
    proxy.away = True
    assert "unavailable" in front()


def test_the_front_page_says_which_pool_cannot_be_filled_and_why(front: Callable[[], str], proxy: FakeProxy) -> None:
    pool = {"python": {"ready": 2, "target": 2}, "odd": {"ready": 0, "target": 1, "error": "cannot run <odd>"}}
    proxy.failures["GET /"] = httpx.Response(200, json={"status": "ok", "backend": "fake", "pool": pool})
    page = front()
    assert "python: 2 of 2 ready ·" in page
    assert 'odd: 0 of 1 ready <b class="sbx-alarm">cannot run &lt;odd&gt;</b>' in page


def test_the_front_page_costs_a_few_statements(
    admin: Client, session: Session, statements: Callable[[int], AbstractContextManager[None]]
) -> None:
    # session, user, five counts and the sweep, the recent actions
    with statements(8):
        admin.get("/admin/")


def test_staff_without_permissions_see_no_numbers(db: None, proxy: FakeProxy, session: Session) -> None:
    client = Client()
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert "Live sessions" not in client.get("/admin/").content.decode()
    assert client.get(f"{BASE}/session/").status_code == 403


def test_policies_and_templates_name_what_is_wrong(admin: Client) -> None:
    policy = TimeoutPolicy.objects.get(is_default=True)
    answer = admin.post(
        f"{BASE}/timeoutpolicy/{policy.pk}/change/",
        {
            "name": "standard",
            "is_default": "on",
            "idle_timeout_default_s": "100",
            "idle_timeout_max_s": "50",
            "max_lifetime_default_s": "0",
            "max_lifetime_max_s": "86400",
            "execution_timeout_default_s": "30",
            "execution_timeout_max_s": "600",
            "grace_s": "30",
        },
    )
    assert set(answer.context["adminform"].form.errors) == {"idle_timeout_default_s", "max_lifetime_default_s"}
