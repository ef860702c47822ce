"""Executions: in order within a session, joined by their id, never run twice.

A task of the session drives them, not the request that asked: a caller that goes away changes nothing. What the
proxy holds of an execution it forgets once somebody has read its end; whoever asks later is served from the sandbox's
own journal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from proxy_service import metrics
from proxy_service.backends.base import ExecRequest, Sandbox, SandboxEvent
from proxy_service.errors import (
    LibraryError,
    ProxyError,
    SandboxBroken,
    ShuttingDown,
    StdinClosed,
    TooManyWaiting,
    UnknownExecution,
    Unreachable,
)
from proxy_service.execution import Execution, Prepare
from proxy_service.watching import Watcher

log = logging.getLogger(__name__)

END_MARGIN_S = 180.0
"""How long after its time-out an execution may take to end before its sandbox counts as broken.

Longer than an engine may be away: a sandbox that can be reached is found out sooner, by what speaks to its agent.
"""
CANCEL_TIMEOUT_S = 12.0
RELINK_WAIT_S = 5.0
JOURNAL_TIMEOUT_S = 10.0
BEGIN_PATIENCE_S = 5.0
MAX_FINISHED_IDS = 4096
MAX_UNSTARTED = 64


class Executions:
    """The executions of one session."""

    def __init__(
        self, sandbox: Sandbox, *, max_waiting: int, keep: Callable[[Execution], None] = lambda execution: None
    ) -> None:
        self._sandbox = sandbox
        self._max_waiting = max_waiting
        self._keep = keep
        self._held: dict[str, Execution] = {}
        self._revived: dict[str, Execution] = {}
        self._waiting: deque[Execution] = deque()
        self._finished: OrderedDict[str, None] = OrderedDict.fromkeys(sandbox.execution_ids)
        self._unstarted: OrderedDict[str, Execution] = OrderedDict()
        self._pump: asyncio.Task[None] | None = None
        self._revivals: set[asyncio.Task[None]] = set()
        self._watchers: set[Watcher] = set()
        self.running: Execution | None = None
        self.last_activity_at = time.time()
        self._ended_as = "lost"
        if sandbox.execution_ids:
            # Only the newest may still run; following it keeps what comes after it in order.
            self._enqueue(Execution(None, sandbox.execution_ids[-1], lang=sandbox.spec.lang))

    @property
    def live(self) -> list[Execution]:
        """Return what runs and what waits, in order."""
        return [*([self.running] if self.running is not None else []), *self._waiting]

    @property
    def waiting(self) -> int:
        """Return how many executions wait."""
        return len(self._waiting)

    # --- asking

    def submit(self, request: ExecRequest, prepare: Prepare | None = None) -> Execution:
        """Start an execution, queue it, or join the one of that id. Raises TooManyWaiting."""
        known = self._held.get(request.execution_id) or self._unstarted.get(request.execution_id)
        if known is not None:
            return known
        if request.execution_id in self._finished:
            return self.find(request.execution_id)
        if len(self._waiting) >= self._max_waiting + (self.running is None):
            raise TooManyWaiting(f"{self._max_waiting} executions of this session are waiting already.")
        return self._enqueue(Execution(request, request.execution_id, prepare, lang=request.lang))

    def find(self, execution_id: str) -> Execution:
        """Return an execution, read from the sandbox's journal if need be; it may turn out to be unknown there."""
        known = self._held.get(execution_id) or self._unstarted.get(execution_id)
        return known or self._revived.get(execution_id) or self._revive(execution_id)

    async def cancel(self, execution_id: str) -> bool:
        """End an execution with all its processes; False when it had ended. Raises UnknownExecution, SandboxBroken."""
        execution = self._held.get(execution_id)
        if execution is None or execution.request is None:
            if execution_id in self._unstarted:
                return False
            await self._cancel_in_sandbox(execution_id)
            return execution is not None and not execution.done
        execution.cancel_requested.set()
        if execution in self._waiting:
            self._waiting.remove(execution)
            self._end_unstarted(execution, "cancelled")
        elif execution.begun:
            with suppress(UnknownExecution):
                await self._cancel_in_sandbox(execution_id)
        return True

    async def send_stdin(self, execution_id: str, data: bytes, *, eof: bool) -> int:
        """Pass bytes on to code that runs; return how many wait there to be read.

        Raises UnknownExecution, StdinClosed, TooManyWaiting (the code does not read), SandboxBroken.
        """
        execution = self._held.get(execution_id)
        if execution is None:
            if execution_id in self._finished or execution_id in self._unstarted:
                raise StdinClosed("The execution has ended.")
            raise UnknownExecution(execution_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_PATIENCE_S):
                while not (execution.begun or execution.done or execution in self._waiting):
                    await execution.transcript.changed()
        if execution.done:
            raise StdinClosed("The execution has ended.")
        if not execution.begun:
            raise StdinClosed("The execution has not begun: it waits for earlier ones, or for its libraries.")
        async with execution.input_lock:
            return await self._sandbox.send_stdin(execution_id, data, eof=eof)

    async def _cancel_in_sandbox(self, execution_id: str) -> None:
        try:
            await asyncio.wait_for(self._sandbox.cancel(execution_id), CANCEL_TIMEOUT_S)
        except TimeoutError:
            if not await self._sandbox.reachable(0):
                raise Unreachable from None
            self._sandbox.mark_broken("it did not answer a cancellation")
            raise SandboxBroken("The sandbox did not answer the cancellation.") from None

    @contextmanager
    def watched(self, since: tuple[str, int] | None = None) -> Iterator[Watcher]:
        """Watch the session: from the beginning of what runs now, or on after event `since` of an execution."""
        found: list[tuple[Execution, int]] = []
        running = [] if self.running is None else [(self.running, 0)]
        if since is not None:
            known = [*self._finished, *(execution.id for execution, _ in running)]
            if since[0] in known:
                later = known[known.index(since[0]) + 1 :]
                found = [(self.find(since[0]), since[1]), *((self.find(key), 0) for key in later)]
        last = next(reversed(self._finished), None) if since is None else None
        watcher = Watcher(found or running, has_gap=since is not None and not found, after=last)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def _tell_watchers(self, execution: Execution) -> None:
        for watcher in self._watchers:
            watcher.add(execution)

    # --- driving

    def _enqueue(self, execution: Execution) -> Execution:
        self._held[execution.id] = execution
        self._waiting.append(execution)
        if self._pump is None:
            self._pump = asyncio.create_task(self._drive_all())
        return execution

    async def _drive_all(self) -> None:
        try:
            while self._waiting:
                self.running = execution = self._waiting.popleft()
                self._tell_watchers(execution)
                try:
                    await self._drive(execution)
                except Exception:
                    log.exception("execution %s: the proxy failed", execution.id)
                    execution.finish_as("error", error=ProxyError("The proxy failed to run the code."))
                finally:
                    self.last_activity_at = time.time()
                    self.running = None
                    self._held.pop(execution.id, None)
        finally:
            self._pump = None

    async def _drive(self, execution: Execution) -> None:
        request, limit_s = execution.request, None
        try:
            if request is None:
                events = self._sandbox.events(execution.id, 0)
            else:
                if execution.prepare is not None:
                    python_path = await self._prepared(execution, execution.prepare)
                    if python_path is None:
                        return self._end_unstarted(execution, "cancelled")
                    request = _with_path(request, python_path)
                events = self._sandbox.execute(request)
                limit_s = request.timeout_s + END_MARGIN_S
            async with asyncio.timeout(limit_s):
                await self._record(execution, events)
        except LibraryError as error:
            return self._end_unstarted(execution, "not_started", error)
        except TimeoutError:
            # Where there is an engine between, what waits for the end waits for the engine too, and no longer.
            self._sandbox.mark_broken("it did not end an execution at its time-out")
            execution.finish_as("lost", "The sandbox did not end the execution at its time-out.")
        except SandboxBroken as error:
            execution.finish_as(self._ended_as, error.detail)
        except UnknownExecution as error:
            execution.finish(error)
        except ProxyError as error:
            if not execution.begun:
                return self._end_unstarted(execution, "error", error)
            execution.finish_as("error", error.detail, error)
        self._finish(execution)

    async def _prepared(self, execution: Execution, prepare: Prepare) -> tuple[str, ...] | None:
        """Wait for what the execution needs first; None when it was cancelled meanwhile."""
        work = asyncio.ensure_future(prepare())
        stop = asyncio.ensure_future(execution.cancel_requested.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            stop.cancel()
            work.cancel()

    async def _record(self, execution: Execution, events: AsyncIterator[SandboxEvent]) -> None:
        transcript = execution.transcript
        async for event in events:
            transcript.append(event)
            if not execution.begun:
                execution.begun = True
                if execution.cancel_requested.is_set():
                    with suppress(Unreachable):
                        await self._cancel_in_sandbox(execution.id)
            if execution.done:
                return
        if transcript.end is None:
            raise SandboxBroken("The sandbox told no end of the execution.")
        execution.finish()

    def _finish(self, execution: Execution) -> None:
        end = execution.transcript.end
        if end is not None:
            metrics.count_execution(str(end["status"]), end.get("duration_ms"))
            self._keep(execution)
        self._finished[execution.id] = None
        while len(self._finished) > MAX_FINISHED_IDS:
            self._finished.popitem(last=False)

    def _end_unstarted(self, execution: Execution, reason: str, error: ProxyError | None = None) -> None:
        """End an execution whose code never ran; its sandbox knows nothing of it, so it is remembered here."""
        self._held.pop(execution.id, None)
        self._unstarted[execution.id] = execution
        while len(self._unstarted) > MAX_UNSTARTED:
            self._unstarted.popitem(last=False)
        execution.finish_as(reason, error.detail if error is not None else "", error)
        self._tell_watchers(execution)
        metrics.count_execution(str((execution.transcript.end or {}).get("status")), None)

    def _revive(self, execution_id: str) -> Execution:
        """Read an execution that the proxy no longer holds from the sandbox's journal.

        Kept apart from what is held: whoever submits an id that was asked for too early does not join a 404.
        """
        execution = self._revived[execution_id] = Execution(None, execution_id, lang=self._sandbox.spec.lang)
        execution.is_revived = True

        async def read() -> None:
            try:
                if not await self._sandbox.reachable(RELINK_WAIT_S):
                    raise Unreachable
                async with asyncio.timeout(JOURNAL_TIMEOUT_S) as limit:
                    async for event in self._sandbox.events(execution_id, 0):
                        limit.reschedule(None)
                        execution.transcript.append(event)
                execution.finish()
            except TimeoutError:
                reachable = await self._sandbox.reachable(0)
                execution.finish(SandboxBroken("The sandbox did not answer.") if reachable else Unreachable())
            except ProxyError as error:
                execution.finish(error)
            except Exception:
                log.exception("execution %s: its journal cannot be read", execution_id)
                execution.finish(SandboxBroken("The sandbox's journal cannot be read."))
            finally:
                # Whoever follows is let go, also when the session ends meanwhile.
                execution.finish(SandboxBroken("The session has ended."))
                del self._revived[execution_id]

        task = asyncio.create_task(read())
        self._revivals.add(task)
        task.add_done_callback(self._revivals.discard)
        return execution

    # --- ending

    def end(self, reason: str) -> list[Execution]:
        """End all that is live, because the sandbox is gone (`lost`) or goes (`cancelled`); return it."""
        self._ended_as = reason
        ended = self.live
        for execution in (*ended, *self._unstarted.values()):
            execution.finish_as(reason)
            self._keep(execution)
        for execution in self._waiting:
            self._tell_watchers(execution)
        self._close_watchers()
        self._waiting.clear()
        return ended

    def hand_over(self, *, outlives: bool) -> None:
        """Let go because the proxy stops; what runs in a sandbox that outlives it is found again by the next one."""
        for execution in self.live:
            if outlives or not execution.begun:
                execution.finish(ShuttingDown())
            else:
                execution.finish_as("lost")
        self._close_watchers()
        self._waiting.clear()

    def refuse_waiting(self) -> None:
        """Tell those whose code has not begun that the proxy stops."""
        while self._waiting:
            self._waiting.popleft().finish(ShuttingDown())

    def _close_watchers(self) -> None:
        for watcher in self._watchers:
            watcher.close()

    async def stop(self) -> None:
        """End the tasks that drive."""
        tasks = [task for task in (self._pump, *self._revivals) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _with_path(request: ExecRequest, python_path: tuple[str, ...]) -> ExecRequest:
    return replace(request, python_path=python_path)
