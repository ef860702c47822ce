"""A Docker daemon of the test's own is killed, stopped and restarted: what survives is attached to again, what does
not is lost, and nothing hangs."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy_service.app import create_app
from proxy_service.backends import container_sweeping
from proxy_service.backends.containment import INSTANCE, MANAGED, NAME
from proxy_service.backends.docker import DockerBackend
from proxy_service.images import image_name
from proxy_service.settings import Settings
from tests.chaos.processes import DockerEngine
from tests.proxy_service.backends.conftest import make_settings
from tests.proxy_service.conftest import lines

pytestmark = pytest.mark.docker

COUNTING = "import time\nfor number in range(40):\n    print(number, flush=True)\n    time.sleep(0.1)"
COUNTED = "".join(f"{number}\n" for number in range(40))
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """A daemon that has the image of Python."""
    engine = DockerEngine(tmp_path_factory.mktemp("docker"), lambda launch: launch())
    engine.start()
    engine.load_image()
    yield engine
    if engine.ended():
        engine.start()
    engine.remove()


@pytest.fixture
def settings(docker: DockerEngine, tmp_path: Path) -> Settings:
    """Settings of a proxy on the daemon, which runs."""
    if docker.ended():
        docker.start()
    return make_settings(
        tmp_path, docker_host=docker.url, sandbox_backend="docker", agent_ping_s=0.5, agent_silence_s=1.5
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Run a proxy on the daemon; give a client of it."""
    app = create_app(settings, DockerBackend(settings))
    headers = {"Authorization": f"Bearer {settings.token}"}
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://proxy", headers=headers, timeout=90) as http,
    ):
        yield http


async def started(http: httpx.AsyncClient, code: str) -> tuple[str, str, asyncio.Task[dict[str, Any]]]:
    """Make a session and run code in it; return both ids, and the result to come once the code prints."""
    made = await http.post("/sessions", json={})
    assert made.status_code == 201, made.text
    session_id, execution_id = str(made.json()["session_id"]), uuid.uuid4().hex

    async def result() -> dict[str, Any]:
        body = {"code": code, "execution_id": execution_id, "timeout": 60}
        answer = await http.post(f"/sessions/{session_id}/execute", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    task = asyncio.create_task(result())
    while True:
        answer = await http.get(f"/sessions/{session_id}/executions/{execution_id}/events", params={"follow": "false"})
        if answer.status_code == 200 and any(line["type"] == "stdout" for line in lines(answer.text)):
            return session_id, execution_id, task
        await asyncio.sleep(0.05)


async def until(http: httpx.AsyncClient, path: str, status: int) -> httpx.Response:
    """Ask until an answer has a status."""
    deadline = time.monotonic() + PATIENCE_S
    while (answer := await http.get(path)).status_code != status:
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.1)
    return answer


def kill(docker: DockerEngine) -> None:
    """Kill it; like its start from this thread, with which it would end."""
    docker.signal_family(signal.SIGKILL)
    docker.wait()


async def test_what_survives_the_daemon_goes_on_and_nobody_who_waits_notices(
    docker: DockerEngine, settings: Settings
) -> None:
    async with running(settings) as http:
        session_id, _, result = await started(http, COUNTING)
        kill(docker)
        # Nothing hangs meanwhile, and nobody is told that the session is gone.
        async with asyncio.timeout(20):
            stats = await until(http, f"/sessions/{session_id}/stats", 503)
            refused = await http.post(f"/sessions/{session_id}/execute", json={"code": "print(1)"})
            assert [answer.json()["error"] for answer in (stats, refused)] == ["unreachable", "unreachable"]
            assert (await http.post("/sessions", json={})).status_code == 503
        docker.start()
        told = await asyncio.wait_for(result, PATIENCE_S)
        assert (told["status"], told["stdout"]) == ("succeeded", COUNTED)
        again = await http.post(f"/sessions/{session_id}/execute", json={"code": "print('after')"})
        assert again.json()["stdout"] == "after\n"
        await http.delete(f"/sessions/{session_id}")
    assert docker.containers() == {}


async def test_what_ends_with_the_daemon_is_lost_with_its_output_so_far(
    docker: DockerEngine, settings: Settings
) -> None:
    docker.live_restore = False
    try:
        async with running(settings) as http:
            session_id, execution_id, result = await started(http, COUNTING)
            kill(docker)
            docker.start()
            told = await asyncio.wait_for(result, PATIENCE_S)
            assert told["status"] == "lost"
            assert told["stdout"] and COUNTED.startswith(told["stdout"])
            assert (await until(http, f"/sessions/{session_id}", 404)).json()["error"] == "unknown_session"
            events = await http.get(f"/sessions/{session_id}/executions/{execution_id}/events")
            assert lines(events.text)[-1]["data"]["status"] == "lost"
            async with asyncio.timeout(PATIENCE_S):
                while docker.containers():
                    await asyncio.sleep(0.2)
    finally:
        docker.live_restore = True
        kill(docker)
        docker.start()


async def test_a_daemon_that_is_stopped_for_longer_than_an_agent_may_be_silent_loses_nothing(
    docker: DockerEngine, settings: Settings
) -> None:
    async with running(settings) as http:
        session_id, _, result = await started(http, COUNTING)
        docker.signal(signal.SIGSTOP)
        await asyncio.sleep(3 * settings.agent_silence_s)
        assert (await http.get(f"/sessions/{session_id}")).status_code == 200
        docker.signal(signal.SIGCONT)
        told = await asyncio.wait_for(result, PATIENCE_S)
        assert (told["status"], told["stdout"]) == ("succeeded", COUNTED)
        await http.delete(f"/sessions/{session_id}")


async def test_an_agent_that_is_stopped_is_lost_with_its_output_so_far(
    docker: DockerEngine, settings: Settings
) -> None:
    async with running(settings) as http:
        _, _, result = await started(http, COUNTING)
        (container,) = docker.containers()
        began = time.monotonic()
        assert docker.docker("kill", "--signal", "STOP", container).returncode == 0
        told = await asyncio.wait_for(result, PATIENCE_S)
        assert time.monotonic() - began < 15
        assert told["status"] == "lost"
        assert told["stdout"] and COUNTED.startswith(told["stdout"])
        async with asyncio.timeout(PATIENCE_S):
            while docker.containers():
                await asyncio.sleep(0.2)


async def test_a_proxy_that_starts_before_the_daemon_takes_its_sandboxes_over_when_it_comes(
    docker: DockerEngine, settings: Settings
) -> None:
    async with running(settings) as http:
        session_id, execution_id, result = await started(http, COUNTING)
        result.cancel()
    kill(docker)
    async with running(settings) as http:
        health = await http.get("/")
        assert (health.status_code, health.json()["status"]) == (503, "unavailable")
        assert "does not answer" in health.json()["detail"] and health.json()["mend"]
        assert (await http.get("/sessions")).status_code == 503
        docker.start()
        await until(http, "/", 200)
        listing = await until(http, "/sessions", 200)
        assert listing.json()["sessions"] == [session_id]
        told = await http.get(f"/sessions/{session_id}/executions/{execution_id}/events", timeout=PATIENCE_S)
        events = lines(told.text)
        assert "".join(event["data"] for event in events if event["type"] == "stdout") == COUNTED
        await http.delete(f"/sessions/{session_id}")


async def test_a_container_that_the_daemon_made_and_nobody_heard_of_is_removed_and_no_other(
    docker: DockerEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_sweeping, "LOOK_EVERY_S", 0.2)

    def create(instance: str) -> str:
        labels = {MANAGED: "true", INSTANCE: instance, NAME: f"sbx-{uuid.uuid4().hex[:12]}"}
        flags = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
        made = docker.docker("create", "--network=none", *flags, image_name(settings, "python"), "true")
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    async with running(settings) as http:
        sessions = [(await http.post("/sessions", json={})).json()["session_id"] for _ in range(2)]
        ours, theirs = create(settings.instance), create("of-another-proxy")
        try:
            async with asyncio.timeout(PATIENCE_S):
                while ours in docker.containers():
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            assert theirs in docker.containers()
            for session_id in sessions:
                told = await http.post(f"/sessions/{session_id}/execute", json={"code": "print(1)"})
                assert told.json()["stdout"] == "1\n"
                await http.delete(f"/sessions/{session_id}")
        finally:
            docker.docker("rm", "-f", theirs)
    assert docker.containers() == {}
