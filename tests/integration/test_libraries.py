"""Languages and libraries through both servers."""

from __future__ import annotations

import httpx
import pytest

TIMEOUT_S = 300


def refused(answer: httpx.Response) -> tuple[int, str, str]:
    """Return an error's status, the field that it is about, and its words."""
    (error,) = answer.json()["errors"]
    return answer.status_code, error["attr"], error["detail"]


def test_a_language_that_cannot_run_is_told_which_can(api: httpx.Client) -> None:
    known = [item["lang"] for item in api.get("/languages").json()["languages"]]
    assert {"python", "bash"} <= set(known)
    status, field, words = refused(api.post("/sessions", json={"lang": "cobol"}))
    assert (status, field) == (422, "lang")
    assert words == f"This server cannot run 'cobol'. It can run: {', '.join(known)}."


def test_code_that_its_language_refuses_is_told_from_code_that_fails(api: httpx.Client) -> None:
    for code, phase in (("if then", "compile"), ("exit 3", "run"), ("true", "run")):
        answer = api.post("/sandbox/execute", json={"lang": "bash", "code": code}).json()
        assert (answer["phase"], answer["status"]) == (phase, "succeeded" if code == "true" else "failed")
        assert api.get(f"/executions/{answer['execution_id']}").json()["phase"] == phase


@pytest.mark.registry
def test_a_session_has_its_libraries_from_its_start_and_in_its_contexts(api: httpx.Client) -> None:
    body = {"lang": "python", "libraries": ["six==1.17.0"]}
    session = api.post("/sessions", json=body, timeout=TIMEOUT_S).json()
    assert session["libraries"] == ["six==1.17.0"]
    path = f"/sessions/{session['session_id']}/execute"
    code = "import six; print(six.__version__)"
    assert api.post(path, json={"code": code}).json()["stdout"] == "1.17.0\n"
    assert api.post(path, json={"code": code, "context": "default"}).json()["stdout"] == "1.17.0\n"
    answer = api.post(path, json={"code": code, "libraries": ["six==1.16.0"]}, timeout=TIMEOUT_S)
    assert refused(answer)[:2] == (422, "libraries")
    more = {"code": "import idna; print(idna.encode('a'))", "context": "default", "libraries": ["idna"]}
    assert api.post(path, json=more, timeout=TIMEOUT_S).json()["stdout"] == "b'a'\n"


@pytest.mark.registry
def test_a_session_whose_libraries_cannot_be_had_is_not_made(api: httpx.Client) -> None:
    name = "sandboxweb-there-is-no-such-library"
    answer = api.post("/sessions", json={"lang": "python", "libraries": [name]}, timeout=TIMEOUT_S)
    assert refused(answer) == (422, "libraries", f"There is no package named {name}.")
    assert api.get("/sessions", params={"status": "active"}).json()["sessions"] == []
