"""The sessions that this proxy's backend really runs, by id."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from proxy_service import metrics
from proxy_service.backends.base import Backend, Sandbox, SandboxSpec
from proxy_service.errors import (
    Conflict,
    LibraryError,
    ProxyError,
    ShuttingDown,
    StartTimedOut,
    StillFinding,
    Unavailable,
    UnknownSession,
)
from proxy_service.execution import Execution
from proxy_service.executions import Executions
from proxy_service.files import Files
from proxy_service.kept import KeptExecutions
from proxy_service.libraries import SessionLibraries
from proxy_service.library_cache import LibraryCache
from proxy_service.pool import Pool
from proxy_service.settings import Settings
from proxy_service.teardown import Teardown

log = logging.getLogger(__name__)

LAST_WORDS_S = 1.0
"""How long what a dead sandbox said last may take to arrive."""


class ProxySession:
    """One session: its sandbox, its executions and the libraries that it has."""

    def __init__(
        self,
        session_id: str,
        sandbox: Sandbox,
        *,
        cache: LibraryCache,
        settings: Settings,
        source: str,
        keep: Callable[[Execution], None],
    ) -> None:
        self.id = session_id
        self.sandbox = sandbox
        self.pooled = source == "pool"
        self.executions = Executions(sandbox, max_waiting=settings.max_waiting_executions, keep=keep)
        self.files = Files(
            sandbox, max_upload_bytes=int(settings.max_upload_size), max_members=settings.max_archive_members
        )
        self.libraries = SessionLibraries(sandbox, cache, found_again=source == "found")

    def describe(self) -> dict[str, Any]:
        """Return the session as the routes answer it."""
        sandbox = self.sandbox
        return {
            "session_id": self.id,
            "status": "active",
            "lang": sandbox.spec.lang,
            "template": sandbox.spec.template,
            "sandbox": sandbox.name,
            "backend": sandbox.capabilities.get("backend"),
            "capabilities": sandbox.capabilities,
            "created_at": sandbox.created_at,
            "last_activity_at": self.executions.last_activity_at,
            "pooled": self.pooled,
            "busy": bool(self.executions.live),
        }


class Sessions:
    """Create, find and end sessions; notice those whose sandbox dies."""

    def __init__(self, backend: Backend, teardown: Teardown, cache: LibraryCache, settings: Settings) -> None:
        self._backend = backend
        self._teardown = teardown
        self._cache = cache
        self._settings = settings
        self._sessions: dict[str, ProxySession] = {}
        self._creating: dict[str, tuple[str, asyncio.Task[ProxySession]]] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._starting = 0
        self.kept = KeptExecutions()
        self.finding = False
        """Whether sandboxes of an earlier proxy may still turn up: until then nobody is told that he is unknown."""
        self.pool = Pool(self._make_for_pool, teardown, parallel_starts=settings.pool_parallel_starts)
        self.stopping = False

    def __len__(self) -> int:
        return len(self._sessions)

    def complete(self) -> list[ProxySession]:
        """Return every session that runs. Raises StillFinding while there may be others."""
        if self.finding:
            raise StillFinding
        return self.all()

    def all(self) -> list[ProxySession]:
        """Return every session that is known to run."""
        return list(self._sessions.values())

    def get(self, session_id: str) -> ProxySession:
        """Return a session. Raises UnknownSession."""
        try:
            return self._sessions[session_id]
        except KeyError:
            raise self._unknown(session_id) from None

    def _unknown(self, session_id: str) -> ProxyError:
        return StillFinding() if self.finding else UnknownSession(session_id)

    def find_execution(self, session_id: str, execution_id: str) -> Execution:
        """Return an execution, also one whose sandbox is gone, while it is kept. Raises UnknownSession."""
        return self.kept.get(session_id, execution_id) or self.get(session_id).executions.find(execution_id)

    def was_read(self, session_id: str, execution_id: str) -> None:
        """Note that somebody has the whole of an execution; its sandbox can tell it again, if it still runs."""
        if session_id in self._sessions:
            self.kept.drop(session_id, execution_id)

    def adopt(self, sandbox: Sandbox) -> None:
        """Take over a sandbox that an earlier proxy left; one without a session was in its pool and goes."""
        if sandbox.session_id is None or sandbox.session_id in self._sessions:
            self._teardown.begin(sandbox)
        else:
            self._add(sandbox.session_id, sandbox, "found")

    # --- creating

    async def create(
        self,
        session_id: str,
        spec: SandboxSpec,
        env: Mapping[str, str],
        digest: str,
        *,
        libraries: Sequence[str] = (),
    ) -> tuple[ProxySession, bool]:
        """Return the session and whether it was made now; a caller that leaves does not stop it.

        It has its `libraries` beside its template's when it is there. The same id with the same request gives the
        same sandbox; with another request it raises Conflict.
        """
        known = self._sessions.get(session_id)
        if known is not None:
            _check_digest(known.sandbox.assigned_digest, digest)
            return known, False
        if self.stopping:
            raise ShuttingDown
        made = session_id not in self._creating
        if made:
            task = asyncio.create_task(self._make_session(session_id, spec, env, digest, libraries))
            self._creating[session_id] = digest, task
            task.add_done_callback(lambda done: self._made(session_id, done))
        wanted, task = self._creating[session_id]
        _check_digest(wanted, digest)
        await asyncio.wait({task})
        if task.cancelled():
            raise ShuttingDown if self.stopping else UnknownSession(session_id)
        return task.result(), made

    def _made(self, session_id: str, task: asyncio.Task[ProxySession]) -> None:
        self._creating.pop(session_id, None)
        # Look at the error, in case that nobody who asked is left to take it.
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("session %s was not made: %r", session_id, error)

    async def _make_session(
        self, session_id: str, spec: SandboxSpec, env: Mapping[str, str], digest: str, libraries: Sequence[str]
    ) -> ProxySession:
        sandbox = self.pool.take(spec)
        if sandbox is not None:
            try:
                await self._assign(sandbox, session_id, digest, env)
                await self._provide(sandbox, libraries)
                return self._add(session_id, sandbox, "pool")
            except LibraryError:
                self._teardown.begin(sandbox)
                raise
            except ProxyError as error:
                log.warning("pooled sandbox %s: %s", sandbox.name, error.detail)
                self._teardown.begin(sandbox)
            except BaseException:
                self._teardown.begin(sandbox)
                raise
        if self._taken >= self._settings.max_sandboxes and not self.pool.evict():
            raise Unavailable(f"This server runs {self._taken} sandboxes already, as many as it may.")
        sandbox = await self._make(spec)
        try:
            await self._assign(sandbox, session_id, digest, env)
            await self._provide(sandbox, libraries)
            return self._add(session_id, sandbox, "cold")
        except BaseException:
            self._teardown.begin(sandbox)
            raise

    async def _assign(self, sandbox: Sandbox, session_id: str, digest: str, env: Mapping[str, str]) -> None:
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                await sandbox.assign(session_id, digest, env)
        except TimeoutError:
            raise StartTimedOut(self._settings.start_timeout_s) from None

    async def _make_for_pool(self, spec: SandboxSpec) -> Sandbox:
        if self._taken >= self._settings.max_sandboxes:
            raise Unavailable(f"This server runs {self._taken} sandboxes already, as many as it may.")
        return await self._make(spec)

    @property
    def _taken(self) -> int:
        return len(self._sessions) + self._starting + self.pool.ready

    async def _make(self, spec: SandboxSpec) -> Sandbox:
        self._starting += 1
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.create_timeout_s):
                sandbox = await self._backend.create(spec, f"sbx-{secrets.token_hex(6)}")
        except (ProxyError, TimeoutError) as error:
            metrics.count_start(None)
            if isinstance(error, TimeoutError):
                raise StartTimedOut(self._settings.create_timeout_s) from None
            raise
        finally:
            self._starting -= 1
        metrics.count_start(time.monotonic() - began)
        try:
            await self._provide(sandbox, spec.libraries)
        except BaseException:
            self._teardown.begin(sandbox)
            raise
        return sandbox

    async def _provide(self, sandbox: Sandbox, libraries: Sequence[str]) -> None:
        if libraries:
            given = SessionLibraries(sandbox, self._cache)
            await given.provide(given.check(libraries))

    def _add(self, session_id: str, sandbox: Sandbox, source: str) -> ProxySession:
        keep = partial(self.kept.put, session_id)
        session = ProxySession(
            session_id, sandbox, cache=self._cache, settings=self._settings, source=source, keep=keep
        )
        self._sessions[session_id] = session
        self._watchers[session_id] = asyncio.create_task(self._watch(session))
        metrics.count_session(source)
        return session

    # --- ending

    async def _watch(self, session: ProxySession) -> None:
        await session.sandbox.broken.wait()
        log.warning("session %s lost its sandbox: %s", session.id, session.sandbox.broken_reason)
        metrics.count_lost()
        running = session.executions.running
        if running is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(running.wait(), LAST_WORDS_S)
        self._watchers.pop(session.id, None)
        self._forget(session, "lost")

    def end(self, session_id: str) -> None:
        """End a session at once; its sandbox is removed in the background. Raises UnknownSession."""
        if session_id in self._creating:
            self._creating[session_id][1].cancel()
            return
        session = self.get(session_id)
        watcher = self._watchers.pop(session_id, None)
        if watcher is not None:
            watcher.cancel()
        self._forget(session, "cancelled")

    def _forget(self, session: ProxySession, reason: str) -> None:
        self._sessions.pop(session.id, None)
        # Whoever waits for an execution of this session learns that it is over.
        session.executions.end(reason)
        self._teardown.begin(session.sandbox, session.executions.stop)

    async def close(self) -> None:
        """Let running executions finish for a while, then let go of what is left; nobody is left waiting.

        What is asked for meanwhile is refused. Doing it again changes nothing.
        """
        self.stopping = True
        for _, task in list(self._creating.values()):
            task.cancel()
        for session in self.all():
            session.executions.refuse_waiting()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pool.drain())
            group.create_task(self._finish_running(self._settings.stop_timeout_s / 2))
        for watcher in self._watchers.values():
            watcher.cancel()
        for session in self.all():
            session.executions.hand_over(outlives=bool(session.sandbox.capabilities.get("resume")))
        await asyncio.gather(*(session.executions.stop() for session in self.all()))
        await self._teardown.wait(self._settings.stop_timeout_s / 4)

    async def _finish_running(self, timeout_s: float) -> None:
        running = [asyncio.ensure_future(item.wait()) for session in self.all() for item in session.executions.live]
        if running:
            _, late = await asyncio.wait(running, timeout=timeout_s)
            for waiter in late:
                waiter.cancel()


def _check_digest(known: str | None, digest: str) -> None:
    if known != digest:
        raise Conflict("This session_id was used for another session.", field="session_id")
