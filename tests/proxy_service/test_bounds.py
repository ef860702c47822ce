"""Nobody is waited for without end: slow senders, slow readers, and backends that do not do their work."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import uvicorn

from proxy_service.app import create_app
from proxy_service.backends.base import SandboxSpec
from proxy_service.backends.fake import FakeBackend, FakeSandbox
from proxy_service.settings import Settings
from tests.proxy_service.conftest import TOKEN, Proxy, eventually, make_settings, running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    quick = {"create_timeout_s": 0.2, "start_timeout_s": 0.2, "body_timeout_s": 0.2, "reader_silence_s": 0.3}
    return make_settings(tmp_path, **quick)


async def test_a_body_that_does_not_arrive_is_waited_for_so_long_and_no_longer(proxy: Proxy) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b'{"lang": '
        await asyncio.sleep(60)

    async with asyncio.timeout(10):
        for path in ("/sessions", f"/sessions/{uuid.uuid4()}/execute"):
            response = await proxy.http.post(path, content=slow())
            assert (response.status_code, response.json()["error"]) == (408, "request_timeout")
            assert response.json()["field"] == "body"


async def test_a_creation_that_takes_too_long_is_given_up_and_its_place_is_free(proxy: Proxy) -> None:
    proxy.backend.may_start.clear()
    body = {"session_id": str(uuid.uuid4())}
    response = await proxy.http.post("/sessions", json=body)
    assert (response.status_code, response.json()["error"]) == (504, "start_timed_out")
    assert "0.2 s" in response.json()["detail"]
    proxy.backend.may_start.set()
    assert (await proxy.http.post("/sessions", json=body)).status_code == 201
    assert len(proxy.backend.sandboxes) == 1


async def test_a_sandbox_that_does_not_take_its_session_is_given_up(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: FakeSandbox, session_id: str, digest: str, env: Mapping[str, str]) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(FakeSandbox, "assign", hang)
    response = await proxy.http.post("/sessions", json={})
    assert (response.status_code, response.json()["error"]) == (504, "start_timed_out")
    await eventually(lambda: not proxy.backend.sandboxes)


async def test_a_backend_that_does_not_close_does_not_keep_the_proxy(
    settings: Settings, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang() -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(backend, "close", hang)
    async with asyncio.timeout(10), running(settings, backend) as proxy:
        await proxy.session()


async def test_a_reader_that_takes_nothing_is_cut_off_and_gets_the_rest_when_it_asks_again(
    settings: Settings, backend: FakeBackend
) -> None:
    app = create_app(settings, backend)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    sessions = app.state.service.sessions
    made = await sessions.create(
        str(uuid.uuid4()), SandboxSpec(lang="python", limits=settings.default_limits), {}, "digest"
    )
    session_id, execution_id = made[0].id, str(uuid.uuid4())
    asked = {"code": "flood 12000000", "execution_id": execution_id, "output_limit_bytes": 16_000_000}
    body = json.dumps(asked)
    reader, writer = await asyncio.open_connection(*listener.getsockname(), limit=1024)
    head = f"POST /sessions/{session_id}/execute HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Accept: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write((head + body).encode())
    await eventually(lambda: len(sessions.kept), what="the execution's end")
    await asyncio.sleep(3 * settings.reader_silence_s)
    taken = b""
    async with asyncio.timeout(10):
        try:
            while part := await reader.read(1 << 20):
                taken += part
        except ConnectionError:
            pass
    assert b'"type":"exit"' not in taken
    writer.close()
    assert sessions.find_execution(session_id, execution_id).transcript.end is not None
    server.should_exit = True
    await serving
