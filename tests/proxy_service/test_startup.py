"""A proxy comes up whatever its engine does, says what it waits for, and never denies what it has not found yet."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from proxy_service import startup
from proxy_service.backends.base import Sandbox
from proxy_service.backends.fake import FakeBackend
from proxy_service.errors import BackendAway, BackendUnavailable
from proxy_service.settings import Settings
from tests.proxy_service.conftest import Proxy, eventually, running


class Engine(FakeBackend):
    """A backend whose engine comes and goes, and some of whose sandboxes are slow to answer."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.error: BackendUnavailable | None = None
        self.hangs = False
        self.given: set[str] = set()
        self.answer = asyncio.Event()
        self.breaks = 0

    async def start(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error

    async def find_again(self) -> AsyncIterator[Sandbox]:
        found = [sandbox async for sandbox in super().find_again()]
        for number, sandbox in enumerate(found):
            if number == 1:
                if self.breaks:
                    self.breaks -= 1
                    raise BackendAway("The engine broke off.")
                await self.answer.wait()
            if sandbox.name not in self.given:
                self.given.add(sandbox.name)
                yield sandbox


@pytest.fixture
def backend(settings: Settings) -> Engine:
    return Engine(settings)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "FIND_WAIT_S", 0.05)
    monkeypatch.setattr(startup, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(startup, "FIRST_PAUSE_S", 0.01)


async def left_by_an_earlier_proxy(settings: Settings, backend: Engine) -> list[str]:
    """Return the ids of two sessions that the next proxy will find; the second is slow."""
    async with running(settings, backend) as proxy:
        return [await proxy.session(), await proxy.session()]


async def health(proxy: Proxy) -> tuple[int, str]:
    response = await proxy.http.get("/")
    return response.status_code, response.json()["status"]


async def test_what_waiting_does_not_mend_ends_the_start_with_the_mend(settings: Settings, backend: Engine) -> None:
    backend.error = BackendUnavailable("There is no image.", mend="Build it.")
    with pytest.raises(BackendUnavailable, match="no image"):
        async with running(settings, backend):
            raise AssertionError("it started")


async def test_an_engine_that_is_away_is_waited_for_and_everybody_told_why(settings: Settings, backend: Engine) -> None:
    (first, _), backend.error = (
        await left_by_an_earlier_proxy(settings, backend),
        BackendAway("Away.", mend="Start it."),
    )
    backend.answer.set()
    async with running(settings, backend) as proxy:
        told = await proxy.http.get("/")
        assert (told.status_code, told.json()["status"], told.json()["mend"]) == (503, "unavailable", "Start it.")
        requests = [("GET", "/sessions"), ("POST", "/sessions"), ("GET", f"/sessions/{first}"), ("PUT", "/pool")]
        for method, path in (*requests, ("POST", f"/sessions/{first}/execute"), ("DELETE", f"/sessions/{first}")):
            response = await proxy.http.request(method, path, json={"code": "print 1"})
            assert (response.status_code, response.json()["error"]) == (503, "backend_unavailable")
            assert response.json()["detail"] == "Away."
            assert int(response.headers["Retry-After"]) > 0
        assert (await proxy.http.get("/metrics")).status_code == 200
        # Also what would have ended a start is waited for now: an image may be built meanwhile.
        backend.error = BackendUnavailable("There is no image.")
        await asyncio.sleep(0.1)
        assert (await proxy.http.get("/")).json()["detail"] == "There is no image."
        backend.error = None
        while await health(proxy) != (200, "ok"):
            await asyncio.sleep(0.01)
        assert (await proxy.execute(first, "print found"))["stdout"] == "found\n"


async def test_an_engine_that_hangs_does_not_keep_the_server_from_listening_or_ending(
    settings: Settings, backend: Engine
) -> None:
    backend.hangs = True
    async with running(settings, backend) as proxy:
        assert await health(proxy) == (503, "unavailable")


async def test_a_sandbox_that_does_not_answer_holds_up_nobody_and_nobody_is_denied(
    settings: Settings, backend: Engine
) -> None:
    quick_one, slow_one = await left_by_an_earlier_proxy(settings, backend)
    async with running(settings, backend) as proxy:
        assert await health(proxy) == (200, "ok")
        assert (await proxy.execute(quick_one, "print a"))["stdout"] == "a\n"
        assert (await proxy.execute(await proxy.session(), "print b"))["stdout"] == "b\n"
        for path in ("/sessions", f"/sessions/{slow_one}", f"/sessions/{slow_one}/executions/{uuid.uuid4()}/events"):
            response = await proxy.http.get(path)
            assert (response.status_code, response.json()["error"]) == (503, "still_finding")
        assert (await proxy.http.delete(f"/sessions/{slow_one}")).status_code == 503
        backend.answer.set()
        while (listing := await proxy.http.get("/sessions")).status_code == 503:
            await asyncio.sleep(0.01)
        assert {quick_one, slow_one} < set(listing.json()["sessions"])
        assert (await proxy.http.get(f"/sessions/{uuid.uuid4()}")).status_code == 404


async def test_finding_goes_on_after_the_engine_has_broken_off(settings: Settings, backend: Engine) -> None:
    quick_one, slow_one = await left_by_an_earlier_proxy(settings, backend)
    backend.breaks = 2
    backend.answer.set()
    async with running(settings, backend) as proxy:
        sessions = proxy.app.state.service.sessions
        await eventually(lambda: not sessions.finding)
        assert (await proxy.execute(slow_one, "print a"))["stdout"] == "a\n"
        assert set((await proxy.http.get("/sessions")).json()["sessions"]) == {quick_one, slow_one}
