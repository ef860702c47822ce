"""Contexts in real sandboxes."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import pytest_asyncio

from proxy_service.backends.base import Backend, Sandbox
from tests.proxy_service.backends.conftest import (
    BUBBLEWRAP,
    DOCKER,
    MIB,
    PODMAN,
    Run,
    fresh_name,
    run,
    with_limits,
)

pytestmark = [
    pytest.mark.parametrize("backend", [BUBBLEWRAP, DOCKER, PODMAN], indirect=True, scope="module"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(loop_scope="module")
async def assigned(sandbox: Sandbox) -> Sandbox:
    """A sandbox of a session."""
    await sandbox.assign("session", "digest", {})
    return sandbox


def results(done: Run) -> list[dict[str, Any]]:
    return [dict(event.data) for event in done.events if event.type == "result"]


def errors(done: Run) -> list[dict[str, Any]]:
    return [dict(event.data) for event in done.events if event.type == "error"]


async def test_state_is_there_for_the_next_execution_and_in_no_other_context(assigned: Sandbox) -> None:
    assert assigned.capabilities["contexts"] is True
    await assigned.create_context("other")
    await run(assigned, "x = 1", context="default")
    assert results(await run(assigned, "x + 1", context="default")) == [{"text": "2", "is_main_result": True}]
    elsewhere = await run(assigned, "x", context="other")
    assert errors(elsewhere)[0]["name"] == "NameError"
    assert elsewhere.exit["exit_code"] == 1
    assert "x" not in (await run(assigned, "print([n for n in globals() if n == 'x'])")).stdout


async def test_code_in_a_context_is_contained_as_all_code_is(assigned: Sandbox) -> None:
    for probe in (
        "import os; print(os.getuid(), os.getgroups(), os.umask(0o22))",
        "print([line for line in open('/proc/self/status') if line.startswith(('Cap', 'NoNewPrivs', 'Seccomp'))])",
        "import resource as r; print({name: r.getrlimit(getattr(r, name)) for name in dir(r) if 'RLIMIT' in name})",
        "print(open('/proc/self/oom_score_adj').read())",
    ):
        plain = await run(assigned, probe)
        assert plain.exit["exit_code"] == 0
        assert (await run(assigned, probe, context="default")).stdout == plain.stdout


async def test_a_deaf_context_is_killed_at_its_time_out_and_the_others_stay(assigned: Sandbox) -> None:
    await assigned.create_context("other")
    await run(assigned, "kept = 'yes'", context="other")
    deaf = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)"
    done = await run(assigned, deaf, context="default", timeout_s=0.5)
    assert (done.reason, done.exit["signal"], done.exit["context_restarted"]) == ("timed_out", 9, True)
    assert results(await run(assigned, "kept", context="other"))[0]["text"] == "'yes'"
    assert (await run(assigned, "print('alive')", context="default")).stdout == "alive\n"


async def test_too_much_memory_ends_the_context_and_not_the_sandbox(backend: Backend) -> None:
    sandbox = await backend.create(with_limits(memory_bytes=128 * MIB), fresh_name())
    try:
        await sandbox.assign("session", "digest", {})
        done = await run(
            sandbox, "data = bytearray(1 << 30)\nfor n in range(0, 1 << 30, 4096): data[n] = 1", context="default"
        )
        assert done.reason == "out_of_memory" or errors(done)[0]["name"] == "MemoryError"
        assert (await run(sandbox, "print('alive')", context="default")).stdout == "alive\n"
    finally:
        await sandbox.destroy()


async def test_a_large_picture_comes_whole(assigned: Sandbox) -> None:
    code = "class P:\n    def _repr_png_(self): return bytes(range(256)) * (7 * 4096)\nP()"
    done = await run(assigned, code, context="default")
    assert base64.b64decode(results(done)[0]["png"]) == bytes(range(256)) * (7 * 4096)
    over = await run(assigned, code.replace("7 *", "9 *"), context="default")
    assert "left out: png of 9437184 bytes" in results(over)[0]["text"]
    assert "png" not in results(over)[0]
