"""What the server runs, put together from the settings."""

from __future__ import annotations

import asyncio
import logging

from proxy_service.backends import load_backend
from proxy_service.backends.base import Backend, ExecRequest, Sandbox
from proxy_service.errors import ShuttingDown, UnsupportedSpec
from proxy_service.execution import Execution, Prepare
from proxy_service.library_cache import LibraryCache
from proxy_service.package_managers import ENVIRONMENTS
from proxy_service.schemas import ExecuteBody
from proxy_service.sessions import ProxySession, Sessions
from proxy_service.settings import Settings
from proxy_service.startup import Startup
from proxy_service.teardown import Teardown

log = logging.getLogger(__name__)


def check_contexts(sandbox: Sandbox, *, lang: str = "python") -> None:
    """Make sure that a sandbox can keep contexts of a language. Raises UnsupportedSpec."""
    if sandbox.spec.lang != "python":
        detail = f"Contexts run Python alone; this is a session of {sandbox.spec.lang}."
        raise UnsupportedSpec(detail, field="context")
    if not sandbox.capabilities.get("contexts"):
        raise UnsupportedSpec("The sandbox of this session keeps no contexts.", field="context")
    if lang != "python":
        raise UnsupportedSpec(f"Contexts run Python alone, not {lang!r}.", field="lang")


class Service:
    """Hold the backend, the sessions with their warm pool, and the libraries of one proxy."""

    def __init__(self, settings: Settings, backend: Backend | None = None) -> None:
        self.settings = settings
        self.backend = backend or load_backend(settings)
        self.teardown = Teardown()
        self.cache = LibraryCache(
            settings.libraries_dir, max_bytes=int(settings.library_cache_size), timeout_s=settings.library_timeout_s
        )
        self.sessions = Sessions(self.backend, self.teardown, self.cache, settings)
        self.startup = Startup(self.backend, self.sessions)

    @property
    def languages(self) -> list[str]:
        """Return the names of what can run here."""
        return [str(item["lang"]) for item in self.backend.languages()]

    async def start(self) -> None:
        """Start the backend and take over what an earlier proxy left. Raises BackendUnavailable."""
        await self.startup.begin()

    async def finish(self) -> None:
        """Finish or hand over what runs; what is asked for from now on is refused. Doing it again changes nothing."""
        self.sessions.stopping = True
        await self.startup.stop()
        await self.sessions.close()

    async def stop(self) -> None:
        """Finish what can be finished in time, drain the pool, let the sandboxes go."""
        await self.finish()
        try:
            # What an engine does not answer is found again by the next proxy.
            async with asyncio.timeout(self.settings.stop_timeout_s):
                await self.cache.close()
                await self.backend.close()
        except TimeoutError:
            log.error("not everything could be let go of in time")

    def submit(self, session: ProxySession, execution_id: str, body: ExecuteBody) -> Execution:
        """Queue an execution of a session; its libraries are brought when its turn has come.

        Raises LibraryError, TooManyWaiting, ShuttingDown.
        """
        if self.sessions.stopping:
            raise ShuttingDown
        libraries = session.libraries
        requirements = libraries.check(body.libraries) if body.libraries else ()
        prepare: Prepare | None = None
        # What runs before it may add libraries too, so its path is known only then.
        if session.executions.live or not libraries.has(requirements):

            async def prepare() -> tuple[str, ...]:
                return await libraries.provide(requirements)

        if body.context is not None:
            check_contexts(session.sandbox)
        settings, env = self.settings, body.env
        if own := ENVIRONMENTS.get(session.sandbox.spec.lang):
            env = {**own, **env}
        request = ExecRequest(
            execution_id=execution_id,
            code=body.code.encode(),
            lang=session.sandbox.spec.lang,
            timeout_s=body.timeout or settings.default_timeout_s,
            output_limit_bytes=body.output_limit_bytes or settings.default_output_limit_bytes,
            env=env,
            stdin=None if body.stdin is None else body.stdin.encode(),
            stdin_open=body.stdin_stream,
            python_path=libraries.python_path,
            context=body.context,
        )
        return session.executions.submit(request, prepare)

    def gauges(self) -> dict[str, float]:
        """Return the present numbers for the metrics."""
        live = [len(session.executions.live) for session in self.sessions.all()]
        return {
            "active_sessions": len(live),
            "busy_sessions": sum(map(bool, live)),
            "live_executions": sum(live),
            "sandboxes_ending": self.teardown.pending,
        }

    def pool(self) -> dict[str, dict[str, object]]:
        """Return the warm pool's state for the metrics."""
        return self.sessions.pool.state()
