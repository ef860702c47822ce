"""Contexts over HTTP, and what code shows in them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sessions_app.models import Execution, Session
from sessions_app.services.settlement import settle_execution
from tests.sessions_app.api.conftest import Caller, errors
from tests.sessions_app.fake_proxy import FakeProxy

pytestmark = pytest.mark.django_db

PNG = "iVBORw0KGgo="
RAISED = {
    "name": "ModuleNotFoundError",
    "value": "No module named 'sklearn'",
    "traceback": [
        "Traceback (most recent call last):",
        '  File "<input 1>", line 1, in <module>',
        "    import sklearn",
        "ModuleNotFoundError: No module named 'sklearn'",
    ],
}


@pytest.fixture
def path(session: Session) -> str:
    return f"/sessions/{session.pk}/contexts"


def test_contexts_are_made_listed_shown_and_deleted(api: Caller, path: str) -> None:
    made = api.post(path)
    assert made.status_code == 201
    context = made.json()
    assert context.keys() == {"context_id", "lang", "state", "executions", "restarts", "created_at"}
    assert context["created_at"].endswith("Z")
    assert api.get(path).json() == {"contexts": [context]}
    assert api.get(f"{path}/{context['context_id']}").json() == context
    deleted = api("delete", f"{path}/{context['context_id']}")
    assert (deleted.status_code, deleted.json()) == (200, {"context_id": context["context_id"], "status": "deleted"})
    assert api.get(path).json() == {"contexts": []}


def test_a_context_may_be_named_restarted_and_interrupted(api: Caller, path: str) -> None:
    assert api.post(path, {"context_id": "analysis", "lang": "python"}).json()["context_id"] == "analysis"
    assert api.post(f"{path}/analysis/restart").json()["restarts"] == 1
    assert api.post(f"{path}/analysis/interrupt").json() == {"context_id": "analysis", "interrupted": True}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"context_id": "a/b"}, 400, "context_id"),
        ({"context_id": "x" * 65}, 400, "context_id"),
        ({"context_id": ["a"]}, 400, "context_id"),
        ({"lang": 7}, 400, "lang"),
        ({"lang": "javascript"}, 422, "lang"),
    ],
)
def test_a_wrong_body_names_its_field(api: Caller, path: str, body: Any, status: int, field: str) -> None:
    answer = api.post(path, body)
    assert answer.status_code == status
    assert errors(answer)[0][1] == field


def test_what_is_unknown_is_not_found(api: Caller, path: str) -> None:
    for method, suffix in (("get", ""), ("delete", ""), ("post", "/restart"), ("post", "/interrupt")):
        answer = api(method, f"{path}/nowhere{suffix}")
        assert (answer.status_code, errors(answer)[0][0]) == (404, "context_unknown"), (method, suffix)
    strange = api.get(f"{path}/a b")
    assert (strange.status_code, errors(strange)[0][1]) == (400, "context_id")


def test_too_many_contexts_are_refused_for_now(api: Caller, path: str) -> None:
    for _ in range(8):
        assert api.post(path).status_code == 201
    answer = api.post(path)
    assert (answer.status_code, errors(answer)[0][0]) == (429, "too_many_contexts")
    assert answer.headers["Retry-After"]


def test_another_s_contexts_are_not_found(api: Caller, stranger: Caller, path: str) -> None:
    api.post(path, {"context_id": "mine"})
    for method, suffix in (("get", ""), ("get", "/mine"), ("delete", "/mine"), ("post", "/mine/restart")):
        assert stranger(method, f"{path}{suffix}").status_code == 404
    assert api.get(f"{path}/mine").status_code == 200


def test_a_session_that_ended_has_none(api: Caller, session: Session, path: str) -> None:
    api("delete", f"/sessions/{session.pk}")
    for method in ("get", "post"):
        answer = api(method, path, {} if method == "post" else None)
        assert (answer.status_code, answer.json()["termination_reason"]) == (410, "user")


def test_a_sandbox_that_keeps_none_says_so(api: Caller, session: Session, path: str) -> None:
    session.capabilities = {"contexts": False}
    session.save(update_fields=["capabilities"])
    made = api.post(path)
    run = api.post(f"/sessions/{session.pk}/execute", {"code": "1", "context": "default"})
    for answer in (made, run):
        assert (answer.status_code, errors(answer)[0][1]) == (422, "context")


def test_what_code_shows_and_raises_is_in_the_answer(api: Caller, session: Session, proxy: FakeProxy) -> None:
    proxy.shows["show()"] = [
        ("result", {"png": PNG, "text": "<Figure>", "is_main_result": False}),
        ("result", {"json": {"a": [1]}, "html": "<b>\x00</b>", "odd": "?", "is_main_result": True}),
        ("error", RAISED),
    ]
    proxy.says["show()"] = ("", 1)
    answer = api.post(f"/sessions/{session.pk}/execute", {"code": "show()", "context": "default"})
    body = answer.json()
    assert answer.status_code == 200
    assert body["results"] == [
        {"png": PNG, "text": "<Figure>", "is_main_result": False},
        {"json": {"a": [1]}, "html": "<b>\ufffd</b>", "is_main_result": True},
    ]
    assert (body["status"], body["error"], body["context_restarted"]) == ("failed", RAISED, False)
    assert "scikit-learn" in body["hint"]
    row = Execution.objects.get(pk=body["execution_id"])
    assert proxy.execution(row).body["context"] == "default"
    assert api.get(f"/executions/{row.pk}").json()["results"] == body["results"]


def test_the_same_is_read_from_the_journal(api: Caller, session: Session, proxy: FakeProxy) -> None:
    proxy.shows["show()"] = [("result", {"text": "1", "is_main_result": True}), ("error", RAISED)]
    sent = {"code": "show()", "context": "default", "wait": False}
    execution_id = api.post(f"/sessions/{session.pk}/execute", sent).json()["execution_id"]
    row = settle_execution(Execution.objects.get(pk=execution_id), actor="reaper")
    assert (row.results, row.exception) == ([{"text": "1", "is_main_result": True}], RAISED)
    body = api.get(f"/executions/{execution_id}").json()
    assert (body["results"], body["error"]) == (row.results, RAISED)


def test_code_for_an_unknown_context_has_failed(api: Caller, session: Session, proxy: FakeProxy) -> None:
    refusal = {"error": "unknown_context", "detail": "The session has no context 'no'.", "field": "context"}
    proxy.failures["POST /sessions/"] = httpx.Response(404, json=refusal)
    answer = api.post(f"/sessions/{session.pk}/execute", {"code": "1", "context": "no"})
    assert (answer.status_code, errors(answer)[0][1]) == (404, "context")
    row = Execution.objects.get()
    assert (row.status, row.error) == ("failed", "The session has no context 'no'.")
    body = api.get(f"/executions/{row.pk}").json()
    assert body["error"] == {"name": "SandboxwebError", "value": row.error, "traceback": []}


@pytest.mark.parametrize("context", ["a/b", "x" * 65, "a b"])
def test_a_strange_id_is_refused_before_anything_runs(api: Caller, session: Session, context: str) -> None:
    answer = api.post(f"/sessions/{session.pk}/execute", {"code": "1", "context": context})
    assert (answer.status_code, errors(answer)[0][1]) == (400, "context")
    assert not Execution.objects.exists()


def test_long_results_stay_out_of_lists(api: Caller, session: Session, proxy: FakeProxy) -> None:
    short = [{"text": "short", "is_main_result": True}]
    for code, text in (("short", "short"), ("long", "x" * 70_000)):
        proxy.shows[code] = [("result", {"text": text, "is_main_result": True})]
        api.post(f"/sessions/{session.pk}/execute", {"code": code, "context": "default"})
    long, listed = api.get(f"/sessions/{session.pk}/executions").json()["results"]
    assert listed["results"] == short
    assert "look at the execution itself" in long["results"][0]["text"]
    whole = api.get(f"/executions/{long['execution_id']}").json()
    assert whole["results"][0]["text"] == "x" * 70_000


def test_the_hint_of_a_time_out_says_where_the_code_was(api: Caller, session: Session, proxy: FakeProxy) -> None:
    lines = ["Traceback (most recent call last):", '  File "<input 2>", line 7, in work', "KeyboardInterrupt"]
    execution_id = api.post(
        f"/sessions/{session.pk}/execute", {"code": "wait", "context": "default", "wait": False}
    ).json()["execution_id"]
    row = Execution.objects.get(pk=execution_id)
    running = proxy.execution(row)
    running.say("error", {"name": "KeyboardInterrupt", "value": "", "traceback": lines})
    running.end(reason="timed_out", exit_code=None, signal=2, context_restarted=True)
    body = api.get(f"/executions/{execution_id}").json()
    assert (body["status"], body["context_restarted"]) == ("timed_out", True)
    assert "line 7" in body["hint"]
    assert "work" in body["hint"]
