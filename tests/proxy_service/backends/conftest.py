"""Real backends, started once a module, and sandboxes of them."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from proxy_service.app import create_app
from proxy_service.backends.base import Backend, ExecRequest, Limits, Sandbox, SandboxEvent, SandboxSpec
from proxy_service.backends.bubblewrap import BubblewrapBackend
from proxy_service.backends.docker import DockerBackend
from proxy_service.backends.podman import PodmanBackend
from proxy_service.settings import Settings

MIB = 1024 * 1024
LIMITS = Limits(memory_bytes=192 * MIB, cpus=1.0, pids=48, disk_bytes=64 * MIB)
SPEC = SandboxSpec(lang="python", limits=LIMITS)

BUBBLEWRAP = pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)
DOCKER = pytest.param("docker", marks=pytest.mark.docker)
PODMAN = pytest.param("podman", marks=pytest.mark.podman)

Show = Callable[[str], None]

_numbers = itertools.count(1)


def make_settings(data_dir: Path, **changes: Any) -> Settings:
    """Return settings of a proxy of its own, whatever the environment says."""
    values = {"proxy_token": SecretStr(uuid.uuid4().hex), "data_dir": data_dir, "start_timeout_s": 20.0, **changes}
    return Settings(_env_file=None, **values)


def make_backend(name: str, settings: Settings) -> Backend:
    """Return a backend that is not started yet."""
    classes = {"bubblewrap": BubblewrapBackend, "docker": DockerBackend, "podman": PodmanBackend}
    return classes[name](settings)


async def found_by(backend: Backend) -> list[Sandbox]:
    """Start a backend, and return what it finds again."""
    await backend.start()
    return [sandbox async for sandbox in backend.find_again()]


def fresh_name() -> str:
    """Return a name that no sandbox has."""
    return f"sbx-test-{uuid.uuid4().hex[:12]}"


@dataclass
class Run:
    """What one execution did."""

    events: list[SandboxEvent] = field(default_factory=list)

    @property
    def stdout(self) -> str:
        return self.output("stdout").decode()

    @property
    def stderr(self) -> str:
        return self.output("stderr").decode()

    def output(self, kind: str) -> bytes:
        return b"".join(event.body for event in self.events if event.type == kind)

    @property
    def exit(self) -> dict[str, Any]:
        assert self.events[-1].type == "exit"
        return dict(self.events[-1].data)

    @property
    def reason(self) -> str:
        return str(self.exit["reason"])


def request(code: str | bytes, **changes: Any) -> ExecRequest:
    """Ask for code to be run."""
    values: dict[str, Any] = {"lang": "python", "timeout_s": 20.0, "output_limit_bytes": MIB, **changes}
    values.setdefault("execution_id", f"e{next(_numbers)}-{uuid.uuid4().hex[:8]}")
    return ExecRequest(code=code.encode() if isinstance(code, str) else code, **values)


async def run(sandbox: Sandbox, code: str | bytes, **changes: Any) -> Run:
    """Run code to its end."""
    return Run([event async for event in sandbox.execute(request(code, **changes))])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Backend]:
    """A started backend; parametrize it indirectly with the names above."""
    changes: dict[str, Any] = {}
    if request.param == "podman":
        changes["podman_url"] = request.getfixturevalue("podman_url")
    backend = make_backend(request.param, make_settings(tmp_path_factory.mktemp("data"), **changes))
    await backend.start()
    yield backend
    await backend.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(backend: Backend) -> AsyncIterator[Sandbox]:
    """One sandbox for all tests of a module that leave it as they found it."""
    sandbox = await backend.create(SPEC, fresh_name())
    await sandbox.assign("session", "digest", {})
    yield sandbox
    await sandbox.destroy()


@pytest_asyncio.fixture(loop_scope="module")
async def sandbox(backend: Backend) -> AsyncIterator[Sandbox]:
    """A sandbox for one test alone."""
    sandbox = await backend.create(SPEC, fresh_name())
    yield sandbox
    await sandbox.destroy()


def with_limits(**changes: Any) -> SandboxSpec:
    """Return the usual spec with other limits."""
    return replace(SPEC, limits=replace(LIMITS, **changes))


class Server:
    """A proxy on one backend, in this process."""

    def __init__(self, backend: str, http: httpx.AsyncClient) -> None:
        self.backend = backend
        self.http = http

    async def session(self, **body: Any) -> str:
        """Make a session and return its id."""
        made = await self.http.post("/sessions", json=body)
        assert made.status_code == 201, made.text
        return str(made.json()["session_id"])

    async def run(self, session_id: str, code: str, **body: Any) -> dict[str, Any]:
        """Run code and return its result."""
        answer = await self.http.post(f"/sessions/{session_id}/execute", json={"code": code, "timeout": 60, **body})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def languages(self) -> dict[str, str | None]:
        """Return the version of each language that can run."""
        found = (await self.http.get("/languages")).json()["languages"]
        return {item["lang"]: item["version"] for item in found}


@asynccontextmanager
async def running(backend: str, settings: Settings) -> AsyncIterator[Server]:
    """Start a proxy on a real backend, and stop it at the end; its teardown is waited for."""
    app = create_app(settings, make_backend(backend, settings))
    transport = httpx.ASGITransport(app=app)
    headers = {"Authorization": f"Bearer {settings.token}"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://proxy", headers=headers, timeout=300) as http,
    ):
        yield Server(backend, http)
        await app.state.service.teardown.wait(60)


@pytest_asyncio.fixture
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    """A proxy on a real backend; parametrize it indirectly with the names above. Its sessions end with the test."""
    async with running(request.param, make_settings(tmp_path)) as found:
        yield found
        for session_id in (await found.http.get("/sessions")).json()["sessions"]:
            await found.http.delete(f"/sessions/{session_id}")


@pytest.fixture
def show(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Show:
    """Write a line where the person who runs the tests sees it."""
    reporter = request.config.pluginmanager.getplugin("terminalreporter")

    def write(line: str) -> None:
        with capsys.disabled():
            reporter.write_line(line)

    return write
