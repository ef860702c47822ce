"""What a backend and its sandboxes promise to the rest of the proxy.

The proxy keeps nothing that a sandbox could not tell it again: who it was assigned to, what runs in it, and every
event of every execution live in the sandbox's agent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from proxy_service.errors import UnknownContext, UnsupportedSpec

EventType = Literal["started", "stdout", "stderr", "truncated", "result", "error", "exit"]
ExitReason = Literal["exited", "timed_out", "cancelled", "out_of_memory", "killed"]

LIBRARIES_PATH = ".sandboxweb/lib"
"""Where Python's libraries are unpacked, relative to the workspace."""
NODE_MODULES_PATH = ".sandboxweb/node_modules"
"""Where npm packages are unpacked; a sandbox's `/node_modules` leads there, because Node looks in no other place."""


class FileRefused(Exception):
    """A file operation that the agent refused; `code` is a word of its protocol."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Limits:
    """Bound what one sandbox may use.

    `memory_bytes` is for processes: where files live in memory (a tmpfs), the backend adds `disk_bytes` to the
    memory limit of the whole, so that files do not eat what the code was promised.
    """

    memory_bytes: int
    cpus: float
    pids: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Say everything that decides how a sandbox is made; equal specs make interchangeable sandboxes."""

    lang: str
    limits: Limits
    image: str | None = None
    network: Literal["none", "host"] = "none"
    preload: tuple[str, ...] = ()
    template: str | None = None
    keep_template: bool = False
    libraries: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON values, as a container's label holds it."""
        return {**asdict(self), "preload": list(self.preload), "libraries": list(self.libraries)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SandboxSpec:
        """Read back what `to_dict` gave. Raises KeyError, TypeError or ValueError on anything else."""
        lists = {name: tuple(data.get(name, ())) for name in ("preload", "libraries")}
        return cls(**{**data, **lists, "limits": Limits(**data["limits"])})

    def digest(self) -> str:
        """Return a short name of the spec's content."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Given:
    """The libraries that a sandbox has been given: what was asked for, and what that meant.

    `pins` are Python's, as "name==version"; `lock` says of each directory of npm's what is in it.
    """

    requirements: frozenset[str] = frozenset()
    pins: frozenset[str] = frozenset()
    lock: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """Ask for one run of code. `python_path` entries are relative to the workspace."""

    execution_id: str
    code: bytes
    lang: str
    timeout_s: float
    output_limit_bytes: int
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes | None = None
    stdin_open: bool = False
    """Whether more may follow after `stdin`, by `Sandbox.send_stdin`."""
    python_path: tuple[str, ...] = ()
    context: str | None = None
    """The context whose state the code shares; None: an interpreter of its own."""


@dataclass(frozen=True, slots=True)
class ContextState:
    """Tell how a context is. `restarts` counts the interpreters that it had before the present one."""

    context_id: str
    lang: str
    state: Literal["starting", "idle", "busy", "ended"]
    created_at: float
    executions: int
    restarts: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SandboxEvent:
    """Tell one thing that an execution did. `seq` counts from 1 without a gap; `exit` is always the last.

    `data` by type: `started` {}, `truncated` {stream, omitted_bytes}, `exit` {exit_code, signal, reason, duration_ms,
    cpu_ms, max_rss_bytes, stdout_bytes, stderr_bytes, background, programs_left}, the last how many of an execution's
    programs did not run because one before them failed. An `exit` in a context has {context_id, context_restarted}
    too. Only there are `result` {text, html, png, … as there are, is_main_result}, binary ones in base64, and `error`
    {name, value, traceback}. `body` holds the raw bytes of stdout and stderr.
    """

    seq: int
    type: str
    at: float
    data: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""


class Sandbox(ABC):
    """Be one isolated place that runs code. Only one execution runs in it at a time; the caller queues.

    `capabilities` says honestly what this sandbox can do: `contexts`, `resume`, `files`, `libraries`, `stdin` (bools),
    `python` (the version that code meets, "3.11.2", or None), `python_platform` (uv's name of its platform, when it
    is not the host's), `limits` (the names of the limits that really bind), `backend`.
    """

    def __init__(self, name: str, spec: SandboxSpec, *, created_at: float | None = None) -> None:
        self.name = name
        self.spec = spec
        self.created_at = time.time() if created_at is None else created_at
        self.capabilities: dict[str, Any] = {}
        self.session_id: str | None = None
        self.assigned_digest: str | None = None
        self.given = Given()
        self.forget: Callable[[Sandbox], object] = lambda sandbox: None
        """Called once, when it is about to be removed."""
        self.shares_libraries = False
        """Whether it sees the cache's unpacked packages, so that links to them are all that it needs."""
        self.broken = asyncio.Event()
        self.unpacking = asyncio.Lock()
        """Held while an archive goes in: a sandbox takes one at a time."""
        self.broken_reason = ""
        self.execution_ids: tuple[str, ...] = ()
        """The executions that a sandbox which was found again had in its journal, oldest first."""

    def mark_broken(self, reason: str) -> None:
        """Note, once, that the sandbox died by itself or had to be given up."""
        if not self.broken.is_set():
            self.broken_reason = reason
            self.broken.set()

    async def reachable(self, wait_s: float) -> bool:
        """Tell whether it can be spoken to, or is known to be dead; wait so long for what leads to it to come back."""
        return True

    @abstractmethod
    async def assign(self, session_id: str, digest: str, env: Mapping[str, str]) -> None:
        """Give the sandbox to a session, for good; sets `session_id` and `assigned_digest`. Raises SandboxBroken."""

    @abstractmethod
    def execute(self, request: ExecRequest) -> AsyncIterator[SandboxEvent]:
        """Start an execution, or join it when its id is known, and yield its events up to `exit`.

        Ceasing to iterate does not stop the code. Raises SandboxBroken when the sandbox dies on the way.
        """

    @abstractmethod
    def events(self, execution_id: str, after: int = 0) -> AsyncIterator[SandboxEvent]:
        """Replay an execution's events with `seq > after`, then follow it up to `exit`.

        Raises UnknownExecution, SandboxBroken. Any number may follow at once.
        """

    @abstractmethod
    async def cancel(self, execution_id: str) -> None:
        """Kill an execution with all its processes. Idempotent. Raises UnknownExecution, SandboxBroken."""

    async def create_context(self, context_id: str) -> tuple[ContextState, bool]:
        """Make a context; return it and whether it was made now. Raises TooManyContexts, SandboxBroken."""
        raise UnsupportedSpec("The sandbox of this session keeps no contexts.", field="context")

    async def contexts(self) -> list[ContextState]:
        """Return all contexts. Raises SandboxBroken."""
        return []

    async def restart_context(self, context_id: str) -> ContextState:
        """Give a context a new interpreter; what runs in it ends. Raises UnknownContext, SandboxBroken."""
        raise UnknownContext(context_id)

    async def interrupt_context(self, context_id: str) -> bool:
        """Interrupt what runs in a context; False when nothing does. Raises UnknownContext, SandboxBroken."""
        raise UnknownContext(context_id)

    async def delete_context(self, context_id: str) -> None:
        """End a context and what runs in it. Raises UnknownContext, SandboxBroken."""
        raise UnknownContext(context_id)

    async def send_stdin(self, execution_id: str, data: bytes, *, eof: bool) -> int:
        """Give running code more to read; return how many bytes it has not read yet.

        Raises UnknownExecution, StdinClosed, TooManyWaiting, SandboxBroken; UnsupportedSpec where it cannot be done.
        """
        raise UnsupportedSpec("This sandbox takes no input for code that runs.", field="stdin")

    @abstractmethod
    async def put_tar(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        """Unpack a tar stream beneath `path`, which is relative to the workspace. Raises SandboxBroken."""

    async def file_operation(self, op: str, body: bytes = b"", **fields: Any) -> tuple[dict[str, Any], bytes]:
        """Do one of the agent's file operations as the code's user; return the header and body of its answer.

        Raises FileRefused, SandboxBroken, and UnsupportedSpec where the sandbox has no agent.
        """
        raise UnsupportedSpec("The sandboxes of this kind cannot handle files.", field="path")

    @abstractmethod
    async def stats(self) -> dict[str, Any]:
        """Return {memory_bytes, cpu_ms, processes, disk_bytes, disk_limit_bytes}; None where it cannot be known."""

    @abstractmethod
    async def destroy(self) -> None:
        """Remove the sandbox and all that belongs to it, however broken it is. Idempotent; bounded in time."""


class Backend(ABC):
    """Make sandboxes of one kind. The constructor takes the proxy's settings and does no work."""

    name: str

    @abstractmethod
    async def start(self) -> None:
        """Check that sandboxes can be made; touches none. Raises BackendUnavailable with the mend, or BackendAway."""

    @abstractmethod
    def find_again(self) -> AsyncIterator[Sandbox]:
        """Find this instance's own sandboxes, which an earlier proxy left, and yield each as soon as it has answered.

        Assigned or not; what is broken, or does not answer in time, is removed. Raises BackendAway; who asks again is
        given those that are still missing.
        """

    @abstractmethod
    async def create(self, spec: SandboxSpec, name: str) -> Sandbox:
        """Make a sandbox that is ready to execute; leaves nothing behind when it fails or is cancelled.

        Raises UnsupportedLanguage, UnsupportedSpec, SandboxStartFailed, BackendUnavailable.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of all sandboxes: those that outlive the proxy are left running, the others end."""

    @abstractmethod
    def languages(self) -> list[dict[str, str | None]]:
        """Return what can run here: [{"lang", "version"}]."""

    @abstractmethod
    def capabilities(self) -> dict[str, Any]:
        """Return what sandboxes of this backend can do at best, with the keys of `Sandbox.capabilities`."""
