"""Executions over HTTP, by the contract."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sessions_app.models import Execution, Session
from tests.sessions_app.api.conftest import Caller, errors
from tests.sessions_app.fake_proxy import FakeProxy

pytestmark = pytest.mark.django_db

ANSWERED = {
    "execution_id",
    "status",
    "stdout",
    "stderr",
    "exit_code",
    "duration_ms",
    "results",
    "artifacts",
    "truncated",
}


def test_code_runs_and_is_kept(api: Caller, session: Session) -> None:
    answer = api.post(f"/sessions/{session.pk}/execute", {"code": "print(1)", "libraries": [], "timeout": 5})
    body = answer.json()
    assert answer.status_code == 200
    assert body.keys() >= ANSWERED
    assert (body["status"], body["stdout"], body["exit_code"]) == ("succeeded", "ran print(1)\n", 0)
    kept = api.get(f"/executions/{body['execution_id']}").json()
    asked = {"code": "print(1)", "libraries": [], "timeout": 5.0, "context": None, "output_limit_bytes": 2097152}
    assert kept == {**body, **asked}
    assert api.get(f"/sessions/{session.pk}/executions").json()["results"] == [kept]


def test_every_answer_says_until_when_its_session_lives(api: Caller, session: Session) -> None:
    told = [api.post(f"/sessions/{session.pk}/execute", {"code": "1"}).json() for _ in range(2)]
    assert told[0]["expires_at"] < told[1]["expires_at"]
    assert told[1]["expires_at"] == api.get(f"/sessions/{session.pk}").json()["expires_at"]
    waiting = api.post(f"/sessions/{session.pk}/execute", {"code": "wait", "wait": False}).json()
    # Code that runs is not idle: what is left of the session is its lifetime.
    assert waiting["expires_at"] == api.get(f"/sessions/{session.pk}").json()["expires_at"] > told[1]["expires_at"]
    api("delete", f"/sessions/{session.pk}")
    assert api.get(f"/executions/{waiting['execution_id']}").json()["expires_at"] is None
    assert api.post("/sandbox/execute", {"lang": "python", "code": "1"}).json()["expires_at"] is None


def test_what_was_sent_reaches_the_sandbox(api: Caller, session: Session, proxy: FakeProxy) -> None:
    code = "  import sys\r\nprint('ü')\t\n"
    sent = {"code": code, "stdin": "", "env": {"A": "b"}, "timeout": 2.5, "libraries": ["requests==2.32.3"]}
    answer = api.post(f"/sessions/{session.pk}/execute", sent)
    got = proxy.execution(Execution.objects.get(pk=answer.json()["execution_id"])).body
    assert {name: got[name] for name in sent} == sent


def test_code_that_failed_is_a_result(api: Caller, session: Session, proxy: FakeProxy) -> None:
    result = {"status": "failed", "stdout": "", "stderr": "boom", "exit_code": 3, "signal": None}
    proxy.failures["POST /sessions/"] = httpx.Response(200, json=result)
    answer = api.post(f"/sessions/{session.pk}/execute", {"code": "x"})
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["exit_code"]) == ("failed", 3)


def test_code_that_nobody_waits_for_is_accepted_and_settled_later(
    api: Caller, session: Session, proxy: FakeProxy
) -> None:
    answer = api.post(f"/sessions/{session.pk}/execute", {"code": "wait", "wait": False})
    body = answer.json()
    assert (answer.status_code, body["status"], body["finished_at"]) == (202, "running", None)
    row = Execution.objects.get(pk=body["execution_id"])
    proxy.execution(row).say("stdout", "done\n")
    proxy.execution(row).end()
    settled = api.get(f"/executions/{row.pk}").json()
    assert (settled["status"], settled["stdout"]) == ("succeeded", "done\n")


def test_an_execution_is_cancelled_and_cancelled_again(api: Caller, running: Execution) -> None:
    for _ in range(2):
        answer = api.post(f"/executions/{running.pk}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


def test_anothers_execution_is_unknown(stranger: Caller, running: Execution) -> None:
    assert stranger.get(f"/executions/{running.pk}").status_code == 404
    assert stranger.post(f"/executions/{running.pk}/cancel").status_code == 404
    running.refresh_from_db()
    assert running.status == "running"


def test_a_list_cuts_long_texts(api: Caller, session: Session) -> None:
    code = "#" + "x" * 10_000
    execution_id = api.post(f"/sessions/{session.pk}/execute", {"code": code}).json()["execution_id"]
    (row,) = api.get(f"/sessions/{session.pk}/executions").json()["results"]
    assert (len(row["code"]), len(row["stdout"])) == (4096, 4096)
    assert api.get(f"/executions/{execution_id}").json()["code"] == code


def test_a_snippet_leaves_no_sandbox(api: Caller, proxy: FakeProxy) -> None:
    answer = api.post("/sandbox/execute", {"code": "print(1)", "lang": "python", "env": {"A": "b"}})
    assert (answer.status_code, answer.json()["stdout"]) == (200, "ran print(1)\n")
    assert answer.json().keys() >= ANSWERED
    assert not proxy.sandboxes
    assert Session.objects.get().status == "terminated"


def test_a_snippet_in_an_unknown_language_is_refused(api: Caller) -> None:
    answer = api.post("/sandbox/execute", {"code": "print(1)", "lang": "cobol"})
    assert (answer.status_code, errors(answer)) == (422, [("unsupported", "lang")])


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (
            httpx.Response(422, json={"error": "unsupported", "detail": "No such library.", "field": "libraries"}),
            422,
            "x",
        ),
        (httpx.Response(502, json={"error": "sandbox_failed", "detail": "Broken."}), 502, "sandbox_failed"),
        (httpx.Response(503, json={"error": "unavailable", "detail": "Busy."}), 503, "proxy_unavailable"),
        (httpx.Response(500, text="<html>"), 503, "proxy_unavailable"),
        (httpx.Response(200, text="not json"), 503, "proxy_unavailable"),
    ],
)
def test_what_fails_behind_us_is_said_as_what_it_is(
    api: Caller, session: Session, proxy: FakeProxy, failure: httpx.Response, status: int, code: str
) -> None:
    proxy.failures[f"POST /sessions/{session.pk}/execute"] = failure
    answer = api.post(f"/sessions/{session.pk}/execute", {"code": "print(1)"})
    assert answer.status_code == status, answer.content
    assert errors(answer)
    if status == 422:
        assert errors(answer)[0][1] == "libraries"
    else:
        assert errors(answer)[0][0] == code
    assert ("Retry-After" in answer.headers) == (status == 503)


@pytest.mark.parametrize("path", ["/sessions", "/sandbox/execute", "/sessions/{id}/execute"])
def test_without_the_proxy_the_answer_is_503_and_nothing_is_stuck(
    api: Caller, session: Session, proxy: FakeProxy, path: str
) -> None:
    proxy.away = True
    answer = api.post(path.format(id=session.pk), {"code": "print(1)"})
    assert (answer.status_code, errors(answer)) == (503, [("proxy_unavailable", None)])
    assert int(answer.headers["Retry-After"]) > 0
    assert not Session.objects.filter(status="pending").exists()
    assert not Execution.objects.live().exists()


def test_more_than_may_wait_are_told_to_come_again(api: Caller, session: Session, running: Execution) -> None:
    answers: list[Any] = [
        api.post(f"/sessions/{session.pk}/execute", {"code": "wait", "wait": False}) for _ in range(17)
    ]
    assert {answer.status_code for answer in answers[:-1]} == {202}
    assert (answers[-1].status_code, answers[-1].headers["Retry-After"]) == (429, "1")
