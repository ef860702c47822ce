"""Running code: what is a result, what is an error, and what is left behind."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User

from sessions_app.exceptions import (
    InvalidInput,
    ProxyUnavailable,
    ProxyUnreachable,
    QueueFull,
    SandboxFailed,
    SessionGone,
    TooLarge,
    Unsupported,
)
from sessions_app.limits import MAX_LIVE_EXECUTIONS
from sessions_app.models import Execution, IdempotencyRecord, SandboxTemplate, Session
from sessions_app.services.executions import (
    cancel_execution,
    complete_execution,
    complete_one_shot,
    run_once,
    start_execution,
    submit_execution,
)
from sessions_app.services.sessions import terminate_session
from tests.sessions_app.fake_proxy import FakeProxy


def submit(session: Session, code: str = "print(1)", **values: Any) -> Execution:
    return submit_execution(**{"session": session, "code": code, "actor": "api", **values})


def test_a_result_stands_in_the_row(session: Session, proxy: FakeProxy) -> None:
    execution = complete_execution(submit(session), actor="api")
    assert (execution.status, execution.stdout, execution.exit_code) == ("succeeded", "ran print(1)\n", 0)
    stored = Execution.objects.get(pk=execution.pk)
    assert stored.duration_ms == 1.5
    assert (stored.max_rss_bytes, stored.last_seq) == (4096, 3)
    assert stored.started_at is not None and stored.finished_at is not None


def test_an_execution_costs_five_statements(session: Session, statements: Any) -> None:
    with statements(5):
        complete_execution(submit(session), actor="api")


def test_what_is_sent_is_what_was_asked_for(make_session: Callable[..., Session], proxy: FakeProxy) -> None:
    SandboxTemplate.objects.create(name="mine", libraries=["numpy", "six"])
    session = make_session(template="mine")
    execution = submit(session, libraries=["six", "requests==2.32.3"], stdin="", env={"A": "1"}, timeout=2.5)
    complete_execution(execution, actor="api")
    body = proxy.execution(execution).body
    assert body["libraries"] == ["six", "requests==2.32.3"]
    assert proxy.made[str(session.pk)]["libraries"] == ["numpy", "six"]
    assert (body["stdin"], body["env"], body["timeout"]) == ("", {"A": "1"}, 2.5)
    assert "context" not in body


@pytest.mark.parametrize(
    ("values", "error", "field"),
    [
        ({"code": " \n"}, InvalidInput, "code"),
        ({"code": "a\x00b"}, InvalidInput, "code"),
        ({"code": "'\ud800'"}, InvalidInput, "code"),
        ({"code": "x" * (1024 * 1024 + 1)}, TooLarge, "code"),
        ({"stdin": "\x00"}, InvalidInput, "stdin"),
        ({"libraries": ["numpy; rm -rf /"]}, InvalidInput, "libraries"),
        ({"libraries": ["--index-url=x"]}, InvalidInput, "libraries"),
        ({"libraries": ["a"] * 51}, InvalidInput, "libraries"),
        ({"timeout": -1}, InvalidInput, "timeout"),
        ({"timeout": float("nan")}, InvalidInput, "timeout"),
        ({"timeout": 601}, InvalidInput, "timeout"),
        ({"env": {"1A": ""}}, InvalidInput, "env"),
        ({"context": "a b"}, InvalidInput, "context"),
    ],
)
def test_bad_input_names_its_field_and_leaves_the_session_as_it_was(
    session: Session, values: dict[str, Any], error: type[InvalidInput], field: str
) -> None:
    with pytest.raises(error) as caught:
        submit(session, **values)
    assert caught.value.field == field
    assert not Execution.objects.exists()
    session.refresh_from_db()
    assert (session.status, session.live_executions) == ("active", 0)


def test_a_timeout_between_the_sessions_own_and_the_ceiling_is_allowed(session: Session) -> None:
    assert submit(session, timeout=600).timeout_s == 600


def test_the_queue_is_bounded(session: Session) -> None:
    for _ in range(MAX_LIVE_EXECUTIONS):
        submit(session, "wait")
    with pytest.raises(QueueFull):
        submit(session, "wait")
    assert Execution.objects.count() == MAX_LIVE_EXECUTIONS


def test_a_session_that_ended_runs_nothing(session: Session) -> None:
    stale = Session.objects.get(pk=session.pk)
    terminate_session(session=session, reason="user", actor="api")
    with pytest.raises(SessionGone) as caught:
        submit(stale)
    assert caught.value.termination_reason == "user"


def test_without_the_proxy_the_code_was_not_run_and_the_row_says_so(session: Session, proxy: FakeProxy) -> None:
    execution = submit(session)
    proxy.away = True
    with pytest.raises(ProxyUnreachable):
        complete_execution(execution, actor="api")
    assert (execution.status, execution.error) == ("error", "The code was not run.")
    session.refresh_from_db()
    assert (session.status, session.live_executions) == ("active", 0)


def test_who_joins_what_another_handed_over_does_not_say_that_it_was_not_run(
    session: Session, proxy: FakeProxy
) -> None:
    written = submit(session)
    proxy.break_next = 2
    with pytest.raises(ProxyUnavailable):
        complete_execution(written, actor="api")
    proxy.away = True
    with pytest.raises(ProxyUnreachable):
        complete_execution(Execution.objects.get(), actor="api")
    proxy.away = False
    assert complete_execution(Execution.objects.get(), actor="api").status == "succeeded"
    assert proxy.execution(written).runs == 1


def test_who_wrote_what_another_took_up_meanwhile_does_not_say_that_it_was_not_run(
    session: Session, proxy: FakeProxy
) -> None:
    written = submit(session)
    proxy.break_next = 2
    with pytest.raises(ProxyUnavailable):
        complete_execution(Execution.objects.get(), actor="api")
    proxy.away = True
    with pytest.raises(ProxyUnreachable):
        complete_execution(written, actor="api")
    assert written.status == "running"
    assert proxy.execution(written).runs == 1


def test_a_one_shot_whose_end_nobody_knows_is_left_for_who_asks_again(owner: User, proxy: FakeProxy) -> None:
    def lose_the_answer(request: httpx.Request) -> None:
        if request.url.path.endswith("/execute") and proxy.requests.count(proxy.requests[-1]) == 1:
            proxy.break_next = 2

    proxy.before = lose_the_answer
    claim = IdempotencyRecord.objects.create(owner=owner, key="one", fingerprint="")
    with pytest.raises(ProxyUnavailable):
        run_once(owner=owner, code="print(1)", lang="python", actor="api", claim=claim)
    execution = Execution.objects.select_related("session__template").get()
    assert (execution.status, execution.session.status) == ("running", "active")
    assert complete_one_shot(execution, actor="api", is_keyed=True).status == "succeeded"
    assert Session.objects.get().status == "terminated"


def test_a_broken_connection_runs_the_code_once(session: Session, proxy: FakeProxy) -> None:
    proxy.break_next = 1
    execution = complete_execution(submit(session), actor="api")
    assert execution.status == "succeeded"
    assert proxy.execution(execution).runs == 1


def test_when_nobody_knows_whether_it_runs_the_row_stays_live(session: Session, proxy: FakeProxy) -> None:
    execution = submit(session)
    proxy.break_next = 2
    with pytest.raises(ProxyUnavailable):
        complete_execution(execution, actor="api")
    execution.refresh_from_db()
    assert execution.status == "running"
    assert complete_execution(execution, actor="api").stdout == "ran print(1)\n"
    assert proxy.execution(execution).runs == 1


def test_a_library_that_cannot_be_installed_is_the_callers_news(session: Session, proxy: FakeProxy) -> None:
    answer = {"error": "library_error", "detail": "There is no nump.", "field": "libraries"}
    proxy.failures["POST /sessions/"] = httpx.Response(422, json=answer)
    execution = submit(session, libraries=["nump"])
    with pytest.raises(Unsupported, match="There is no nump") as caught:
        complete_execution(execution, actor="api")
    assert caught.value.field == "libraries"
    assert (execution.status, execution.error) == ("failed", "There is no nump.")
    session.refresh_from_db()
    assert (session.status, session.live_executions) == ("active", 0)


def test_a_queue_that_is_full_at_the_proxy_runs_nothing(session: Session, proxy: FakeProxy) -> None:
    proxy.failures["POST /sessions/"] = httpx.Response(429, json={"error": "too_many_waiting", "detail": "Full."})
    execution = submit(session)
    with pytest.raises(QueueFull):
        complete_execution(execution, actor="api")
    assert execution.status == "cancelled"


@pytest.mark.parametrize("answer", [None, httpx.Response(502, json={"error": "sandbox_broken", "detail": "It died."})])
def test_a_lost_sandbox_fails_the_session_and_loses_what_ran(
    session: Session, proxy: FakeProxy, answer: httpx.Response | None
) -> None:
    execution, waiting = submit(session), submit(session)
    if answer is None:
        proxy.sandboxes.clear()
    else:
        proxy.failures["POST /sessions/"] = answer
    with pytest.raises(SandboxFailed):
        complete_execution(execution, actor="api")
    session.refresh_from_db()
    waiting.refresh_from_db()
    assert (session.status, session.termination_reason, session.live_executions) == ("failed", "lost", 0)
    assert (execution.status, waiting.status) == ("lost", "lost")


def test_the_output_of_a_lost_execution_is_kept(running: Execution, proxy: FakeProxy) -> None:
    proxy.execution(running).say("stdout", "so far")
    proxy.execution(running).end(reason="lost", exit_code=None)
    with pytest.raises(SandboxFailed):
        complete_execution(running, actor="api")
    running.session.refresh_from_db()
    assert (running.status, running.stdout) == ("lost", "so far")
    assert (running.session.status, running.session.termination_reason) == ("failed", "lost")


def test_one_whose_session_is_ended_meanwhile_comes_back_cancelled(session: Session, proxy: FakeProxy) -> None:
    execution = submit(session)
    terminate_session(session=Session.objects.get(pk=session.pk), reason="user", actor="api")
    assert complete_execution(execution, actor="api").status == "cancelled"


def test_the_same_id_again_is_the_same_execution(session: Session, proxy: FakeProxy) -> None:
    chosen = uuid.uuid4()
    first = complete_execution(submit(session, execution_id=chosen), actor="api")
    again = complete_execution(submit(session, execution_id=chosen), actor="api")
    assert (first.pk, again.pk, again.stdout) == (chosen, chosen, first.stdout)
    assert proxy.execution(first).runs == 1
    with pytest.raises(InvalidInput) as caught:
        submit(session, "other", execution_id=chosen)
    assert caught.value.field == "execution_id"


def test_one_that_nobody_waits_for_is_handed_over(session: Session, proxy: FakeProxy) -> None:
    execution = start_execution(submit(session, "wait"), actor="api")
    assert execution.status == "running"
    assert not proxy.execution(execution).ended


def test_a_cancellation_keeps_the_output_so_far(running: Execution, proxy: FakeProxy, owner: User) -> None:
    proxy.execution(running).say("stdout", "half")
    cancel_execution(execution=running, actor="api", user=owner)
    assert (running.status, running.stdout) == ("cancelled", "half")
    assert running.events.get().user == owner
    cancel_execution(execution=running, actor="api")
    assert running.events.count() == 1


def test_a_one_shot_leaves_no_sandbox(owner: User, proxy: FakeProxy) -> None:
    execution = run_once(owner=owner, code="1", actor="api")
    assert (execution.status, execution.stdout) == ("succeeded", "ran 1\n")
    session = Session.objects.get()
    assert (session.is_one_shot, session.status, session.termination_reason) == (True, "terminated", "user")
    assert proxy.sandboxes == {}


def test_a_one_shot_that_goes_wrong_leaves_no_sandbox_either(owner: User, proxy: FakeProxy) -> None:
    with pytest.raises(ProxyUnavailable):
        run_once(owner=owner, actor="api", code="wait")
    assert proxy.sandboxes == {}
    assert Session.objects.get().status == "terminated"
    assert not Execution.objects.live().exists()


@pytest.mark.parametrize(
    "values", [{"code": "\x00"}, {"timeout": 601}, {"libraries": ["a b"]}, {"stdin": "\x00"}, {"env": {"": ""}}]
)
def test_bad_input_of_a_one_shot_makes_no_session(owner: User, proxy: FakeProxy, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        run_once(**{"owner": owner, "code": "1", "actor": "api", **values})
    assert not Session.objects.exists()
