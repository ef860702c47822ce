"""What the services raise. The API maps it to HTTP in one place; nothing here knows of HTTP.

SandboxwebError
├── InvalidInput                the caller's input; names the field
│   ├── TooLarge                more bytes than a field may hold
│   │   └── NoSpace             more than the sandbox's disk has room for
│   ├── Unsupported             a language or library that this server cannot run
│   └── ContextUnknown          the session has no context of that id
├── Conflict                    the state of things does not allow it
│   ├── SessionNotActive        not ready yet
│   ├── SessionGone             ended; carries the reason
│   ├── QueueFull               too many executions wait in this session
│   ├── StdinClosed             what should read standard input has ended, or was not asked to
│   ├── FileConflict            something in the workspace is in the way
│   ├── TooManyContexts         the session has as many contexts as it may
│   ├── IdempotencyMismatch     the key was used with another request
│   └── IdempotencyInProgress   the first request with this key is still being answered
├── SandboxFailed               the sandbox could not be made, or broke
│   └── SandboxMissing          the proxy knows no sandbox of this session
├── FileMissing                 nothing in the workspace bears that path
├── ArtifactMissing             the bytes of an artifact are gone
├── ExecutionUnknown            the sandbox's journal does not have this execution
└── ProxyUnavailable            the proxy is away or cannot serve now
    └── ProxyUnreachable        it is certain that the request never arrived there
"""

from __future__ import annotations


class SandboxwebError(Exception):
    """Be the root of all that the app raises on purpose; `str()` is fit for the caller's eyes."""

    code = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(SandboxwebError):
    """Say which field of the input is wrong, and how."""

    code = "invalid"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class TooLarge(InvalidInput):
    """A field holds more bytes than it may."""

    code = "too_large"


class NoSpace(TooLarge):
    """The sandbox's disk has no room for it."""

    code = "no_space"


class Unsupported(InvalidInput):
    """A language or a library that this server cannot run."""

    code = "unsupported"


class ContextUnknown(InvalidInput):
    """The session has no context of that id: it was never made, or is deleted."""

    code = "context_unknown"

    def __init__(self, message: str) -> None:
        super().__init__("context", message)


class Conflict(SandboxwebError):
    """The state of a session or request does not allow what was asked."""

    code = "conflict"


class SessionNotActive(Conflict):
    """The session is still being made."""

    code = "session_not_active"


class SessionGone(Conflict):
    """The session ended; `termination_reason` says why."""

    code = "session_gone"

    def __init__(self, message: str, *, termination_reason: str) -> None:
        super().__init__(message)
        self.termination_reason = termination_reason


class QueueFull(Conflict):
    """As many executions wait in this session as may."""

    code = "queue_full"
    retry_after_s = 1


class StdinClosed(Conflict):
    """The execution does not read standard input, or not any more."""

    code = "stdin_closed"


class FileConflict(Conflict):
    """A directory where a file is wanted, something in the way, no permission, …; `code` says which."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.field = "path"


class FileMissing(SandboxwebError):
    """Nothing in the workspace bears that path."""

    code = "file_not_found"
    field = "path"


class TooManyContexts(Conflict):
    """As many contexts are in this session as may be."""

    code = "too_many_contexts"
    retry_after_s = 1


class ArtifactMissing(SandboxwebError):
    """The bytes of an artifact are gone."""

    code = "artifact_missing"


class IdempotencyMismatch(Conflict):
    """The key was used before, with another request."""

    code = "idempotency_mismatch"


class IdempotencyInProgress(Conflict):
    """The first request with this key has no answer yet."""

    code = "idempotency_in_progress"
    retry_after_s = 1


class SandboxFailed(SandboxwebError):
    """The sandbox could not be made, or broke; what ran in it is `lost`."""

    code = "sandbox_failed"


class SandboxMissing(SandboxFailed):
    """The proxy knows no sandbox of this session."""

    code = "sandbox_missing"


class ExecutionUnknown(SandboxwebError):
    """The sandbox's journal does not have this execution: it never arrived, or was forgotten."""

    code = "execution_unknown"


class ProxyUnavailable(SandboxwebError):
    """The proxy cannot be reached, or cannot serve now; nothing is wrong with the request."""

    code = "proxy_unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ProxyUnreachable(ProxyUnavailable):
    """No connection could be made, so nothing happened at the proxy."""
