"""Sandboxes on an engine outlive the proxy, and nothing outlives a sandbox."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
import pytest_asyncio

from proxy_service.agent_events import AgentGone
from proxy_service.backends.base import Backend, Sandbox
from proxy_service.backends.container_sandbox import ContainerSandbox
from proxy_service.backends.containers import ContainerBackend
from proxy_service.backends.engine import connect
from proxy_service.errors import (
    BackendUnavailable,
    SandboxBroken,
    SandboxStartFailed,
    UnknownExecution,
    UnsupportedLanguage,
    UnsupportedSpec,
)
from proxy_service.settings import Settings
from tests.proxy_service.backends.conftest import (
    DOCKER,
    PODMAN,
    SPEC,
    Run,
    found_by,
    fresh_name,
    make_backend,
    make_settings,
    request,
    run,
)

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("backend", [DOCKER, PODMAN], indirect=True, scope="module"),
]

COUNT = 40
COUNTING = (
    "import os, time\n"
    "open('kept', 'w').write(os.environ['COLOUR'])\n"
    f"for number in range({COUNT}):\n"
    "    print(number, flush=True)\n"
    "    time.sleep(0.05)"
)


def settings_of(backend: Backend) -> Settings:
    assert isinstance(backend, ContainerBackend)
    return backend._settings


@pytest.fixture
def client(backend: Backend) -> Iterator[docker.DockerClient]:
    client = connect(backend.name, settings_of(backend))  # type: ignore[arg-type]
    yield client
    client.close()


def containers(client: docker.DockerClient, settings: Settings) -> list[str]:
    """Return the names of a proxy's containers."""
    filters = {"label": f"sandboxweb.instance={settings.instance}"}
    return [container["Names"][0].lstrip("/") for container in client.api.containers(all=True, filters=filters)]


@pytest_asyncio.fixture(loop_scope="module")
async def other(backend: Backend, tmp_path: Path) -> AsyncIterator[Settings]:
    """Settings of a proxy of its own, whose containers are gone in the end."""
    settings = make_settings(tmp_path, podman_url=settings_of(backend).podman_url)
    yield settings
    last = make_backend(backend.name, settings)
    await asyncio.gather(*(sandbox.destroy() for sandbox in await found_by(last)))
    await last.close()


def plain_values(settings: Settings) -> dict[str, Any]:
    """Return settings as another process may be given them."""
    return {
        "proxy_token": settings.token,
        "data_dir": str(settings.data_dir),
        "podman_url": settings.podman_url,
    }


async def test_a_killed_proxy_loses_nothing(backend: Backend, other: Settings) -> None:
    name = fresh_name()
    command = [sys.executable, "-m", "tests.proxy_service.backends.holder", backend.name]
    command += [json.dumps(plain_values(other)), name, COUNTING]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert await asyncio.to_thread(process.stdout.readline) == b"running\n"
        process.kill()
    successor = make_backend(backend.name, other)
    (sandbox,) = await found_by(successor)
    assert (sandbox.name, sandbox.session_id, sandbox.assigned_digest) == (name, "session", "digest")
    assert sandbox.spec == SPEC
    assert sandbox.execution_ids == ("long",)
    whole = Run([event async for event in sandbox.events("long")])
    assert [event.seq for event in whole.events] == list(range(1, len(whole.events) + 1))
    assert whole.stdout == "".join(f"{number}\n" for number in range(COUNT))
    assert whole.exit["exit_code"] == 0
    assert (await run(sandbox, "print(open('kept').read())")).stdout == "green\n"
    again = Run([event async for event in sandbox.execute(request("print('twice')", execution_id="long"))])
    assert again.stdout == whole.stdout
    await sandbox.destroy()
    await successor.close()


async def test_half_a_frame_left_by_a_dead_proxy_does_no_harm(backend: Backend, other: Settings) -> None:
    first = make_backend(backend.name, other)
    await first.start()
    sandbox = await first.create(SPEC, fresh_name())
    assert isinstance(sandbox, ContainerSandbox)
    writer = sandbox._link._writer
    writer.write(b"\xf5S\x00\x00\x00\x40\x00\x10\x00\x00" + b"{" * 40)
    await writer.drain()
    await first.close()
    second = make_backend(backend.name, other)
    (found,) = await found_by(second)
    assert (await run(found, "print('whole')")).stdout == "whole\n"
    await found.destroy()
    await second.close()


async def test_a_lost_attachment_is_made_again_and_readers_do_not_notice(backend: Backend, sandbox: Sandbox) -> None:
    assert isinstance(sandbox, ContainerSandbox)
    await sandbox.assign("session", "digest", {"COLOUR": "red"})
    result = Run()
    async for event in sandbox.execute(request(COUNTING)):
        result.events.append(event)
        if event.type == "stdout" and event.seq in (4, 12):
            sandbox._link.fail(AgentGone("the test let go of it"))
    assert result.stdout == "".join(f"{number}\n" for number in range(COUNT))
    assert [event.seq for event in result.events] == list(range(1, len(result.events) + 1))


async def test_a_container_that_dies_is_noticed_at_once(
    backend: Backend, sandbox: Sandbox, client: docker.DockerClient
) -> None:
    running = asyncio.create_task(run(sandbox, "import time; time.sleep(100)", timeout_s=100.0))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(client.api.kill, sandbox.name)
    await asyncio.wait_for(sandbox.broken.wait(), 10)
    with pytest.raises(SandboxBroken):
        await asyncio.wait_for(running, 10)
    with pytest.raises(SandboxBroken):
        await sandbox.stats()


async def test_a_stopped_agent_is_found_out(backend: Backend, other: Settings, client: docker.DockerClient) -> None:
    quick = make_backend(backend.name, other.model_copy(update={"agent_ping_s": 0.2, "agent_silence_s": 0.6}))
    await quick.start()
    sandbox = await quick.create(SPEC, fresh_name())
    await asyncio.to_thread(client.api.pause, sandbox.name)
    await asyncio.wait_for(sandbox.broken.wait(), 10)
    assert "silent" in sandbox.broken_reason
    await sandbox.destroy()
    assert containers(client, other) == []
    await quick.close()


async def test_closing_leaves_the_containers_and_destroying_removes_them(
    backend: Backend, other: Settings, client: docker.DockerClient
) -> None:
    first = make_backend(backend.name, other)
    assert await found_by(first) == []
    name = (await first.create(SPEC, fresh_name())).name
    await first.close()
    assert containers(client, other) == [name]
    second = make_backend(backend.name, other)
    (sandbox,) = await found_by(second)
    await sandbox.destroy()
    await sandbox.destroy()
    assert containers(client, other) == []
    await second.close()


async def test_another_proxys_containers_are_left_alone(
    backend: Backend, sandbox: Sandbox, other: Settings, client: docker.DockerClient
) -> None:
    stranger = make_backend(backend.name, other)
    assert await found_by(stranger) == []
    await stranger.close()
    assert sandbox.name in containers(client, settings_of(backend))
    assert (await run(sandbox, "print(1)")).stdout == "1\n"


async def test_what_cannot_be_attached_to_is_removed_at_the_start(
    backend: Backend, other: Settings, client: docker.DockerClient
) -> None:
    first = make_backend(backend.name, other)
    await first.start()
    alive = await first.create(SPEC, fresh_name())
    dead = await first.create(SPEC, fresh_name())
    await asyncio.to_thread(client.api.kill, dead.name)
    await first.close()
    second = make_backend(backend.name, other)
    found = await found_by(second)
    assert [sandbox.name for sandbox in found] == [alive.name]
    await second.close()
    assert containers(client, other) == [alive.name]


async def test_a_cancelled_creation_leaves_nothing(
    backend: Backend, other: Settings, client: docker.DockerClient
) -> None:
    first = make_backend(backend.name, other)
    await first.start()
    creating = asyncio.create_task(first.create(SPEC, fresh_name()))
    await asyncio.sleep(0.05)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    await first.close()
    assert containers(client, other) == []


async def test_a_container_that_cannot_start_leaves_nothing(
    backend: Backend, other: Settings, client: docker.DockerClient
) -> None:
    first = make_backend(backend.name, other)
    await first.start()
    first._maker._security_opt = ("seccomp=/no/such/file",)  # type: ignore[attr-defined]
    with pytest.raises(SandboxStartFailed):
        await first.create(SPEC, fresh_name())
    assert containers(client, other) == []
    await first.close()


async def test_a_runtime_that_the_engine_has_not_is_refused_at_the_start(backend: Backend, other: Settings) -> None:
    first = make_backend(backend.name, other.model_copy(update={"sandbox_runtime": "no-such"}))
    with pytest.raises(BackendUnavailable, match="no-such") as caught:
        await first.start()
    assert "no-such" in caught.value.mend


async def test_a_language_without_an_image_is_refused_naming_what_there_is(backend: Backend) -> None:
    there = {str(item["lang"]) for item in backend.languages()}
    missing = next((lang for lang in ("r", "ruby", "go", "java") if lang not in there), None)
    if missing is None:
        missing = "cobol"
    with pytest.raises(UnsupportedLanguage, match="python"):
        await backend.create(replace(SPEC, lang=missing), fresh_name())


async def test_an_unknown_execution_is_unknown(backend: Backend, shared: Sandbox) -> None:
    with pytest.raises(UnknownExecution):
        await anext(shared.events(uuid.uuid4().hex))
    with pytest.raises(UnknownExecution):
        await shared.cancel(uuid.uuid4().hex)


async def test_preloaded_modules_are_there_and_a_missing_one_is_named(backend: Backend) -> None:
    sandbox = await backend.create(replace(SPEC, preload=("json", "decimal")), fresh_name())
    assert (await run(sandbox, "import sys; print('decimal' in sys.modules)")).stdout == "True\n"
    await sandbox.destroy()
    with pytest.raises(UnsupportedSpec, match="nowhere"):
        await backend.create(replace(SPEC, preload=("nowhere",)), fresh_name())


async def test_a_check_takes_nothing_over(backend: Backend, other: Settings) -> None:
    first = make_backend(backend.name, other)
    await first.start()
    sandbox = await first.create(SPEC, fresh_name())
    check = make_backend(backend.name, other)
    await check.start()
    await check.close()
    assert (await run(sandbox, "print('held')")).stdout == "held\n"
    assert sandbox._link.broken is None  # type: ignore[attr-defined]
    await sandbox.destroy()
    await first.close()


async def test_one_whose_agent_does_not_answer_is_removed_and_holds_up_no_other(
    backend: Backend, other: Settings, client: docker.DockerClient
) -> None:
    first = make_backend(backend.name, other)
    await first.start()
    alive, stopped = await first.create(SPEC, fresh_name()), await first.create(SPEC, fresh_name())
    await first.close()
    await asyncio.to_thread(client.api.pause, stopped.name)
    second = make_backend(backend.name, other.model_copy(update={"agent_silence_s": 3.0}))
    await second.start()
    finding = second.find_again()
    async with asyncio.timeout(2.5):
        found = await anext(finding)
    assert (await run(found, "print(1)")).stdout == "1\n"
    assert [sandbox async for sandbox in finding] == []
    assert found.name == alive.name
    await second.close()
    assert containers(client, other) == [alive.name]
