"""Making, keeping and ending sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
import time_machine
from django.contrib.auth.models import User

from sessions_app.exceptions import (
    InvalidInput,
    ProxyUnavailable,
    SandboxFailed,
    SessionGone,
    SessionNotActive,
    TooLarge,
    Unsupported,
)
from sessions_app.models import Execution, SandboxTemplate, Session
from sessions_app.proxy_client import ProxyClient, using
from sessions_app.services.executions import submit_execution
from sessions_app.services.sessions import (
    create_session,
    renew_session,
    require_active,
    take_up,
    terminate_session,
    update_session,
)
from tests.sessions_app.fake_proxy import FakeProxy

MakeSession = Callable[..., Session]


def end(session: Session, **values: Any) -> Session:
    return terminate_session(**{"session": session, "reason": "user", "actor": "api", **values})


def test_a_session_is_active_with_its_sandbox(owner: User, proxy: FakeProxy) -> None:
    session = create_session(owner=owner, actor="api", env={"A": "1"}, metadata={"k": "v"}, keep_template=True)
    session.refresh_from_db()
    assert (session.status, session.lang, session.backend) == ("active", "python", "fake")
    assert session.sandbox == f"sbx-{str(session.pk)[:8]}"
    assert (session.idle_timeout_s, session.max_lifetime_s, session.execution_timeout_s) == (300, 3600, 30)
    asked = proxy.made[str(session.pk)]
    assert (asked["lang"], asked["env"], asked["keep_template"], asked["network"]) == (
        "python",
        {"A": "1"},
        True,
        "none",
    )
    (event,) = session.events.all()
    assert (event.from_status, event.to_status, event.user) == ("pending", "active", owner)


def test_creation_costs_five_statements_and_its_end_five(owner: User, proxy: FakeProxy, statements: Any) -> None:
    with statements(5):
        session = create_session(owner=owner, actor="api")
    with statements(5):
        end(session)


def test_a_session_is_made_from_the_template_that_is_named(owner: User, proxy: FakeProxy) -> None:
    SandboxTemplate.objects.create(name="mine", env={"A": "template", "B": "2"}, memory_bytes=64 * 1024 * 1024)
    session = create_session(owner=owner, actor="api", template="mine", env={"A": "own"})
    asked = proxy.made[str(session.pk)]
    assert (asked["template"], asked["env"]) == ("mine", {"A": "own", "B": "2"})
    assert asked["limits"]["memory_bytes"] == 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("values", "error", "field"),
    [
        ({"lang": "klingon"}, Unsupported, "lang"),
        ({"template": "none-such"}, InvalidInput, "template"),
        ({"template": "python", "lang": "ruby"}, InvalidInput, "lang"),
        ({"idle_timeout": 0}, InvalidInput, "idle_timeout"),
        ({"idle_timeout": -5}, InvalidInput, "idle_timeout"),
        ({"idle_timeout": 3601}, InvalidInput, "idle_timeout"),
        ({"max_lifetime": 86401}, InvalidInput, "max_lifetime"),
        ({"execution_timeout": 601}, InvalidInput, "execution_timeout"),
        ({"env": {"A=B": "1"}}, InvalidInput, "env"),
        ({"env": {"A": "\x00"}}, InvalidInput, "env"),
        ({"env": {"A": "\ud800"}}, InvalidInput, "env"),
        ({"metadata": {"": "x"}}, InvalidInput, "metadata"),
        ({"metadata": {"k": "x" * 17000}}, TooLarge, "metadata"),
    ],
)
def test_bad_input_names_its_field_and_leaves_no_row(
    owner: User, proxy: FakeProxy, values: dict[str, Any], error: type[InvalidInput], field: str
) -> None:
    with pytest.raises(error) as caught:
        create_session(owner=owner, actor="api", **values)
    assert caught.value.field == field
    assert not Session.objects.exists()
    assert not proxy.sandboxes


def test_a_ceiling_is_named(owner: User, proxy: FakeProxy) -> None:
    with pytest.raises(InvalidInput, match="at most 3600 seconds"):
        create_session(owner=owner, actor="api", idle_timeout=4000)


def test_without_the_proxy_a_session_fails_at_once(owner: User, proxy: FakeProxy) -> None:
    proxy.away = True
    with pytest.raises(ProxyUnavailable) as caught:
        create_session(owner=owner, actor="api")
    assert caught.value.retry_after_s > 0
    session = Session.objects.get()
    assert (session.status, session.termination_reason) == ("failed", "error")
    assert session.events.get().to_status == "failed"


def test_an_address_that_nobody_listens_at_is_known_within_two_seconds(owner: User) -> None:
    started = time.monotonic()
    with using(ProxyClient("http://127.0.0.1:9", "token")), pytest.raises(ProxyUnavailable):
        create_session(owner=owner, actor="api")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("status", "error", "code"), [(502, SandboxFailed, "sandbox_failed"), (422, Unsupported, "unsupported")]
)
def test_a_sandbox_that_cannot_be_made_fails_the_session(
    owner: User, proxy: FakeProxy, status: int, error: type[Exception], code: str
) -> None:
    answer = {"error": "x", "detail": "The image is missing.", "field": "lang"}
    proxy.failures["POST /sessions"] = httpx.Response(status, json=answer)
    with pytest.raises(error, match="The image is missing"):
        create_session(owner=owner, actor="api")
    assert Session.objects.get().error == "The image is missing."


def test_a_broken_connection_makes_one_sandbox_all_the_same(owner: User, proxy: FakeProxy) -> None:
    proxy.break_next = 1
    session = create_session(owner=owner, actor="api")
    assert session.status == "active"
    assert list(proxy.sandboxes) == [str(session.pk)]


def test_a_session_that_was_ended_while_it_was_made_leaves_no_sandbox(owner: User, proxy: FakeProxy) -> None:
    def fail_it(request: httpx.Request) -> None:
        if request.method == "POST":
            Session.objects.get().fail(reason="error", error="", actor="reaper")

    proxy.before = fail_it
    with pytest.raises(SessionGone):
        create_session(owner=owner, actor="api")
    assert proxy.sandboxes == {}
    assert Session.objects.get().status == "failed"


def test_an_end_destroys_the_sandbox_and_names_its_reason(session: Session, owner: User, proxy: FakeProxy) -> None:
    end(session, reason="admin", actor="admin", user=owner)
    session.refresh_from_db()
    assert (session.status, session.termination_reason) == ("terminated", "admin")
    assert proxy.sandboxes == {}
    assert [event.to_status for event in session.events.all()] == ["active", "terminating", "terminated"]


def test_an_end_twice_is_one_end_with_the_first_reason(session: Session, proxy: FakeProxy) -> None:
    copy = Session.objects.get(pk=session.pk)
    end(session)
    assert end(copy, reason="admin").termination_reason == "user"
    assert session.events.count() == 3


def test_an_end_cancels_what_runs_and_keeps_its_output(running: Execution, proxy: FakeProxy) -> None:
    waiting = submit_execution(session=running.session, code="never", actor="api")
    proxy.execution(running).say("stdout", "so far\n")
    end(running.session)
    running.refresh_from_db()
    waiting.refresh_from_db()
    assert (running.status, running.stdout, running.signal) == ("cancelled", "so far\n", 9)
    assert waiting.status == "cancelled"


def test_an_end_without_the_proxy_closes_the_session_and_says_so(session: Session, proxy: FakeProxy) -> None:
    proxy.away = True
    with pytest.raises(ProxyUnavailable):
        end(session)
    session.refresh_from_db()
    assert (session.status, session.termination_reason) == ("terminating", "user")
    with pytest.raises(SessionGone):
        require_active(session, actor="api")
    proxy.away = False
    assert end(session).status == "terminated"


def test_a_session_past_its_deadline_is_ended_on_the_spot(make_session: MakeSession, proxy: FakeProxy) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        session = make_session(idle_timeout=10)
        clock.shift(9)
        require_active(session, actor="api")
        clock.shift(1)
        with pytest.raises(SessionGone) as caught:
            require_active(session, actor="api")
    assert caught.value.termination_reason == "idle"
    session.refresh_from_db()
    assert session.status == "terminated"
    assert proxy.sandboxes == {}


def test_a_session_past_its_deadline_is_gone_even_without_the_proxy(
    make_session: MakeSession, proxy: FakeProxy
) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        session = make_session(max_lifetime=5)
        proxy.away = True
        clock.shift(5)
        with pytest.raises(SessionGone) as caught:
            require_active(session, actor="api")
    assert caught.value.termination_reason == "max_lifetime"


def test_a_session_that_is_being_made_is_not_active(session: Session) -> None:
    session.status = "pending"
    with pytest.raises(SessionNotActive):
        require_active(session, actor="api")


def test_a_session_whose_maker_died_is_taken_up_by_the_repetition(owner: User, proxy: FakeProxy) -> None:
    class Death(BaseException):
        pass

    def die(request: httpx.Request) -> None:
        raise Death

    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        proxy.before = die
        with pytest.raises(Death):
            create_session(owner=owner, actor="api")
        proxy.before = None
        session = Session.objects.select_related("template").get()
        assert session.status == "pending"
        assert not take_up(session, actor="api"), "its maker may still be at work"
        clock.shift(5)
        assert take_up(session, actor="api")
    assert (session.status, list(proxy.sandboxes)) == ("active", [str(session.pk)])


@pytest.mark.parametrize("fails", [False, True])
def test_who_makes_a_session_that_was_taken_up_meanwhile_has_made_it(
    owner: User, proxy: FakeProxy, fails: bool
) -> None:
    def overtake(request: httpx.Request) -> None:
        Session.objects.get().activate(sandbox="sbx-other", backend="fake", capabilities={}, actor="api")

    proxy.before = overtake
    if fails:
        proxy.failures["POST /sessions"] = httpx.Response(502, json={"error": "sandbox_failed", "detail": "Broken."})
    session = create_session(owner=owner, actor="api")
    assert (session.status, session.sandbox) == ("active", "sbx-other")
    assert not [line for line in proxy.requests if line.startswith("DELETE")]


def test_a_renewal_starts_the_idle_clock_again(make_session: MakeSession) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        session = make_session(idle_timeout=100)
        began = session.started_at
        assert began is not None
        clock.shift(90)
        renew_session(session=session, actor="api")
        assert session.expires_at == began + timedelta(seconds=190)
        renew_session(session=session, idle_timeout=50, actor="api")
        assert session.expires_at == began + timedelta(seconds=140)
        clock.shift(50)
        with pytest.raises(SessionGone):
            renew_session(session=session, actor="api")
    renewals = session.events.filter(type="renewed")
    assert [event.data for event in renewals] == [{}, {"idle_timeout_s": 50}]


def test_a_renewal_never_passes_the_lifetime_or_the_ceiling(make_session: MakeSession) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False):
        session = make_session(max_lifetime=20)
        renew_session(session=session, actor="api", idle_timeout=3600)
        assert session.expires_at == session.lifetime_ends_at
        with pytest.raises(InvalidInput, match="3600"):
            renew_session(session=session, actor="api", idle_timeout=3601)


def test_an_update_moves_the_deadline_without_being_activity(make_session: MakeSession) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        session = make_session()
        began = session.started_at
        assert began is not None
        clock.shift(10)
        update_session(session=session, actor="api", idle_timeout=100, metadata={"a": "b"}, execution_timeout=60)
        session.refresh_from_db()
    assert session.expires_at == began + timedelta(seconds=100)
    assert (session.metadata, session.execution_timeout_s) == ({"a": "b"}, 60)
    event = session.events.get(type="updated")
    assert event.data == {"execution_timeout_s": 60, "idle_timeout_s": 100, "metadata": {"a": "b"}}
