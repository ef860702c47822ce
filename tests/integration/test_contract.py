"""The four calls on which everything stands, on the app server and on the proxy alone."""

from __future__ import annotations

import uuid

import httpx

from tests.integration.servers import Servers


def test_a_session_is_made_runs_code_is_listed_and_ends(api: httpx.Client) -> None:
    made = api.post("/sessions", json={"lang": "python", "keep_template": False})
    assert made.status_code == 201
    assert made.json()["status"] == "active"
    session_id = made.json()["session_id"]

    ran = api.post(
        f"/sessions/{session_id}/execute", json={"code": "import sys; print('out'); print('err', file=sys.stderr)"}
    )
    assert ran.status_code == 200
    answer = ran.json()
    assert (answer["stdout"], answer["stderr"], answer["exit_code"]) == ("out\n", "err\n", 0)
    assert answer["status"] == "succeeded"
    assert answer["duration_ms"] >= 0
    assert not answer["truncated"]
    assert answer["results"] == answer["artifacts"] == []

    assert session_id in api.get("/sessions").json()["sessions"]
    ended = api.delete(f"/sessions/{session_id}")
    assert (ended.status_code, ended.json()["status"]) == (200, "terminated")
    again = api.delete(f"/sessions/{session_id}")
    assert (again.status_code, again.json()["status"]) == (200, "terminated")
    gone = api.post(f"/sessions/{session_id}/execute", json={"code": "print(1)"})
    assert gone.status_code == 410
    assert "user" in gone.text


def test_the_proxy_alone_answers_the_same_four_calls(servers: Servers) -> None:
    with servers.proxy_client() as proxy:
        made = proxy.post("/sessions", json={"lang": "python", "keep_template": False})
        assert (made.status_code, made.json()["status"]) == (201, "active")
        session_id = made.json()["session_id"]
        ran = proxy.post(f"/sessions/{session_id}/execute", json={"code": "print(6 * 7)"})
        assert ran.status_code == 200
        assert (ran.json()["stdout"], ran.json()["stderr"], ran.json()["exit_code"]) == ("42\n", "", 0)
        assert session_id in proxy.get("/sessions").json()["sessions"]
        ended = proxy.delete(f"/sessions/{session_id}")
        assert (ended.status_code, ended.json()["status"]) == (200, "terminated")
        assert session_id not in proxy.get("/sessions").json()["sessions"]
        assert proxy.delete(f"/sessions/{session_id}").status_code == 404


def test_the_proxy_answers_nobody_without_its_token(servers: Servers) -> None:
    assert httpx.get(f"{servers.proxy_url}/sessions", trust_env=False).status_code == 401
    wrong = {"Authorization": "Bearer wrong"}
    assert httpx.post(f"{servers.proxy_url}/sessions", json={}, headers=wrong, trust_env=False).status_code == 401
    assert httpx.get(f"{servers.proxy_url}/", trust_env=False).json()["status"] == "ok"


def test_a_one_shot_leaves_no_sandbox_behind(servers: Servers, api: httpx.Client) -> None:
    answer = api.post("/sandbox/execute", json={"lang": "python", "code": "print('hi')", "libraries": []})
    assert (answer.status_code, answer.json()["stdout"]) == (200, "hi\n")
    assert api.get("/sessions", params={"status": "active"}).json()["sessions"] == []
    with servers.proxy_client() as proxy:
        assert proxy.get("/sessions").json()["sessions"] == []


def test_files_of_one_execution_are_there_in_the_next(api: httpx.Client, session_id: str) -> None:
    run = f"/sessions/{session_id}/execute"
    api.post(run, json={"code": "open('kept.txt', 'w').write('still here')"})
    assert api.post(run, json={"code": "print(open('kept.txt').read())"}).json()["stdout"] == "still here\n"


def test_the_same_idempotency_key_runs_code_once(api: httpx.Client, session_id: str) -> None:
    run = f"/sessions/{session_id}/execute"
    body = {"code": "import uuid; print(uuid.uuid4()); open('count', 'a').write('x')"}
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first, second = api.post(run, json=body, headers=headers), api.post(run, json=body, headers=headers)
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert api.post(run, json={"code": "print(open('count').read())"}).json()["stdout"] == "x\n"
    assert api.post(run, json={"code": "print(2)"}, headers=headers).status_code == 409
