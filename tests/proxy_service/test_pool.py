"""The warm pool: as many as declared, each given once, refilled, and never stopped by a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy_service import pool
from proxy_service.backends.fake import FakeBackend
from proxy_service.errors import SandboxStartFailed
from proxy_service.settings import Settings
from tests.proxy_service.conftest import Proxy, eventually, running


@pytest.fixture
async def proxy(settings: Settings, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """A proxy whose pool looks after its shelves often."""
    monkeypatch.setattr(pool, "CHECK_S", 0.02)
    monkeypatch.setattr(pool, "FIRST_BACKOFF_S", 0.05)
    async with running(settings, backend) as found:
        yield found


async def declare(proxy: Proxy, **sizes: int) -> None:
    """Say how many of each Python template should be ready."""
    await declare_templates(proxy, [{"template": name, "warm_pool_size": size} for name, size in sizes.items()])


async def declare_templates(proxy: Proxy, templates: list[dict[str, Any]]) -> None:
    response = await proxy.http.put("/pool", json={"templates": templates})
    assert response.status_code == 200, response.text


async def state(proxy: Proxy) -> dict[str, Any]:
    """Return the pool as the health check tells it."""
    return dict((await proxy.http.get("/")).json()["pool"])


async def filled(proxy: Proxy, **sizes: int) -> None:
    """Wait until so many of each are ready."""
    for _ in range(2000):
        now = await state(proxy)
        if {name: numbers["ready"] for name, numbers in now.items()} == sizes:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"the pool is {now}, not {sizes}")


async def test_a_template_that_cannot_be_had_is_told_and_keeps_no_other_from_its_pool(proxy: Proxy) -> None:
    unknown = {"template": "odd", "lang": "brainfuck", "warm_pool_size": 2}
    await declare_templates(proxy, [{"template": "small", "warm_pool_size": 1}, unknown])
    await filled(proxy, small=1, odd=0)
    told = (await state(proxy))["odd"]
    assert (told["target"], told["starting"]) == (2, 0)
    assert "brainfuck" in told["error"]
    await declare(proxy, small=1)
    await filled(proxy, small=1)


async def test_as_many_are_ready_as_were_declared(proxy: Proxy) -> None:
    await declare(proxy, small=1, large=3)
    await filled(proxy, small=1, large=3)
    assert (await state(proxy))["large"]["target"] == 3
    assert len(proxy.backend.sandboxes) == 4
    # Saying it again changes nothing.
    await declare(proxy, small=1, large=3)
    await asyncio.sleep(0.1)
    assert proxy.backend.attempts == 4


async def test_a_session_gets_a_ready_one_and_its_place_is_filled_again(proxy: Proxy) -> None:
    await declare(proxy, python=2)
    await filled(proxy, python=2)
    made = await proxy.create(template="python")
    assert made["pooled"] is True
    await filled(proxy, python=2)
    assert len(proxy.backend.sandboxes) == 3
    assert (await proxy.execute(made["session_id"], "print warm"))["stdout"] == "warm\n"


async def test_each_is_given_to_one_session_only(proxy: Proxy) -> None:
    await declare(proxy, python=3)
    await filled(proxy, python=3)
    made = await asyncio.gather(*(proxy.create(template="python", env={"N": str(n)}) for n in range(6)))
    assert len({session["sandbox"] for session in made}) == 6
    assert sum(session["pooled"] for session in made) >= 3
    for number, session in enumerate(made):
        assert (await proxy.execute(session["session_id"], "env N"))["stdout"] == f"{number}\n"


async def test_an_ended_session_s_sandbox_never_comes_back(proxy: Proxy) -> None:
    await declare(proxy, python=1)
    await filled(proxy, python=1)
    first = await proxy.create(template="python")
    await proxy.http.delete(f"/sessions/{first['session_id']}")
    await eventually(lambda: first["sandbox"] not in proxy.backend.sandboxes)
    await filled(proxy, python=1)
    assert (await proxy.create(template="python"))["sandbox"] != first["sandbox"]


async def test_another_spec_gets_none_of_them(proxy: Proxy) -> None:
    await declare(proxy, python=1)
    await filled(proxy, python=1)
    for other in ({"limits": {"pids": 9}}, {"lang": "javascript"}, {"preload": ["json"]}, {"network": "host"}):
        assert (await proxy.create(template="python", **other))["pooled"] is False


async def test_a_changed_spec_replaces_what_was_ready(proxy: Proxy) -> None:
    await declare(proxy, python=2)
    await filled(proxy, python=2)
    before = set(proxy.backend.sandboxes)
    await declare_templates(proxy, [{"template": "python", "warm_pool_size": 2, "limits": {"pids": 9}}])
    await eventually(lambda: not before & set(proxy.backend.sandboxes))
    await filled(proxy, python=2)
    assert {sandbox.spec.limits.pids for sandbox in proxy.backend.sandboxes.values()} == {9}


async def test_a_smaller_target_and_a_missing_template_free_their_sandboxes(proxy: Proxy) -> None:
    await declare(proxy, kept=3, dropped=2)
    await filled(proxy, kept=3, dropped=2)
    await declare(proxy, kept=1)
    await eventually(lambda: len(proxy.backend.sandboxes) == 1)
    await filled(proxy, kept=1)


async def test_what_starts_while_its_template_goes_is_not_kept(proxy: Proxy) -> None:
    proxy.backend.may_start.clear()
    await declare(proxy, python=2)
    await eventually(lambda: proxy.backend.attempts)
    await declare_templates(proxy, [])
    proxy.backend.may_start.set()
    await asyncio.sleep(0.1)
    await eventually(lambda: not proxy.backend.sandboxes)
    assert not any(numbers["target"] for numbers in (await state(proxy)).values())


async def test_one_that_died_is_replaced_and_not_given_away(proxy: Proxy) -> None:
    await declare(proxy, python=2)
    await filled(proxy, python=2)
    dead, alive = list(proxy.backend.sandboxes.values())
    dead.die("killed from outside")
    made = await proxy.create(template="python")
    assert made["sandbox"] != dead.name
    await filled(proxy, python=2)
    await eventually(lambda: dead.name not in proxy.backend.sandboxes, what="the dead one's removal")
    assert alive.broken.is_set() is False


async def test_failing_starts_back_off_and_go_on_by_themselves(proxy: Proxy) -> None:
    proxy.backend.start_error = SandboxStartFailed("The image is away.")
    await declare(proxy, python=1)
    await eventually(lambda: proxy.backend.attempts >= 2, what="a second try")
    # Meanwhile nobody else is held up by it, and it does not try without a pause.
    assert proxy.backend.attempts < 20
    proxy.backend.start_error = None
    await proxy.create()
    await filled(proxy, python=1)


async def test_a_bug_in_a_start_does_not_stop_the_pool(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    create = proxy.backend.create
    tries = 0

    async def broken(*arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ZeroDivisionError
        return await create(*arguments)

    monkeypatch.setattr(proxy.backend, "create", broken)
    await declare(proxy, python=1)
    await filled(proxy, python=1)


async def test_no_more_start_at_once_than_may(proxy: Proxy, settings: Settings) -> None:
    proxy.backend.may_start.clear()
    await declare(proxy, python=9)
    await eventually(lambda: proxy.backend.attempts == settings.pool_parallel_starts)
    await asyncio.sleep(0.1)
    assert proxy.backend.attempts == settings.pool_parallel_starts
    # A session that somebody waits for does not stand behind them.
    waiting = asyncio.create_task(proxy.create(lang="javascript"))
    await eventually(lambda: proxy.backend.attempts == settings.pool_parallel_starts + 1)
    proxy.backend.may_start.set()
    await waiting
    await filled(proxy, python=9)
