"""One execution as the proxy holds it: what it was asked to run, what it told so far, and how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from proxy_service.backends.base import ExecRequest
from proxy_service.errors import ProxyError
from proxy_service.events import Transcript

Prepare = Callable[[], Awaitable[tuple[str, ...]]]
"""Brings the libraries of an execution whose turn has come, and returns the path to them."""


class Execution:
    """One run of code, from its request to its end."""

    def __init__(
        self, request: ExecRequest | None, execution_id: str, prepare: Prepare | None = None, *, lang: str = ""
    ) -> None:
        self.id = execution_id
        self.request = request
        self.prepare = prepare
        self.transcript = Transcript(lang)
        self.error: ProxyError | None = None
        """Why it has no result here: the request is answered with this."""
        self.begun = False
        self.is_revived = False
        """Whether it is read from the journal of a sandbox in which it has ended."""
        self.cancel_requested = asyncio.Event()
        self.input_lock = asyncio.Lock()
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def done(self) -> bool:
        """Tell whether nothing more will come of it here."""
        return self._done.done()

    async def wait(self) -> None:
        """Wait for the end, whatever it is."""
        await asyncio.shield(self._done)

    def finish(self, error: ProxyError | None = None) -> None:
        """Let everybody know that it is over."""
        if not self._done.done():
            self.error = error
            self._done.set_result(None)
            self.transcript.notify()

    def finish_as(self, reason: str, detail: str = "", error: ProxyError | None = None) -> None:
        """End it with an `exit` of the proxy's own, after what the sandbox told so far."""
        if self.done:
            return
        if self.transcript.end is None:
            now = time.time()
            if detail and reason == "not_started":
                self.transcript.add("stderr", now, body=f"{detail}\n".encode())
            nothing = {"exit_code": None, "signal": None, "duration_ms": None, "cpu_ms": None, "max_rss_bytes": None}
            self.transcript.add("exit", now, {**nothing, "reason": reason, "detail": detail})
        self.finish(error)

    def result(self) -> dict[str, Any]:
        """Return the answer to who waited. Raises the error when there is no result."""
        if self.error is not None:
            raise self.error
        transcript = self.transcript
        end = transcript.end or {}
        return {
            "execution_id": self.id,
            "status": end.get("status", "error"),
            "phase": end.get("phase", "run"),
            "stdout": transcript.text("stdout"),
            "stderr": transcript.text("stderr"),
            "exit_code": end.get("exit_code"),
            "signal": end.get("signal"),
            "duration_ms": end.get("duration_ms"),
            "cpu_ms": end.get("cpu_ms"),
            "max_rss_bytes": end.get("max_rss_bytes"),
            "truncated": transcript.truncated,
            "results": transcript.results,
            "files": end.get("files", []),
            "files_truncated": bool(end.get("files_truncated")),
            "exception": transcript.exception,
            "context_restarted": bool(end.get("context_restarted")),
            "error": end.get("detail", ""),
            "message": end.get("message", ""),
            "where": end.get("where"),
            "started_at": transcript.started_at,
            "finished_at": transcript.finished_at,
            "last_seq": transcript.last_seq,
        }
