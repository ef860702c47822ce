"""A proxy's backend in a process of its own, to be killed by a test: `python -m … NAME JSON`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from proxy_service.settings import Settings
from tests.proxy_service.backends.conftest import SPEC, make_backend, request


async def hold(backend_name: str, settings: dict[str, Any], sandbox_name: str, code: str) -> None:
    """Make a sandbox, start code in it, say when its first output came, and hold on."""
    backend = make_backend(backend_name, Settings(_env_file=None, **settings))
    await backend.start()
    sandbox = await backend.create(SPEC, sandbox_name)
    await sandbox.assign("session", "digest", {"COLOUR": "green"})
    async for event in sandbox.execute(request(code, execution_id="long", timeout_s=60.0)):
        if event.type == "stdout":
            sys.stdout.write("running\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]))
