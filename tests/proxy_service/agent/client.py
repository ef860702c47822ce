"""A frame client of the tests' own: blocking, and as plain as the protocol allows."""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AGENT = Path(__file__).resolve().parents[3] / "proxy_service" / "agent" / "agent.py"
PYTHON = os.environ.get("AGENT_TEST_PYTHON") or os.path.realpath(getattr(sys, "_base_executable", sys.executable))
"""The interpreter that agents run under; another version may be named to try the agent with it."""
CODE_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

PREFIX = struct.Struct(">2sII")
WAIT_S = 20.0
MAX_RESULT_BYTES = 8 * 1024 * 1024


def frame(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Return one frame."""
    packed = json.dumps(header).encode()
    return PREFIX.pack(b"\xf5S", len(packed), len(body)) + packed + body


@dataclass
class Finished:
    """All that an execution told."""

    events: list[dict[str, Any]]
    stdout: bytes = b""
    stderr: bytes = b""
    exit: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, events: list[dict[str, Any]]) -> Finished:
        joined = {kind: b"".join(e["body"] for e in events if e["ev"] == kind) for kind in ("stdout", "stderr")}
        return cls(events, joined["stdout"], joined["stderr"], events[-1])

    @property
    def text(self) -> str:
        return self.stdout.decode()

    def truncated(self, stream: str = "stdout") -> int:
        """Return how many bytes of a stream were left out."""
        return sum(e["omitted_bytes"] for e in self.events if e["ev"] == "truncated" and e["stream"] == stream)


class Refused(Exception):
    """The agent said no."""

    def __init__(self, header: dict[str, Any]) -> None:
        super().__init__(f"{header.get('error')}: {header.get('message')}")
        self.code = header.get("error")


class AgentProcess:
    """An agent as a process of this machine, without any sandbox around it."""

    def __init__(
        self, workdir: Path, *, env: dict[str, str] | None = None, python: str = PYTHON, **config: Any
    ) -> None:
        self.secret = os.urandom(16)
        self.workdir = workdir
        settings = {"secret": self.secret.hex(), "workdir": str(workdir), "exit_on_eof": True, **config}
        variables = CODE_ENV if env is None else env
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, str(AGENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**variables, "SBX_AGENT": json.dumps(settings)},
            cwd=workdir,
        )
        self._buffer = b""
        self._ids = 0
        self._answers: dict[int, tuple[dict[str, Any], bytes]] = {}
        self.events: deque[dict[str, Any]] = deque()
        self.hello: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        return self.process.pid

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self.process.stdin.fileno(), view) :]

    def read_some(self, timeout_s: float = WAIT_S) -> bytes:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        if not ready:
            raise TimeoutError("the agent is silent")
        data = os.read(self.process.stdout.fileno(), 1 << 20)
        if not data:
            raise EOFError(f"the agent is gone: {self.errors()}")
        return data

    def attach(self) -> dict[str, Any]:
        """Resynchronise and say hello."""
        nonce = os.urandom(16)
        self._ids += 1
        request = {"op": "hello", "id": self._ids, "nonce": nonce.hex(), "protocol": 1}
        self.write(b"\xf5R" + self.secret + frame(request))
        self._answers.clear()
        self.events.clear()
        seen = self._buffer
        marker = b"\xf5R" + nonce
        while marker not in seen:
            seen = seen[-17:] + self.read_some()
        self._buffer = seen.split(marker, 1)[1]
        self.hello = self._answer(self._ids)[0]
        return self.hello

    def _take_frames(self) -> None:
        while len(self._buffer) >= PREFIX.size:
            magic, header_len, body_len = PREFIX.unpack_from(self._buffer)
            assert magic == b"\xf5S"
            assert header_len <= 64 * 1024
            assert body_len <= MAX_RESULT_BYTES + 64 * 1024
            middle = PREFIX.size + header_len
            end = middle + body_len
            if len(self._buffer) < end:
                return
            header, body = json.loads(self._buffer[PREFIX.size : middle]), self._buffer[middle:end]
            self._buffer = self._buffer[end:]
            if "re" in header:
                self._answers[header["re"]] = (header, body)
            else:
                self.events.append({**header, "body": body})

    def _answer(self, number: int, timeout_s: float = WAIT_S) -> tuple[dict[str, Any], bytes]:
        until = time.monotonic() + timeout_s
        self._take_frames()
        while number not in self._answers:
            self._buffer += self.read_some(until - time.monotonic())
            self._take_frames()
        return self._answers.pop(number)

    def send(self, op: str, body: bytes = b"", **fields: Any) -> int:
        """Ask without waiting for the answer; return the request's number."""
        self._ids += 1
        self.write(frame({"op": op, "id": self._ids, **fields}, body))
        return self._ids

    def answer(self, number: int, timeout_s: float = WAIT_S) -> tuple[dict[str, Any], bytes]:
        header, body = self._answer(number, timeout_s)
        if not header["ok"]:
            raise Refused(header)
        return header, body

    def ask(self, op: str, body: bytes = b"", **fields: Any) -> dict[str, Any]:
        return self.answer(self.send(op, body, **fields))[0]

    def next_event(self, timeout_s: float = WAIT_S) -> dict[str, Any]:
        until = time.monotonic() + timeout_s
        self._take_frames()
        while not self.events:
            self._buffer += self.read_some(until - time.monotonic())
            self._take_frames()
        return self.events.popleft()

    def wait_event(self, kind: str, timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Return the next event of a kind, dropping what comes before it."""
        while True:
            event = self.next_event(timeout_s)
            if event["ev"] == kind:
                return event

    def finish(self, execution_id: str, timeout_s: float = WAIT_S) -> Finished:
        """Collect the events of an execution until its exit."""
        events = []
        while True:
            event = self.next_event(timeout_s)
            assert event["execution_id"] == execution_id
            events.append(event)
            if event["ev"] == "exit":
                return Finished.of(events)

    def start(self, code: str | bytes = b"", *, kind: str = "python", **fields: Any) -> str:
        """Start an execution and return its id."""
        execution_id = str(fields.pop("execution_id", None) or os.urandom(6).hex())
        body = code.encode("utf-8", "surrogateescape") if isinstance(code, str) else code
        self.ask("exec", body, execution_id=execution_id, kind=kind, **fields)
        return execution_id

    def run(self, code: str | bytes, **fields: Any) -> Finished:
        """Run Python code to its end."""
        return self.finish(self.start(code, **fields))

    def shell(self, *commands: str, **fields: Any) -> Finished:
        """Run shell lines to their end."""
        return self.finish(self.start(kind="commands", commands=list(commands), **fields))

    def errors(self) -> str:
        """Return what the agent said of its own mistakes: nothing, if all is well."""
        self._errors.seek(0)
        return self._errors.read().decode()

    def close(self) -> None:
        """End the agent with all its descendants."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(5)
        self.process.stdout.close()
        errors = self.errors()
        self._errors.close()
        assert errors == ""
