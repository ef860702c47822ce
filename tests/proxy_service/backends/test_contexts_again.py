"""Contexts of sandboxes that outlive the proxy: whoever runs it next finds them as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proxy_service.backends.conftest import DOCKER, PODMAN, SPEC, fresh_name, make_backend, make_settings, run
from tests.proxy_service.backends.test_contexts import results


@pytest.mark.parametrize("name", [DOCKER, PODMAN])
async def test_contexts_outlive_the_proxy(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    changes = {"podman_url": request.getfixturevalue("podman_url")} if name == "podman" else {}
    settings = make_settings(tmp_path, **changes)
    first = make_backend(name, settings)
    await first.start()
    sandbox = await first.create(SPEC, fresh_name())
    await sandbox.assign("session", "digest", {})
    await run(sandbox, "x = 'from before'", context="default")
    await first.close()
    second = make_backend(name, settings)
    await second.start()
    found = [again async for again in second.find_again()]
    try:
        (again,) = found
        assert again.capabilities["contexts"] is True
        assert [(state.context_id, state.executions) for state in await again.contexts()] == [("default", 1)]
        assert results(await run(again, "x", context="default"))[0]["text"] == "'from before'"
    finally:
        for again in found:
            await again.destroy()
        await second.close()
