"""What clients asked for and were told, to be compared with what is true."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.chaos.programs import Program

ENDED_WELL = ("succeeded", "failed")


@dataclass
class Request:
    """One answer, or the want of one, for the timeline: `outcome` is a status, or the name of a transport error."""

    at_s: float
    took_s: float
    what: str
    outcome: str
    final: bool


@dataclass
class Asked:
    """One thing that a client wants done once, whatever number of requests that takes."""

    program: Program
    kind: str
    attempts: int = 0
    answer: dict[str, Any] | None = None
    refusal: str = ""
    """Why it was not done, in the server's words: `410 session_gone`."""
    cancelled: bool = False


@dataclass
class Ledger:
    """Keep the books of all clients; any thread may write."""

    began: float = field(default_factory=time.monotonic)
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    sessions: dict[str, str] = field(default_factory=dict)
    """{session id: when it was acknowledged}, as in a 201."""
    ended: set[str] = field(default_factory=set)
    """Sessions whose DELETE was answered with 200."""
    executions: dict[str, Asked] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    waits: list[tuple[float, str]] = field(default_factory=list)
    """(seconds, what) from the first request to the answer, repetitions included."""
    unanswered: list[str] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    """Answers that no client should ever get: a 500, a 404 for what was acknowledged, a key that was forgotten."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now_s(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self.began

    def note(self, request: Request) -> None:
        """Note one request."""
        with self._lock:
            self.requests.append(request)

    def note_wait(self, seconds: float, what: str) -> None:
        """Note how long an answer was waited for."""
        with self._lock:
            self.waits.append((seconds, what))

    def note_session(self, session_id: str) -> None:
        """Note that a session was acknowledged."""
        with self._lock:
            self.sessions[session_id] = f"{self.now_s():.1f} s"

    def note_end(self, session_id: str) -> None:
        """Note that a session's end was acknowledged."""
        with self._lock:
            self.ended.add(session_id)

    def note_asked(self, asked: Asked) -> None:
        """Note what a client is about to ask for."""
        with self._lock:
            self.asked.append(asked)

    def note_answer(self, asked: Asked, body: dict[str, Any]) -> None:
        """Note an answer that names an execution, final or not."""
        with self._lock:
            asked.answer = body
            self.executions[body["execution_id"]] = asked

    def note_unanswered(self, what: str) -> None:
        """Note that a client never got an answer."""
        with self._lock:
            self.unanswered.append(what)

    def note_surprise(self, what: str) -> None:
        """Note an answer that should not exist."""
        with self._lock:
            self.surprises.append(what)

    def outcomes(self) -> Counter[str]:
        """Count how what was asked for came out."""
        return Counter((asked.answer or {}).get("status") or asked.refusal or "unanswered" for asked in self.asked)
