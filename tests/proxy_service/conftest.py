"""A proxy in this process, over sandboxes that are nothing but memory."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from pydantic import SecretStr

from proxy_service.backends.fake import FakeBackend, FakeSandbox
from proxy_service.settings import Settings
from tests.proxy_service.asgi import Call

T = TypeVar("T")

TOKEN = "token-of-the-tests"
NDJSON = {"Accept": "application/x-ndjson"}


def make_settings(data_dir: Path, **changes: Any) -> Settings:
    """Return settings that no environment and no `.env` changes."""
    values: dict[str, Any] = {"stop_timeout_s": 1.0, "max_waiting_executions": 3, "sandbox_backend": "fake", **changes}
    return Settings(_env_file=None, proxy_token=SecretStr(TOKEN), data_dir=data_dir, **values)


async def eventually(condition: Callable[[], T], *, timeout_s: float = 10, what: str = "the condition") -> T:
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        await asyncio.sleep(0.005)
    return value


class Proxy:
    """A running proxy, its backend, and the words in which tests speak to it."""

    def __init__(self, app: Any, backend: FakeBackend, http: httpx.AsyncClient) -> None:
        self.app = app
        self.backend = backend
        self.http = http

    async def create(self, **body: Any) -> dict[str, Any]:
        """Make a session."""
        response = await self.http.post("/sessions", json={"lang": "python", **body})
        assert response.status_code in (200, 201), response.text
        return dict(response.json())

    async def session(self, **body: Any) -> str:
        """Make a session and return its id."""
        return str((await self.create(**body))["session_id"])

    def sandbox(self, session_id: str) -> FakeSandbox:
        """Return the sandbox of a session."""
        return next(found for found in self.backend.sandboxes.values() if found.session_id == session_id)

    async def execute(self, session_id: str, code: str, **body: Any) -> dict[str, Any]:
        """Run code and return its result."""
        response = await self.http.post(f"/sessions/{session_id}/execute", json={"code": code, **body})
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def begin(self, session_id: str, code: str, **body: Any) -> tuple[str, asyncio.Task[dict[str, Any]]]:
        """Run code in the background; return its id and its result to come, once the code has begun."""
        execution_id = body.pop("execution_id", None) or str(uuid.uuid4())
        task = asyncio.create_task(self.execute(session_id, code, execution_id=execution_id, **body))
        await eventually(lambda: execution_id in self.sandbox(session_id).runs, what="the execution's start")
        return execution_id, task

    async def queue(self, session_id: str, code: str, **body: Any) -> tuple[str, asyncio.Task[dict[str, Any]]]:
        """Run code behind what runs already; return its id and its result to come, once it is queued."""
        execution_id = body.pop("execution_id", None) or str(uuid.uuid4())
        follower = self.call("POST", f"/sessions/{session_id}/execute", {"code": code, "execution_id": execution_id})
        assert await follower.status() == 200
        assert (await follower.line() or {})["type"] == "queued"
        await follower.leave()
        return execution_id, asyncio.create_task(self.execute(session_id, code, execution_id=execution_id))

    async def events(self, session_id: str, execution_id: str, **params: Any) -> list[dict[str, Any]]:
        """Return the lines of an execution's journal."""
        path = f"/sessions/{session_id}/executions/{execution_id}/events"
        response = await self.http.get(path, params=params)
        assert response.status_code == 200, response.text
        return lines(response.text)

    def call(self, method: str, path: str, body: Any = None, query: str = "", accept: str = NDJSON["Accept"]) -> Call:
        """Send a request whose answer is read line by line."""
        return Call(self.app, method, path, token=TOKEN, body=body, query=query, accept=accept)


def lines(text: str) -> list[dict[str, Any]]:
    """Return the values of an NDJSON text."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


@asynccontextmanager
async def running(settings: Settings, backend: FakeBackend) -> AsyncIterator[Proxy]:
    """Start a proxy on a backend, and stop it at the end."""
    from proxy_service.app import create_app

    app = create_app(settings, backend)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://proxy", headers=headers, timeout=30) as http,
    ):
        yield Proxy(app, backend, http)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a small server."""
    return make_settings(tmp_path)


@pytest.fixture
def backend(settings: Settings) -> FakeBackend:
    """Where the sandboxes live."""
    return FakeBackend(settings)


@pytest.fixture
async def proxy(settings: Settings, backend: FakeBackend) -> AsyncIterator[Proxy]:
    """A running proxy."""
    async with running(settings, backend) as found:
        yield found


@pytest.fixture
async def session_id(proxy: Proxy) -> str:
    """The id of a fresh Python session."""
    return await proxy.session()
