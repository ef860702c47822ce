"""Sandboxes that are nothing but memory: for tests and for measuring the proxy alone. No code is run.

What a fake sandbox "runs" is a script, one word and its argument a line:

    print TEXT      write TEXT and a newline to standard output
    error TEXT      write TEXT and a newline to standard error
    bytes HEX       write these raw bytes to standard output
    flood N         write N bytes to standard output
    env NAME        write the value of an environment variable
    path            write the python path
    stdin           write what came on standard input
    read            wait for more standard input and write that; `end` at its end
    sleep S         take S seconds
    wait            take until `FakeBackend.go_on` is set
    exit N          end with this exit code
    result TEXT     show TEXT as the value of the code, where a context keeps its state
    raise NAME TEXT end with an exception that nothing catches, likewise
    set TEXT        keep TEXT in the context
    get             write what the context keeps
    oom             end as the kernel ends a process that took too much memory
    die             the whole sandbox dies

A word that is none of these ends the script with exit code 1 and a message on standard error, as a wrong program does.
"""

from __future__ import annotations

import asyncio
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from proxy_service.backends.base import Backend, ContextState, ExecRequest, Sandbox, SandboxEvent, SandboxSpec
from proxy_service.errors import (
    Conflict,
    ProxyError,
    SandboxBroken,
    SandboxError,
    SandboxStartFailed,
    StdinClosed,
    TooManyContexts,
    UnknownContext,
    UnknownExecution,
    UnsupportedLanguage,
)

if TYPE_CHECKING:
    from proxy_service.settings import Settings

VERSIONS = {"python": "3.11.2", "javascript": "18.19.0", "bash": "5.2.15"}
JOURNAL_LENGTH = 32
MAX_CONTEXTS = 8


class FakeRun:
    """One execution with its journal, as an agent keeps it; it goes on whether or not anyone follows."""

    def __init__(self, request: ExecRequest, sandbox: FakeSandbox) -> None:
        self.request = request
        self.events: list[SandboxEvent] = []
        self.news = asyncio.Event()
        self._sandbox = sandbox
        self.input: asyncio.Queue[bytes] = asyncio.Queue()
        self.input_open = request.stdin_open
        self._began = time.monotonic()
        self._sent = {"stdout": 0, "stderr": 0}
        self._tails = {"stdout": bytearray(), "stderr": bytearray()}
        self._add("started")
        self.task = asyncio.create_task(self._run())

    @property
    def ended(self) -> bool:
        """Tell whether the last event is there."""
        return self.events[-1].type == "exit"

    async def follow(self, after: int) -> AsyncIterator[SandboxEvent]:
        """Replay what comes after a sequence number, then follow."""
        broken = self._sandbox.broken
        while True:
            news = self.news
            for event in self.events[after:]:
                after = event.seq
                yield event
            if self.ended:
                return
            if broken.is_set():
                raise SandboxBroken(f"The sandbox is gone: {self._sandbox.broken_reason}.")
            await news.wait()

    def wake(self) -> None:
        """Let every follower look again."""
        news, self.news = self.news, asyncio.Event()
        news.set()

    def _add(self, kind: str, body: bytes = b"", **data: Any) -> None:
        self.events.append(SandboxEvent(len(self.events) + 1, kind, time.time(), data, body))
        self.wake()

    async def _run(self) -> None:
        reason, exit_code = "exited", None
        try:
            exit_code = await asyncio.wait_for(self._script(), self.request.timeout_s)
        except TimeoutError:
            reason = "timed_out"
        except MemoryError:
            reason = "out_of_memory"
        except asyncio.CancelledError:
            if self._sandbox.broken.is_set():
                raise
            reason = "cancelled"
        self._send_tails()
        context = self.request.context
        in_context: dict[str, Any] = {} if context is None else {"context_id": context, "context_restarted": False}
        self._add(
            "exit",
            exit_code=exit_code,
            signal=None if reason == "exited" else 9,
            reason=reason,
            duration_ms=round((time.monotonic() - self._began) * 1000, 3),
            cpu_ms=1,
            max_rss_bytes=8 * 1024 * 1024,
            stdout_bytes=self._sent["stdout"],
            stderr_bytes=self._sent["stderr"],
            background=0,
            **in_context,
        )

    async def _script(self) -> int:
        for line in self.request.code.decode("utf-8", "replace").splitlines():
            word, _, argument = line.strip().partition(" ")
            if word == "exit":
                return int(argument or 0)
            if word and not await self._step(word, argument):
                self._write("stderr", f"unknown word: {word[:80]}\n".encode())
                return 1
            if word == "raise":
                return 1
        return 0

    async def _step(self, word: str, argument: str) -> bool:
        match word:
            case "print":
                self._write("stdout", f"{argument}\n".encode())
            case "error":
                self._write("stderr", f"{argument}\n".encode())
            case "bytes":
                self._write("stdout", bytes.fromhex(argument))
            case "flood":
                self._write("stdout", b"x" * int(argument))
            case "env":
                self._write("stdout", f"{({**self._sandbox.env, **self.request.env}).get(argument, '')}\n".encode())
            case "path":
                self._write("stdout", f"{':'.join(self.request.python_path)}\n".encode())
            case "stdin":
                self._write("stdout", self.request.stdin or b"")
            case "read":
                self._write("stdout", await self.input.get() or b"end\n")
            case "sleep":
                await asyncio.sleep(float(argument))
            case "wait":
                await self._sandbox.backend.go_on.wait()
            case "result":
                self._add("result", text=argument, is_main_result=True)
            case "raise":
                name, _, value = argument.partition(" ")
                self._add("error", name=name, value=value, traceback=[f"{name}: {value}"])
            case "set" | "get" if self.request.context is not None:
                kept = self._sandbox.kept
                if word == "set":
                    kept[self.request.context] = argument
                self._write("stdout", f"{kept.get(self.request.context, '')}\n".encode())
            case "oom":
                raise MemoryError
            case "die":
                self._sandbox.die("it died by itself")
                await asyncio.Event().wait()
            case _:
                return False
        return True

    def _write(self, stream: str, data: bytes) -> None:
        """Send the first half of what a stream may hold at once, and keep the last half for the end."""
        half = max(self.request.output_limit_bytes // 2, 1)
        head = data[: max(half - self._sent[stream], 0)]
        self._sent[stream] += len(data)
        if head:
            self._add(stream, head)
        self._tails[stream] += data[len(head) :]

    def _send_tails(self) -> None:
        half = max(self.request.output_limit_bytes // 2, 1)
        for stream, tail in self._tails.items():
            if len(tail) > half:
                self._add("truncated", stream=stream, omitted_bytes=len(tail) - half)
            if tail:
                self._add(stream, bytes(tail[-half:]))


class FakeSandbox(Sandbox):
    """A sandbox in memory, with a journal that outlives its proxy as an agent's does."""

    def __init__(self, name: str, spec: SandboxSpec, backend: FakeBackend) -> None:
        super().__init__(name, spec)
        self.backend = backend
        self.capabilities = {**backend.capabilities(), "python": VERSIONS["python"] if spec.lang == "python" else None}
        self.env: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.runs: dict[str, FakeRun] = {}
        self.known_contexts: dict[str, float] = {}
        self.kept: dict[str, str] = {}
        self.started = 0
        """How many executions were really begun: one that was joined counts once."""

    async def assign(self, session_id: str, digest: str, env: Mapping[str, str]) -> None:
        self._check()
        if self.session_id not in (None, session_id):
            raise Conflict("The sandbox belongs to another session.")
        self.session_id, self.assigned_digest, self.env = session_id, digest, dict(env)

    async def execute(self, request: ExecRequest) -> AsyncIterator[SandboxEvent]:
        self._check()
        run = self.runs.get(request.execution_id)
        if run is None:
            if any(not other.ended for other in self.runs.values()):
                raise SandboxError("The sandbox refused: busy.")
            while len(self.runs) >= JOURNAL_LENGTH:
                del self.runs[next(iter(self.runs))]
            if request.context is not None and request.context not in self.known_contexts:
                if request.context != "default":
                    raise UnknownContext(request.context)
                await self.create_context(request.context)
            self.started += 1
            run = self.runs[request.execution_id] = FakeRun(request, self)
        async for event in run.follow(0):
            yield event

    async def events(self, execution_id: str, after: int = 0) -> AsyncIterator[SandboxEvent]:
        self._check()
        async for event in self._run(execution_id).follow(after):
            yield event

    async def cancel(self, execution_id: str) -> None:
        self._check()
        run = self._run(execution_id)
        if not run.ended:
            run.task.cancel()

    async def create_context(self, context_id: str) -> tuple[ContextState, bool]:
        self._check()
        made = context_id not in self.known_contexts
        if made and len(self.known_contexts) >= MAX_CONTEXTS:
            raise TooManyContexts(f"A session has at most {MAX_CONTEXTS} contexts.")
        self.known_contexts.setdefault(context_id, time.time())
        return self._context(context_id), made

    async def contexts(self) -> list[ContextState]:
        self._check()
        return [self._context(context_id) for context_id in self.known_contexts]

    async def restart_context(self, context_id: str) -> ContextState:
        state = self._context(context_id)
        self._end_in(context_id)
        self.kept.pop(context_id, None)
        return state

    async def interrupt_context(self, context_id: str) -> bool:
        busy = self._context(context_id).state == "busy"
        self._end_in(context_id)
        return busy

    async def delete_context(self, context_id: str) -> None:
        await self.restart_context(context_id)
        del self.known_contexts[context_id]

    def _context(self, context_id: str) -> ContextState:
        self._check()
        if context_id not in self.known_contexts:
            raise UnknownContext(context_id)
        runs = [run for run in self.runs.values() if run.request.context == context_id]
        busy = any(not run.ended for run in runs)
        created_at = self.known_contexts[context_id]
        return ContextState(context_id, "python", "busy" if busy else "idle", created_at, len(runs), 0)

    def _end_in(self, context_id: str) -> None:
        for run in self.runs.values():
            if run.request.context == context_id and not run.ended:
                run.task.cancel()

    async def send_stdin(self, execution_id: str, data: bytes, *, eof: bool) -> int:
        self._check()
        run = self._run(execution_id)
        if run.ended or not run.input_open:
            raise StdinClosed("The execution does not read standard input, or not any more.")
        for piece in ([data] if data else []) + ([b""] if eof else []):
            run.input.put_nowait(piece)
        run.input_open = not eof
        return 0

    async def put_tar(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        self._check()
        with tempfile.TemporaryFile() as file:
            async for chunk in chunks:
                file.write(chunk)
            file.seek(0)
            with tarfile.open(fileobj=file) as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.isfile() else None
                    if content is not None:
                        self.files[f"{path}/{member.name.removeprefix('./')}"] = content.read()

    async def stats(self) -> dict[str, Any]:
        self._check()
        return {
            "memory_bytes": 8 * 1024 * 1024,
            "cpu_ms": self.started,
            "processes": 1 + sum(not run.ended for run in self.runs.values()),
            "disk_bytes": sum(map(len, self.files.values())),
            "disk_limit_bytes": self.spec.limits.disk_bytes,
        }

    async def destroy(self) -> None:
        if self.backend.sandboxes.pop(self.name, None) is not None:
            self.die("it was removed")

    def die(self, reason: str) -> None:
        """End it as a killed container ends: everything stops, and who follows learns it."""
        self.mark_broken(reason)
        for run in self.runs.values():
            run.task.cancel()
            run.wake()

    def _run(self, execution_id: str) -> FakeRun:
        try:
            return self.runs[execution_id]
        except KeyError:
            raise UnknownExecution(execution_id) from None

    def _check(self) -> None:
        if self.broken.is_set():
            raise SandboxBroken(f"The sandbox is gone: {self.broken_reason}.")


class FakeBackend(Backend):
    """Make sandboxes in memory; those that are there when a proxy ends are found again by the next with this object."""

    name = "fake"

    def __init__(self, settings: Settings) -> None:
        self.instance = settings.instance
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.go_on = asyncio.Event()
        """What scripts that say `wait` wait for."""
        self.may_start = asyncio.Event()
        """Clear it to make starts slow; they go on when it is set."""
        self.may_start.set()
        self.start_error: ProxyError | None = None
        """What every start fails with, until it is None again."""
        self.attempts = 0
        """How many starts were tried."""

    async def start(self) -> None:
        """Be ready at once."""

    async def find_again(self) -> AsyncIterator[Sandbox]:
        for sandbox in list(self.sandboxes.values()):
            if sandbox.broken.is_set():
                await sandbox.destroy()
                continue
            sandbox.execution_ids = tuple(sandbox.runs)
            yield sandbox

    async def create(self, spec: SandboxSpec, name: str) -> Sandbox:
        if spec.lang not in VERSIONS:
            raise UnsupportedLanguage(spec.lang, list(VERSIONS))
        self.attempts += 1
        await self.may_start.wait()
        if self.start_error is not None:
            raise self.start_error
        if name in self.sandboxes:
            raise SandboxStartFailed(f"There is a sandbox {name} already.")
        sandbox = self.sandboxes[name] = FakeSandbox(name, spec, self)
        return sandbox

    async def close(self) -> None:
        """Leave the sandboxes for the next proxy."""

    def languages(self) -> list[dict[str, str | None]]:
        return [{"lang": lang, "version": version} for lang, version in VERSIONS.items()]

    def capabilities(self) -> dict[str, Any]:
        able = dict.fromkeys(("resume", "libraries", "stdin"), True)
        return {"backend": self.name, **able, "contexts": True, "files": False, "limits": []}
