"""What all sandboxes with an agent have in common, whatever carries the agent's stdin and stdout."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from proxy_service.agent_events import AgentBroken, AgentError, AgentEvent, AgentGone, AgentSilent, EventStream
from proxy_service.agent_link import MAX_BODY_BYTES, AgentLink
from proxy_service.backends import agent_contexts
from proxy_service.backends.agent_contexts import AgentContexts
from proxy_service.backends.base import ExecRequest, FileRefused, SandboxEvent, SandboxSpec
from proxy_service.backends.languages import commands, source_file
from proxy_service.errors import (
    BodyTooLarge,
    Conflict,
    ProxyError,
    SandboxBroken,
    SandboxError,
    StdinClosed,
    TooManyWaiting,
    UnknownExecution,
    Unreachable,
    UnsupportedSpec,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

WORKDIR = "/sandbox"
FILES_TIMEOUT_S = 60.0
FILE_WAIT_S = 75.0
"""Longer than the agent lets a file operation go on: it is the agent that gives up on one, not we on the agent."""
MAX_FILE_OPERATIONS = 8
END_GRACE_S = 30.0
"""How long after its time-out an execution may take to end before its agent counts as broken."""
LOOK_AGAIN_S = 5.0
READY_PAUSE_S = 0.02
RELINK_WAIT_S = 5.0
"""How long a single request waits for a link that is being made again; what runs waits until that is given up."""
MAX_SILENCES = 2
CANCEL_ANSWER_S = 5.0
GREET_WITHIN_S = 20.0
"""How long an agent waits for the first hello of its life before it takes itself for forgotten."""
MAX_NOTED = 64
DEFAULT_MAX_BYTES = 64 * 1024 * 1024
"""What an agent may send for an execution whose output limit this proxy has not seen."""


def agent_config(
    secret: bytes,
    spec: SandboxSpec,
    *,
    user: int | None,
    rlimits: Mapping[str, int | None],
    env: Mapping[str, str],
    ends_with_proxy: bool = False,
) -> str:
    """Return the value of `SBX_AGENT`, from which an agent learns all that it must know at its start."""
    return json.dumps(
        {
            "secret": secret.hex(),
            "workdir": WORKDIR,
            "uid": user,
            "gid": user,
            "rlimits": dict(rlimits),
            "preload": list(spec.preload),
            "env": dict(env),
            "memory_limit_bytes": spec.limits.memory_bytes,
            "disk_limit_bytes": spec.limits.disk_bytes,
            "exit_on_eof": ends_with_proxy,
            "greet_within_s": GREET_WITHIN_S,
        }
    )


class AgentSandbox(AgentContexts):
    """A sandbox whose main process is an agent.

    A link that ends is replaced where the agent may have outlived it; readers of events go on without noticing.
    """

    def __init__(self, name: str, spec: SandboxSpec, link: AgentLink, *, created_at: float | None = None) -> None:
        super().__init__(name, spec, created_at=created_at)
        self.python = python if isinstance(python := link.hello.get("python"), str) else None
        self._link = link
        self._changed = asyncio.Event()
        self._destroyed = False
        self._background: set[asyncio.Task[None]] = set()
        self._max_bytes: dict[str, int] = {}
        self._deadlines: dict[str, float] = {}
        self._sources: dict[str, str] = {}
        self._file_places = asyncio.Semaphore(MAX_FILE_OPERATIONS)
        self._inputs: dict[str, asyncio.Event] = {}
        self._read_hello(link.hello)
        self._watcher = asyncio.create_task(self._watch())

    def _read_hello(self, hello: Mapping[str, Any]) -> None:
        assigned = hello.get("assigned")
        if isinstance(assigned, dict) and isinstance(assigned.get("session_id"), str):
            self.session_id = assigned["session_id"]
            self.assigned_digest = str(assigned.get("digest", ""))
        executions = hello.get("executions")
        if isinstance(executions, list):
            ids = (item.get("execution_id") for item in executions if isinstance(item, dict))
            self.execution_ids = tuple(key for key in ids if isinstance(key, str))

    async def ready(self, timeout_s: float) -> None:
        """Wait until what is to be preloaded is loaded.

        Raises:
            UnsupportedSpec: when something of it cannot be imported.
            SandboxBroken: when it takes longer than `timeout_s` seconds.
        """
        state, deadline, pause_s = dict(self._link.hello), time.monotonic() + timeout_s, READY_PAUSE_S
        while not state.get("ready"):
            if time.monotonic() > deadline:
                raise SandboxBroken(f"Preloading took longer than {timeout_s:g} s.")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.5)
            state = await self._ask("ping")
        if errors := state.get("preload_errors"):
            raise UnsupportedSpec(f"Not everything could be preloaded: {_said(errors)}.", field="preload")

    # --- the link and its successors

    @abstractmethod
    async def _relink(self, error: AgentGone) -> AgentLink | None:
        """Return a new link to the same agent, or None when it is dead."""

    @abstractmethod
    async def _remove(self) -> None:
        """Remove what the sandbox is made of; called once."""

    async def _watch(self) -> None:
        while True:
            error = await self._link.wait_broken()
            if self._destroyed:
                return
            link = await self._relink(error) if isinstance(error, AgentGone) else None
            if link is None:
                self.mark_broken(str(error))
            else:
                self._link = link
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
            if link is None:
                return

    async def reachable(self, wait_s: float) -> bool:
        if self._link.broken is None:
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._changed.wait()
        return self._link.broken is None or self.broken.is_set() or self._destroyed

    async def _live_link(self, wait_s: float | None = None) -> AgentLink:
        while True:
            if self._destroyed or self.broken.is_set():
                raise SandboxBroken(f"The sandbox is gone: {self.broken_reason or 'it was removed'}.")
            if self._link.broken is None:
                return self._link
            if wait_s is not None:
                if not await self.reachable(wait_s):
                    raise Unreachable
            else:
                await self._changed.wait()

    async def _use(self, ask: Callable[[AgentLink], Awaitable[T]], wait_s: float | None = None) -> T:
        """Ask the agent over the link, and again over its successor if it ends on the way.

        Wait for a successor as long as it may come, or `wait_s` seconds. Raises SandboxBroken, Unreachable.
        """
        silences = 0
        while True:
            link = await self._live_link(wait_s)
            try:
                return await ask(link)
            except AgentSilent as error:
                silences += 1
                if silences == MAX_SILENCES:
                    # It says hello, and has nothing to say to what it is asked.
                    self.mark_broken(str(error))
            except AgentGone:
                continue
            except AgentBroken as error:
                raise SandboxBroken(f"The sandbox broke: {error}.") from error

    def can_keep_contexts(self) -> bool:
        """Tell whether the code of this sandbox is Python's, and its agent can fork an interpreter."""
        return self.spec.lang == "python" and self._link.hello.get("can_contexts") is True

    async def _ask(self, op: str, body: bytes = b"", **fields: Any) -> dict[str, Any]:
        try:
            header, _ = await self._use(lambda link: link.request(op, body, **fields), RELINK_WAIT_S)
        except AgentError as error:
            raise _refusal(error, str(fields.get("execution_id", ""))) from error
        return header

    # --- what the proxy asks of a sandbox

    async def assign(self, session_id: str, digest: str, env: Mapping[str, str]) -> None:
        await self._ask("assign", session_id=session_id, digest=digest, env=dict(env))
        self.session_id, self.assigned_digest = session_id, digest

    async def execute(self, request: ExecRequest) -> AsyncIterator[SandboxEvent]:
        fields = _exec_fields(request)
        max_bytes = self._note(request)
        if "filename" in fields:
            self._sources[request.execution_id] = fields["filename"]
        try:
            stream = await self._use(
                lambda link: link.execute(request.execution_id, request.code, max_bytes=max_bytes, **fields)
            )
        except AgentError as error:
            raise _refusal(error, request.execution_id) from error
        self._started(request.execution_id)
        if request.stdin is not None and not stream.joined:
            self._inputs[request.execution_id] = asyncio.Event()
            self._spawn(self._send_first(request.execution_id, request.stdin, eof=not request.stdin_open))
        async for event in self._follow(request.execution_id, stream, 0):
            yield event

    def _note(self, request: ExecRequest) -> int:
        """Remember what bounds an execution; return how many bytes its two streams may have together."""
        known: dict[str, Any]
        for known in (self._max_bytes, self._deadlines, self._sources):
            for key in list(known)[: max(0, len(known) - MAX_NOTED)]:
                del known[key]
        self._deadlines[request.execution_id] = time.monotonic() + request.timeout_s + END_GRACE_S
        max_bytes = 2 * request.output_limit_bytes
        if request.context is not None:
            max_bytes += agent_contexts.MAX_RESULTS_BYTES
        self._max_bytes[request.execution_id] = max_bytes
        return max_bytes

    async def run_shell(self, request: ExecRequest, command: str, cwd: str | None) -> AsyncIterator[SandboxEvent]:
        """Run one shell line instead of the request's code."""
        fields = {**_exec_fields(request), "kind": "commands", "commands": [command], "cwd": cwd or WORKDIR}
        fields.pop("filename", None)
        max_bytes = self._note(request)
        stream = await self._use(lambda link: link.execute(request.execution_id, b"", max_bytes=max_bytes, **fields))
        self._started(request.execution_id)
        async for event in self._follow(request.execution_id, stream, 0):
            yield event

    async def events(self, execution_id: str, after: int = 0) -> AsyncIterator[SandboxEvent]:
        stream = await self._resume(execution_id, after)
        async for event in self._follow(execution_id, stream, after):
            yield event

    async def _resume(self, execution_id: str, after: int) -> EventStream:
        max_bytes = self._max_bytes.get(execution_id, DEFAULT_MAX_BYTES)
        try:
            return await self._use(lambda link: link.resume(execution_id, after, max_bytes=max_bytes))
        except AgentError as error:
            raise _refusal(error, execution_id) from error

    async def _follow(self, execution_id: str, stream: EventStream, after: int) -> AsyncIterator[SandboxEvent]:
        patience = _Patience(self._deadlines.get(execution_id), self._give_up)
        try:
            while True:
                try:
                    async for event in stream:
                        after = event.seq
                        if event.type == "exit":
                            self._clean_up(execution_id, event)
                        yield self._told(execution_id, event)
                    return
                except AgentGone:
                    stream = await self._resume(execution_id, after)
                except AgentBroken as error:
                    raise SandboxBroken(f"The sandbox broke: {error}.") from error
        finally:
            patience.cancel()
            stream.close()

    def _told(self, execution_id: str, event: AgentEvent) -> SandboxEvent:
        """Return an agent's event as the proxy tells it."""
        data = agent_contexts.told_data(event)
        return SandboxEvent(event.seq, event.type, event.at, data, event.body if data is event.fields else b"")

    def _clean_up(self, execution_id: str, event: AgentEvent) -> None:
        """Remove the file that code was compiled or interpreted from, unless something that it started may need it."""
        filename = self._sources.pop(execution_id, None)
        if filename is not None and not event.fields.get("background"):
            self._spawn(self._remove_file(filename))

    async def _remove_file(self, path: str) -> None:
        try:
            await self._ask("file_remove", path=path, recursive=False)
        except (AgentError, ProxyError) as error:
            log.info("sandbox %s: %s was not removed: %s", self.name, path, error)

    def _started(self, execution_id: str) -> None:
        """Note that code was started."""

    def _give_up(self) -> None:
        if self._link.broken is None:
            self._link.fail(AgentBroken("the agent does not end an execution whose time is over"))

    async def send_stdin(self, execution_id: str, data: bytes, *, eof: bool) -> int:
        if len(data) > MAX_BODY_BYTES:
            raise BodyTooLarge(f"At most {MAX_BODY_BYTES} bytes of input are taken at once.", field="body")
        if (first := self._inputs.get(execution_id)) is not None:
            await first.wait()
        answer = await self._ask("stdin", data, execution_id=execution_id, eof=eof)
        unread = answer.get("queued_bytes")
        return unread if isinstance(unread, int) else 0

    async def _send_first(self, execution_id: str, data: bytes, *, eof: bool) -> None:
        """Send what the code was given to read at its start; what is sent later waits for that."""
        try:
            await self._send_chunks(execution_id, data, eof=eof)
        finally:
            self._inputs.pop(execution_id).set()

    async def _send_chunks(self, execution_id: str, data: bytes, *, eof: bool) -> None:
        chunks = [data[start : start + MAX_BODY_BYTES] for start in range(0, len(data), MAX_BODY_BYTES)] or [b""]
        try:
            for number, chunk in enumerate(chunks, 1):
                link = await self._live_link()
                await link.request("stdin", chunk, execution_id=execution_id, eof=eof and number == len(chunks))
        except (AgentError, AgentBroken, SandboxError) as error:
            # Code need not read its input to the end; and what of it arrived before a link ended nobody can tell.
            log.info("sandbox %s: standard input was cut off: %s", self.name, error)

    async def cancel(self, execution_id: str) -> None:
        await self._ask("cancel", execution_id=execution_id, wait_s=CANCEL_ANSWER_S)

    async def put_tar(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        buffer, sent = bytearray(), 0
        async with self.unpacking:
            async for chunk in chunks:
                buffer += chunk
                while len(buffer) > MAX_BODY_BYTES:
                    await self._untar(path, bytes(buffer[:MAX_BODY_BYTES]), sent, more=True)
                    del buffer[:MAX_BODY_BYTES]
                    sent += MAX_BODY_BYTES
            await self._untar(path, bytes(buffer), sent, more=False)

    async def _untar(self, path: str, part: bytes, offset: int, *, more: bool) -> None:
        """Send a part of an archive; one that begins at 0 is another than what was sent before and given up."""
        await self._ask("untar", part, path=path, offset=offset, more=more, wait_s=FILES_TIMEOUT_S)

    async def write_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Write a file of the workspace."""
        for start in range(0, max(len(data), 1), MAX_BODY_BYTES):
            part = data[start : start + MAX_BODY_BYTES]
            more = start + MAX_BODY_BYTES < len(data)
            await self._ask("file_write", part, path=path, mode=mode, offset=start, more=more)

    async def file_operation(self, op: str, body: bytes = b"", **fields: Any) -> tuple[dict[str, Any], bytes]:
        # They wait for each other here: what is one too many the agent would refuse.
        async with self._file_places:
            try:
                return await self._use(lambda link: link.request(op, body, wait_s=FILE_WAIT_S, **fields))
            except AgentError as error:
                raise FileRefused(error.code, error.message) from error

    async def stats(self) -> dict[str, Any]:
        return await self._ask("stats")

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def let_go(self) -> None:
        """End the link and whatever watches it; the agent goes on where nothing else holds it."""
        self._destroyed = True
        self._link.close()
        tasks = [task for task in (self._watcher, *self._background) if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def destroy(self) -> None:
        if not self._destroyed:
            await self.let_go()
            self.forget(self)
            await self._remove()


class _Patience:
    """Give up at an instant of the monotonic clock, after a second look: the proxy itself may have been stopped."""

    def __init__(self, deadline: float | None, give_up: Callable[[], None]) -> None:
        self._give_up = give_up
        self._timer: asyncio.TimerHandle | None = None
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_later(deadline - time.monotonic(), self._look_again)

    def _look_again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._give_up)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _exec_fields(request: ExecRequest) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "kind": "python",
        "env": dict(request.env),
        "timeout_s": request.timeout_s,
        "output_limit_bytes": request.output_limit_bytes,
        "stdin": "data" if request.stdin is not None or request.stdin_open else "none",
        "python_path": list(request.python_path),
    }
    if request.context is not None:
        fields.update(kind="context", context_id=request.context)
    elif request.lang != "python":
        filename = source_file(request.lang)
        fields.update(kind="commands", filename=filename, commands=commands(request.lang, filename))
    return fields


def _said(errors: Any) -> str:
    if not isinstance(errors, dict):
        return "the agent does not say what"
    return "; ".join(f"{name}: {error}" for name, error in errors.items())[:1000]


def _refusal(error: AgentError, execution_id: str) -> Exception:
    if error.code == "unknown_execution":
        return UnknownExecution(execution_id)
    if error.code == "stdin_closed":
        return StdinClosed("The execution does not read standard input, or not any more.")
    if error.code == "stdin_full":
        return TooManyWaiting("The code has not read what it was sent.")
    if error.code == "assigned":
        return Conflict("The sandbox belongs to another session.")
    if (about_contexts := agent_contexts.refusal(error)) is not None:
        return about_contexts
    return SandboxError(f"The sandbox refused: {error}.")
