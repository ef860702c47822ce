"""llm-sandbox's own sessions on top of an agent: the same `run()`, files and artifacts, without an exec for each.

Registered with llm-sandbox as `sandboxweb-docker`, `sandboxweb-podman` and `sandboxweb-bubblewrap`, so that
`SandboxSession(backend=…)` makes them too. They are synchronous, as all of llm-sandbox; the agent's link lives on an
event loop in another thread.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import os
import shlex
import tarfile
import threading
import uuid
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from llm_sandbox.data import ConsoleOutput, StreamCallback
from llm_sandbox.exceptions import CommandEmptyError, NotOpenSessionError, SandboxError, SandboxTimeoutError

from proxy_service.backends.agent_sandbox import WORKDIR, AgentSandbox
from proxy_service.backends.base import ExecRequest, SandboxEvent

T = TypeVar("T")

OUTPUT_LIMIT_BYTES = 8 * 1024 * 1024
FILES_TIMEOUT_S = 60.0
UNBOUNDED_S = 24 * 3600.0


class LoopThread:
    """An event loop in a thread of its own, for callers that have none."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="sandboxweb-loop", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the loop and join its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class AgentRunner:
    """What a synchronous session asks of an agent's sandbox."""

    def __init__(self, sandbox: AgentSandbox, loop: asyncio.AbstractEventLoop) -> None:
        self.sandbox = sandbox
        self._loop = loop
        self._running: str | None = None

    @classmethod
    def attach(cls, attaching: Coroutine[Any, Any, AgentSandbox], loop: asyncio.AbstractEventLoop) -> AgentRunner:
        """Wait until a sandbox is attached on a loop that runs in another thread."""
        return cls(asyncio.run_coroutine_threadsafe(attaching, loop).result(), loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the sandbox's loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def run(
        self,
        command: str,
        workdir: str | None,
        *,
        timeout_s: float | None,
        errors: str,
        on_stdout: StreamCallback | None = None,
        on_stderr: StreamCallback | None = None,
    ) -> ConsoleOutput:
        """Run one shell line. Raises SandboxTimeoutError when its time is over; the sandbox lives on."""
        request = _request(timeout_s)
        collector = _Collector(errors, on_stdout, on_stderr)
        self._running = request.execution_id
        try:
            exit_data = self.wait(collector.take(self.sandbox.run_shell(request, command, workdir)))
        finally:
            self._running = None
        if exit_data.get("reason") == "timed_out":
            raise SandboxTimeoutError(f"Operation timed out after {timeout_s} seconds", timeout_duration=timeout_s)
        code, signal = exit_data.get("exit_code"), exit_data.get("signal")
        return ConsoleOutput(
            exit_code=code if code is not None else 128 + int(signal or 0),
            stdout=collector.text["stdout"],
            stderr=collector.text["stderr"],
        )

    def cancel(self) -> None:
        """Kill what runs now."""
        if self._running is not None:
            self.wait(self.sandbox.cancel(self._running))

    def put(self, source: Path, destination: str) -> None:
        """Copy a file or a directory of this machine to where the code's user may write."""
        target = PurePosixPath(destination)
        inside = target.is_relative_to(WORKDIR)
        place = target.parent.relative_to(WORKDIR) if inside else PurePosixPath(f".upload-{uuid.uuid4().hex}")
        self.wait(self.sandbox.put_tar(str(place), _tar(source, target.name)))
        if not inside:
            staged, final = (shlex.quote(f"{WORKDIR}/{place}"), shlex.quote(str(target)))
            self._require(f"rm -rf {final} && mv {staged}/* {final} && rmdir {staged}")

    def archive(self, path: str) -> tuple[bytes, dict[str, Any]]:
        """Return a file as a tar archive of one member, and what llm-sandbox wants to know of it."""
        content = self._require(f"cat -- {shlex.quote(path)}")
        member = tarfile.TarInfo(PurePosixPath(path).name)
        member.size, member.mode = len(content), 0o600
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(member, io.BytesIO(content))
        return buffer.getvalue(), {"name": member.name, "size": len(content), "mode": 0o100600}

    def _require(self, command: str) -> bytes:
        """Run a shell line of our own and return its output as it is."""
        request = _request(FILES_TIMEOUT_S)

        async def gather() -> tuple[int | None, dict[str, bytes], bool]:
            bodies, code, cut = {"stdout": b"", "stderr": b""}, None, False
            async for event in self.sandbox.run_shell(request, command, None):
                if event.type in bodies:
                    bodies[event.type] += event.body
                cut = cut or event.type == "truncated"
                code = event.data.get("exit_code") if event.type == "exit" else code
            return code, bodies, cut

        code, bodies, cut = self.wait(gather())
        if code != 0:
            raise FileNotFoundError(bodies["stderr"].decode(errors="replace").strip() or command)
        if cut:
            raise SandboxError(f"More than {OUTPUT_LIMIT_BYTES} bytes came out of the sandbox")
        return bodies["stdout"]


def _request(timeout_s: float | None) -> ExecRequest:
    return ExecRequest(
        execution_id=f"llm-{uuid.uuid4().hex}",
        code=b"",
        lang="bash",
        timeout_s=timeout_s or UNBOUNDED_S,
        output_limit_bytes=OUTPUT_LIMIT_BYTES,
    )


async def _tar(source: Path, name: str) -> AsyncIterator[bytes]:
    """Yield an archive of a file or directory of this machine, as nobody's in particular."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member if member.isfile() or member.isdir() else None

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(source, arcname=name, filter=plain)
    yield buffer.getvalue()


class _Collector:
    """Gather the text of both streams, telling the callbacks as it comes."""

    def __init__(self, errors: str, on_stdout: StreamCallback | None, on_stderr: StreamCallback | None) -> None:
        self.text = {"stdout": "", "stderr": ""}
        self._callbacks = {"stdout": on_stdout, "stderr": on_stderr}
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")(errors) for name in self.text}

    async def take(self, events: AsyncIterator[SandboxEvent]) -> dict[str, Any]:
        """Consume the events and return the data of `exit`."""
        async for event in events:
            if event.type in self.text:
                self._add(event.type, event.body)
            elif event.type == "truncated":
                note = f"\n[{event.data.get('omitted_bytes')} bytes left out]\n"
                self._add(str(event.data.get("stream")), note.encode())
            elif event.type == "exit":
                for name in self.text:
                    self._add(name, b"", final=True)
                return dict(event.data)
        raise NotOpenSessionError

    def _add(self, name: str, data: bytes, *, final: bool = False) -> None:
        text = self._decoders[name].decode(data, final)
        if text:
            self.text[name] += text
            if callback := self._callbacks[name]:
                callback(text)


class AgentCommands:
    """The part of a session that runs commands, for sessions whose sandbox has an agent."""

    runner: AgentRunner | None = None
    config: Any

    def execute_command(
        self,
        command: str,
        workdir: str | None = None,
        on_stdout: StreamCallback | None = None,
        on_stderr: StreamCallback | None = None,
    ) -> ConsoleOutput:
        """Run a shell line through the agent: one round trip, output as it comes."""
        if not command:
            raise CommandEmptyError
        return self.agent().run(
            command,
            workdir,
            timeout_s=self._seconds_left(),
            errors=self.config.encoding_errors,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
        )

    def _seconds_left(self) -> float | None:
        return None

    def agent(self) -> AgentRunner:
        """Return what reaches the agent. Raises NotOpenSessionError before the session is open."""
        if self.runner is None:
            raise NotOpenSessionError
        return self.runner

    def get_archive(self, path: str) -> tuple[bytes, dict[str, Any]]:
        """Return a file as llm-sandbox's handlers read artifacts: a tar archive and its description."""
        return self.agent().archive(path)

    def _handle_timeout(self) -> None:
        """Kill what ran too long; the session lives on."""
        if self.runner is not None:
            self.runner.cancel()


def fresh_secret() -> bytes:
    """Return a secret for a sandbox that no later process has to find again."""
    return os.urandom(16)
