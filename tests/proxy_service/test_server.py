"""What the proxy says about itself, and to whom."""

from __future__ import annotations

import pytest

from tests.proxy_service.conftest import Proxy

EXECUTION = "0a7c3f36-6f1b-4c4e-8d0a-3f5b5f0c9e11"
SESSION = f"/sessions/{EXECUTION}"
GUARDED = [
    ("GET", "/languages"),
    ("GET", "/metrics"),
    ("PUT", "/pool"),
    ("GET", "/sessions"),
    ("POST", "/sessions"),
    ("GET", SESSION),
    ("DELETE", SESSION),
    ("GET", f"{SESSION}/stats"),
    ("POST", f"{SESSION}/execute"),
    ("GET", f"{SESSION}/executions/{EXECUTION}/events"),
    ("DELETE", f"{SESSION}/executions/{EXECUTION}"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize("given", [None, b"", b"Bearer", b"Bearer wrong", b"Basic dG9rZW4=", b"Bearer \xc3\xa9\xff"])
@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_nobody_without_the_token_learns_or_does_anything(
    proxy: Proxy, method: str, path: str, given: bytes | None
) -> None:
    headers = {} if given is None else {b"Authorization": given}
    del proxy.http.headers["Authorization"]
    response = await proxy.http.request(method, path, headers=headers, json={})
    assert response.status_code == 401
    assert response.json()["error"] == "unauthorized"
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert not proxy.backend.sandboxes


async def test_the_health_check_needs_no_token_and_tells_what_runs_here(proxy: Proxy) -> None:
    del proxy.http.headers["Authorization"]
    response = await proxy.http.get("/")
    assert response.status_code == 200
    answer = response.json()
    assert (answer["status"], answer["backend"], answer["pool"]) == ("ok", "fake", {})
    assert answer["version"]
    assert answer["capabilities"]["resume"] is True


async def test_languages_are_listed_with_their_versions(proxy: Proxy) -> None:
    answer = (await proxy.http.get("/languages")).json()
    assert answer["default"] == "python"
    assert {"lang": "python", "version": "3.11.2"} in answer["languages"]


async def test_errors_outside_of_the_contract_are_json_too(proxy: Proxy) -> None:
    nowhere = await proxy.http.get("/nowhere")
    assert (nowhere.status_code, nowhere.json()["error"]) == (404, "not_found")
    wrong_method = await proxy.http.patch("/sessions")
    assert wrong_method.status_code == 405
    assert {"error", "detail"} <= set(wrong_method.json())


async def test_a_bug_is_answered_without_its_traceback(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr(proxy.backend, "languages", broken)
    response = await proxy.http.get("/languages")
    assert response.status_code == 500
    assert {"error", "detail"} <= set(response.json())
    assert "secret" not in response.text


async def test_metrics_tell_of_sessions_and_executions(proxy: Proxy) -> None:
    session_id = await proxy.session()
    await proxy.execute(session_id, "print hello")
    response = await proxy.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert "sandboxweb_proxy_executions_total" in response.text
    assert "hello" not in response.text
