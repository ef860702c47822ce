"""Everything that can go wrong in the proxy, and what HTTP says about each.

ProxyError
├── InvalidRequest            400  the body or a header is wrong; `field` names what
├── Unauthorized              401  no bearer token, or a wrong one
├── NotFound                  404
│   ├── UnknownSession             no sandbox of that session runs here
│   ├── UnknownExecution           the sandbox's journal does not have it (any more)
│   ├── FileMissing                nothing in the workspace bears that path
│   └── UnknownContext             the session has no context of that id
├── Conflict                  409  the same id with another body
│   ├── FileConflict               a directory where a file is wanted, something in the way, no permission, …
│   └── StdinClosed                what should read it has ended, or was not asked to
├── RequestTimeout            408  the body did not arrive in time
├── BodyTooLarge              413
│   └── NoSpace                    the sandbox's disk has no room for it
├── Unprocessable             422  well-formed, but this server cannot do it
│   ├── UnsupportedLanguage        names what it can run
│   ├── UnsupportedSpec            image, network or limit that this backend cannot give
│   └── LibraryError               the resolver's reason in plain words
│       └── RegistryAway           nobody could be asked
├── TooManyWaiting            429  the session's queue is full
├── TooManyContexts           429  the session has as many contexts as it may
├── SandboxError              502  ours: the sandbox could not be made or died
│   ├── SandboxStartFailed
│   │   └── StartTimedOut     504  it takes longer than it may
│   └── SandboxBroken              died by itself, or its agent misbehaved
└── Unavailable               503  come back later
    ├── BackendUnavailable         no image, no user namespaces, …; `mend` says what to do
    │   └── BackendAway            the engine does not answer; it may come back by itself
    ├── Unreachable                the sandbox may be alive, but the engine that leads to it does not answer
    ├── StillFinding               the proxy has just started and does not know yet all that runs
    └── ShuttingDown               the proxy is stopping
"""

from __future__ import annotations

from typing import ClassVar


class ProxyError(Exception):
    """Carry one sentence for the caller, and the field that it is about."""

    code: ClassVar[str] = "error"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class InvalidRequest(ProxyError):
    code = "invalid"


class Unauthorized(ProxyError):
    code = "unauthorized"


class NotFound(ProxyError):
    code = "not_found"


class UnknownSession(NotFound):
    code = "unknown_session"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"No sandbox of session {session_id} runs here.")


class UnknownExecution(NotFound):
    code = "unknown_execution"

    def __init__(self, execution_id: str) -> None:
        super().__init__(f"The session's sandbox knows no execution {execution_id}.")


class FileMissing(NotFound):
    code = "file_not_found"

    def __init__(self, path: str) -> None:
        super().__init__(f"There is nothing at {path!r} in the workspace.", field="path")


class UnknownContext(NotFound):
    code = "unknown_context"

    def __init__(self, context_id: str) -> None:
        super().__init__(f"The session has no context {context_id!r}.", field="context")


class Conflict(ProxyError):
    code = "conflict"


class FileConflict(Conflict):
    """Say what is in the way, and in `code` what kind of obstacle that is."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail, field="path")
        self.code = code  # type: ignore[misc]  # one class stands for all obstacles


class StdinClosed(Conflict):
    code = "stdin_closed"


class RequestTimeout(ProxyError):
    code = "request_timeout"


class BodyTooLarge(ProxyError):
    code = "too_large"


class NoSpace(BodyTooLarge):
    code = "no_space"


class Unprocessable(ProxyError):
    code = "unprocessable"


class UnsupportedLanguage(Unprocessable):
    code = "unsupported_language"

    def __init__(self, lang: str, can: list[str]) -> None:
        super().__init__(f"This server cannot run {lang!r}. It can run: {', '.join(can) or 'nothing'}.", field="lang")


class UnsupportedSpec(Unprocessable):
    code = "unsupported"


class LibraryError(Unprocessable):
    code = "library_error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, field="libraries")


class RegistryAway(LibraryError):
    """What was resolved or unpacked before can still be had."""


class TooManyWaiting(ProxyError):
    code = "too_many_waiting"


class TooManyContexts(ProxyError):
    code = "too_many_contexts"


class SandboxError(ProxyError):
    code = "sandbox_error"


class SandboxStartFailed(SandboxError):
    code = "sandbox_start_failed"


class StartTimedOut(SandboxStartFailed):
    code = "start_timed_out"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"The sandbox could not be made within {timeout_s:g} s.")


class SandboxBroken(SandboxError):
    code = "sandbox_broken"


class Unavailable(ProxyError):
    code = "unavailable"


class BackendUnavailable(Unavailable):
    """Say what is away and, in `mend`, what the administrator can do about it."""

    code = "backend_unavailable"

    def __init__(self, detail: str, *, mend: str = "") -> None:
        super().__init__(detail)
        self.mend = mend


class BackendAway(BackendUnavailable):
    """Say that the engine does not answer now."""


class Unreachable(Unavailable):
    code = "unreachable"

    def __init__(self) -> None:
        super().__init__("The sandbox cannot be reached now: its engine does not answer. Try again in a few seconds.")


class StillFinding(Unavailable):
    code = "still_finding"

    def __init__(self) -> None:
        super().__init__("The proxy has just started and is still finding its sandboxes. Try again in a few seconds.")


class ShuttingDown(Unavailable):
    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("The proxy is stopping. Try again in a few seconds.")


RETRY_AFTER_S = 2

_STATUS_BY_CLASS: tuple[tuple[type[ProxyError], int], ...] = (
    (InvalidRequest, 400),
    (Unauthorized, 401),
    (NotFound, 404),
    (Conflict, 409),
    (RequestTimeout, 408),
    (BodyTooLarge, 413),
    (Unprocessable, 422),
    (TooManyWaiting, 429),
    (TooManyContexts, 429),
    (StartTimedOut, 504),
    (SandboxError, 502),
    (Unavailable, 503),
)


def http_status(error: ProxyError) -> int:
    """Return the HTTP status that an error is answered with."""
    return next((status for kind, status in _STATUS_BY_CLASS if isinstance(error, kind)), 500)


def http_headers(error: ProxyError) -> dict[str, str]:
    """Return the headers that go with an error's answer."""
    if isinstance(error, Unavailable | TooManyWaiting | TooManyContexts):
        return {"Retry-After": str(RETRY_AFTER_S)}
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    return {}


def http_body(error: ProxyError) -> dict[str, str]:
    """Return the one shape that all errors have: `error`, `detail` and perhaps `field`."""
    body = {"error": error.code, "detail": error.detail}
    if error.field is not None:
        body["field"] = error.field
    return body
