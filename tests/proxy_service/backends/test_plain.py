"""An image without Python runs code all the same, and says what it cannot do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from docker.errors import ImageNotFound

from proxy_service.backends.base import Sandbox
from proxy_service.backends.containers import ContainerBackend
from proxy_service.backends.engine import connect
from proxy_service.backends.plain import PlainSandbox
from proxy_service.errors import SandboxBroken, UnknownExecution
from proxy_service.images import DEBIAN, image_name
from tests.proxy_service.backends.conftest import DOCKER, PODMAN, SPEC, Run, fresh_name, request, run

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("backend", [DOCKER, PODMAN], indirect=True, scope="module"),
]


def image_without_python(backend: ContainerBackend) -> str:
    """Return Debian itself, under the name that this engine has it."""
    client = connect(backend.name, backend._settings)  # type: ignore[arg-type]
    try:
        client.images.get(DEBIAN)
        return DEBIAN
    except ImageNotFound:
        return image_name(backend._settings, "debian")
    finally:
        client.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(backend: ContainerBackend) -> AsyncIterator[Sandbox]:
    spec = replace(SPEC, lang="bash", image=image_without_python(backend))
    sandbox = await backend.create(spec, fresh_name())
    await sandbox.assign("session", "digest", {"COLOUR": "green"})
    yield sandbox
    await sandbox.destroy()


async def test_it_says_what_it_cannot_do(plain: Sandbox) -> None:
    assert isinstance(plain, PlainSandbox)
    assert (plain.capabilities["contexts"], plain.capabilities["resume"], plain.capabilities["python"]) == (
        False,
        False,
        None,
    )


async def test_code_runs_and_files_stay(plain: Sandbox) -> None:
    first = await run(plain, 'echo "$COLOUR"; echo kept > note; echo oops >&2; exit 3', lang="bash")
    assert (first.stdout, first.stderr, first.exit["exit_code"]) == ("green\n", "oops\n", 3)
    assert (await run(plain, "cat note; id -u; pwd", lang="bash")).stdout == "kept\n1000\n/sandbox\n"


async def test_the_only_network_interface_is_lo_and_no_capability_is_left(plain: Sandbox) -> None:
    result = await run(plain, "ls /sys/class/net; grep -E 'CapEff|NoNewPrivs' /proc/self/status", lang="bash")
    assert result.stdout.split() == ["lo", "CapEff:", "0000000000000000", "NoNewPrivs:", "1"]


async def test_a_time_out_kills_the_code_and_the_next_execution_works(plain: Sandbox) -> None:
    began = time.monotonic()
    result = await run(plain, "echo so far; while :; do :; done", lang="bash", timeout_s=1.5)
    assert (result.reason, result.stdout) == ("timed_out", "so far\n")
    assert time.monotonic() - began < 8
    assert (await run(plain, "echo again", lang="bash")).stdout == "again\n"


async def test_an_execution_is_cancelled(plain: Sandbox) -> None:
    running = asyncio.create_task(run(plain, "sleep 100", lang="bash", execution_id="long"))
    await asyncio.sleep(0.5)
    await plain.cancel("long")
    assert (await asyncio.wait_for(running, 10)).reason == "cancelled"
    with pytest.raises(UnknownExecution):
        await plain.cancel("never")


async def test_output_is_bounded(plain: Sandbox) -> None:
    result = await run(plain, "head -c 5000000 /dev/zero | tr '\\0' x", lang="bash", output_limit_bytes=100_000)
    assert len(result.stdout) == 100_000


async def test_the_same_execution_is_joined(plain: Sandbox) -> None:
    wanted = request("echo run >> count; wc -l < count", lang="bash")
    first = Run([event async for event in plain.execute(wanted)])
    second = Run([event async for event in plain.execute(wanted)])
    assert first.stdout == second.stdout == "1\n"


async def test_a_container_that_dies_breaks_the_sandbox(plain: Sandbox, backend: ContainerBackend) -> None:
    spec = replace(SPEC, lang="bash", image=image_without_python(backend))
    sandbox = await backend.create(spec, fresh_name())
    client = connect(backend.name, backend._settings)  # type: ignore[arg-type]
    await asyncio.to_thread(client.api.remove_container, sandbox.name, force=True)
    client.close()
    with pytest.raises(SandboxBroken):
        await run(sandbox, "echo hello", lang="bash")
    assert sandbox.broken.is_set()
    await sandbox.destroy()
