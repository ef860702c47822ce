"""Standard input for code that runs."""

from __future__ import annotations

from sessions_app.exceptions import ExecutionUnknown, InvalidInput, SandboxMissing, StdinClosed, TooLarge
from sessions_app.limits import MAX_STDIN_BYTES
from sessions_app.models import Execution
from sessions_app.proxy_client import proxy
from sessions_app.services.connections import release_connection


def encoded(text: str) -> bytes:
    """Return text as the code reads it. Raises InvalidInput."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("data", "This is not valid Unicode text (a lone surrogate).") from None


def send_stdin(*, execution: Execution, data: bytes, eof: bool = False) -> int:
    """Send more to an execution that was begun with `stdin_stream`; return how many bytes it has not read yet.

    Raises StdinClosed (it ended, or reads nothing), TooLarge, QueueFull (it does not read), ProxyUnavailable.
    """
    if not execution.stdin_stream:
        raise StdinClosed("The execution was not begun with `stdin_stream`, so its standard input has ended.")
    if not execution.is_live:
        raise StdinClosed("The execution has ended.")
    if len(data) > MAX_STDIN_BYTES:
        raise TooLarge("data", f"This is {len(data)} bytes long; at most {MAX_STDIN_BYTES} are allowed at once.")
    release_connection()
    try:
        return proxy().send_stdin(execution.session_id, execution.pk, data, eof=eof)
    except (ExecutionUnknown, SandboxMissing) as error:
        raise StdinClosed("The execution is not known to its sandbox: it has ended, or not arrived yet.") from error
