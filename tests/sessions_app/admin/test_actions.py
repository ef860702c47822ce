"""What administrators do: through the services, with words for what came of it, and only if they may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.test import Client

from sessions_app.limits import MIB
from sessions_app.models import ApiKey, Execution, SandboxTemplate, Session, SessionEvent
from tests.sessions_app.fake_proxy import FakeProxy

pytestmark = pytest.mark.django_db

BASE = "/admin/sessions_app"


def act(client: Client, model: str, action: str, *rows: Any) -> list[str]:
    """Take an action on rows of a list; return what was said."""
    answer = client.post(f"{BASE}/{model}/", {"action": action, "_selected_action": [str(row.pk) for row in rows]})
    said = [str(message) for message in get_messages(answer.wsgi_request)]
    client.get(f"{BASE}/{model}/")  # where they are read, and so not said again
    return said


def test_sessions_are_ended_by_the_services(
    admin: Client, administrator: User, make_session: Callable[..., Session], proxy: FakeProxy
) -> None:
    sessions = [make_session(), make_session()]
    assert act(admin, "session", "terminate", *sessions) == ["2 sessions ended."]
    assert not proxy.sandboxes
    for session in sessions:
        session.refresh_from_db()
        assert (session.status, session.termination_reason) == ("terminated", "admin")
        event = SessionEvent.objects.filter(session=session).last()
        assert event is not None
        assert (event.actor, event.user) == ("admin", administrator)


def test_what_is_over_already_is_said_so(admin: Client, session: Session) -> None:
    act(admin, "session", "terminate", session)
    assert act(admin, "session", "terminate", session) == ["1 session was over already."]


def test_what_could_not_be_ended_is_said_so(admin: Client, session: Session, proxy: FakeProxy) -> None:
    proxy.away = True
    (said,) = act(admin, "session", "terminate", session)
    assert str(session.pk) in said
    assert "could not be ended" in said
    session.refresh_from_db()
    assert session.status == "terminating"


def test_a_session_is_ended_from_its_page(admin: Client, session: Session) -> None:
    address = f"{BASE}/session/{session.pk}/terminate/"
    assert admin.get(address).status_code == 405
    answer = admin.post(address, follow=True)
    assert "ended." in answer.content.decode()
    assert "End this session" not in answer.content.decode()
    session.refresh_from_db()
    assert session.status == "terminated"


def test_ending_a_session_that_never_was_leads_home(admin: Client) -> None:
    for session_id in ("nonsense", "8f14e45f-ceea-467f-a8d1-3b2f1c9d7e52"):
        assert admin.post(f"{BASE}/session/{session_id}/terminate/").status_code == 302


def test_who_may_only_look_ends_nothing(viewer: Client, session: Session, running: Execution) -> None:
    assert "End this session" not in viewer.get(f"{BASE}/session/{session.pk}/change/").content.decode()
    act(viewer, "session", "terminate", session)
    act(viewer, "execution", "cancel", running)
    viewer.post(f"{BASE}/session/{session.pk}/terminate/")
    session.refresh_from_db(), running.refresh_from_db()
    assert (session.status, running.status) == ("active", "running")


def test_a_permission_is_enough_to_end_sessions(db: None, proxy: FakeProxy, session: Session) -> None:
    clerk = User.objects.create_user("clerk", is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename__in=["view_session", "change_session"]))
    client = Client()
    client.force_login(clerk)
    assert act(client, "session", "terminate", session) == ["1 session ended."]


def test_an_execution_is_stopped(admin: Client, running: Execution) -> None:
    assert act(admin, "execution", "cancel", running) == ["1 execution stopped."]
    running.refresh_from_db()
    assert running.status == "cancelled"
    assert act(admin, "execution", "cancel", running) == ["1 execution was over already."]


def test_nobody_writes_rows_by_hand(admin: Client, session: Session, running: Execution) -> None:
    for model in ("session", "execution", "sessionevent", "idempotencyrecord", "reapersweep"):
        assert admin.get(f"{BASE}/{model}/add/").status_code == 403
    assert admin.post(f"{BASE}/session/{session.pk}/change/", {"status": "terminated"}).status_code == 403
    assert admin.post(f"{BASE}/execution/{running.pk}/change/", {"stdout": "forged"}).status_code == 403


def test_the_row_of_a_live_session_is_not_deleted(admin: Client, session: Session) -> None:
    assert admin.post(f"{BASE}/session/{session.pk}/delete/", {"post": "yes"}).status_code == 403
    act(admin, "session", "delete_selected", session)
    assert Session.objects.filter(pk=session.pk).exists()


def test_a_key_is_shown_once_and_works(admin: Client, owner: User) -> None:
    page = admin.get(f"{BASE}/apikey/add/")
    assert page.context["adminform"].form.initial["owner"] == User.objects.get(username="root").pk
    answer = admin.post(f"{BASE}/apikey/add/", {"name": "ci", "owner": owner.pk})
    raw_key = answer.context["raw_key"]
    api_key = ApiKey.objects.get_from_key(raw_key)
    assert api_key.owner == owner
    assert raw_key in answer.content.decode()
    assert "no-store" in answer.headers["Cache-Control"]
    secret = raw_key.partition(".")[2]
    assert all(secret not in morsel.value for morsel in answer.cookies.values())
    for path in ("apikey/", f"apikey/{api_key.pk}/change/", f"apikey/{api_key.pk}/history/"):
        assert secret not in admin.get(f"{BASE}/{path}").content.decode()


def test_a_key_needs_a_name_and_an_owner(admin: Client) -> None:
    answer = admin.post(f"{BASE}/apikey/add/", {"name": "", "owner": ""})
    assert set(answer.context["adminform"].form.errors) == {"name", "owner"}
    assert not ApiKey.objects.exists()


def test_a_key_is_revoked_for_good(admin: Client, owner: User) -> None:
    api_key, raw_key = ApiKey.objects.create_key(owner=owner, name="ci")
    assert act(admin, "apikey", "revoke", api_key) == ["1 key revoked."]
    with pytest.raises(ApiKey.DoesNotExist):
        ApiKey.objects.get_from_key(raw_key)
    admin.post(f"{BASE}/apikey/{api_key.pk}/change/", {"name": "ci", "revoked": ""})
    api_key.refresh_from_db()
    assert api_key.revoked


def test_a_template_is_edited_in_peoples_units(admin: Client) -> None:
    template = SandboxTemplate.objects.get(name="python")
    address = f"{BASE}/sandboxtemplate/{template.pk}/change/"
    form = admin.get(address).context["adminform"].form
    sent = {name: form[name].value() for name in form.fields if form[name].value() is not None}
    assert sent["memory_bytes"] == 512
    sent |= {
        "memory_bytes": "1024",
        "libraries": "numpy\n\nrequests==2.32.3",
        "preload": "numpy",
        "env": "A=b=c\nB=",
        "is_default": "on",
        "is_enabled": "on",
        "keep_template": "",
        "warm_pool_size": "3",
    }
    answer = admin.post(address, sent)
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    template.refresh_from_db()
    assert template.memory_bytes == 1024 * MIB
    assert template.libraries == ["numpy", "requests==2.32.3"]
    assert (template.env, template.preload, template.warm_pool_size) == ({"A": "b=c", "B": ""}, ["numpy"], 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory_bytes", "1"),
        ("memory_bytes", "lots"),
        ("memory_bytes", "9" * 30),
        ("cpus", "0"),
        ("pids", "1"),
        ("libraries", "numpy; rm -rf /"),
        ("env", "no pair"),
        ("env", "1A=x"),
        ("warm_pool_size", "100000"),
        ("name", "two words"),
    ],
)
def test_a_template_names_what_is_wrong_with_it(admin: Client, field: str, value: str) -> None:
    template = SandboxTemplate.objects.get(name="python")
    address = f"{BASE}/sandboxtemplate/{template.pk}/change/"
    form = admin.get(address).context["adminform"].form
    sent = {name: form[name].value() for name in form.fields if form[name].value() is not None}
    answer = admin.post(address, {**sent, "is_default": "on", "is_enabled": "on", "keep_template": "", field: value})
    assert set(answer.context["adminform"].form.errors) == {field}
