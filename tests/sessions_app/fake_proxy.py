"""A proxy that runs nothing: it keeps the contract in memory and does what a test tells it to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

Json = dict[str, Any]


@dataclass
class FakeExecution:
    """One execution of the fake: it ends at once, unless its code says `wait`."""

    body: Json
    runs: int = 1
    events: list[Json] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return any(event["type"] == "exit" for event in self.events)

    def say(self, kind: str, data: Any) -> None:
        self.events.append({"seq": len(self.events) + 1, "type": kind, "data": data, "at": time.time()})

    def end(self, **values: Any) -> None:
        values = {"reason": "exited", "exit_code": 0, "signal": None, "duration_ms": 1.5, "cpu_ms": 1.0} | values
        self.say("exit", {**values, "max_rss_bytes": 4096, "status": _status(values)})


class FakeStream(httpx.AsyncByteStream):
    """All that happens in a session of the fake, until that ends."""

    def __init__(self, proxy: FakeProxy, session_id: str, since: str | None) -> None:
        self.proxy, self.session_id = proxy, session_id
        self.told = {key: len(run.events) for key, run in proxy.sandboxes[session_id].items() if run.ended}
        if since is not None:
            key, _, seq = since.partition(":")
            self.told[key] = int(seq)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.session_id in self.proxy.sandboxes and not self.proxy.away:
            yield b"\n"
            for key, run in list(self.proxy.sandboxes[self.session_id].items()):
                for event in run.events[self.told.get(key, 0) :]:
                    self.told[key] = event["seq"]
                    yield json.dumps({**event, "execution_id": key}).encode() + b"\n"
            await asyncio.sleep(0.005)


@dataclass
class FakeProxy:
    """The whole proxy; `away` refuses connections, `break_next` lets a request arrive and loses its answer."""

    sandboxes: dict[str, dict[str, FakeExecution]] = field(default_factory=dict)
    kept: dict[str, dict[str, FakeExecution]] = field(default_factory=dict)
    made: dict[str, Json] = field(default_factory=dict)
    pool: list[Json] | None = None
    away: bool = False
    break_next: int = 0
    failures: dict[str, httpx.Response] = field(default_factory=dict)
    keeps_contexts: bool = True
    contexts: dict[str, Json] = field(default_factory=dict)
    before: Callable[[httpx.Request], None] | None = None
    requests: list[str] = field(default_factory=list)
    says: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Standard error and exit code of code that fails."""
    shows: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)
    """The `result` and `error` events of code in a context."""
    files: dict[str, bytes] = field(default_factory=dict)
    """What lies in every workspace; all code says that it made all of it."""

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("refused", request=request)
        self.requests.append(f"{request.method} {request.url.path}")
        if self.before:
            self.before(request)
        answer = self._answer(request)
        if self.break_next:
            self.break_next -= 1
            raise httpx.ReadError("reset", request=request)
        return answer

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.strip("/").split("/")
        body = {} if path[-1] == "stdin" or not request.content else json.loads(request.content)
        for start, response in self.failures.items():
            if f"{request.method} {request.url.path}".startswith(start):
                return response
        match request.method, path:
            case "GET", [""]:
                return httpx.Response(200, json={"status": "ok", "backend": "fake", "pool": {}})
            case "GET", ["languages"]:
                return httpx.Response(
                    200, json={"languages": [{"lang": "python", "version": "3"}], "default": "python"}
                )
            case "PUT", ["pool"]:
                self.pool = body["templates"]
                return httpx.Response(200, json={"pool": {}})
            case "POST", ["sessions"]:
                return self._create(body)
            case "GET", ["sessions"]:
                items = [{"session_id": key, "created_at": self.made[key]["created_at"]} for key in self.sandboxes]
                return httpx.Response(200, json={"sessions": list(self.sandboxes), "items": items})
            case method, ["sessions", session_id, *rest] if session_id in self.sandboxes:
                return self._of_session(method, session_id, rest, body, request)
            case method, ["sessions", session_id, "executions", execution_id, *rest] if execution_id in self.kept.get(
                session_id, ()
            ):
                return self._of_execution(method, rest, self.kept[session_id][execution_id], request)
        return httpx.Response(404, json={"error": "unknown_session", "detail": "No such sandbox."})

    def _create(self, body: Json) -> httpx.Response:
        session_id = body["session_id"]
        known = session_id in self.sandboxes
        self.sandboxes.setdefault(session_id, {})
        self.made.setdefault(session_id, {**body, "created_at": time.time()})
        answer = {
            "session_id": session_id,
            "status": "active",
            "sandbox": f"sbx-{session_id[:8]}",
            "backend": "fake",
            "capabilities": {"contexts": self.keeps_contexts},
        }
        return httpx.Response(200 if known else 201, json=answer)

    def _of_session(
        self, method: str, session_id: str, rest: list[str], body: Json, request: httpx.Request
    ) -> httpx.Response:
        executions = self.sandboxes[session_id]
        match method, rest:
            case "DELETE", []:
                del self.sandboxes[session_id]
                return httpx.Response(200, json={"session_id": session_id, "status": "terminated"})
            case method, ["contexts", *rest]:
                return self._of_contexts(method, rest, body)
            case "GET", ["events"]:
                return httpx.Response(200, stream=FakeStream(self, session_id, request.url.params.get("since")))
            case "GET", ["files", *parts] if (content := self.files.get("/".join(parts))) is not None:
                return httpx.Response(200, content=content)
            case _, ["files", *_]:
                return httpx.Response(404, json={"error": "file_not_found", "detail": "Not there.", "field": "path"})
            case "POST", ["execute"]:
                return self._execute(executions, body, request)
            case method, ["executions", execution_id, *rest] if execution_id in executions:
                return self._of_execution(method, rest, executions[execution_id], request)
        return httpx.Response(404, json={"error": "unknown_execution", "detail": "No such execution."})

    def _of_contexts(self, method: str, rest: list[str], body: Json) -> httpx.Response:
        """Answer for the contexts of whatever session: a test has one."""
        match method, rest:
            case "GET", []:
                return httpx.Response(200, json={"contexts": list(self.contexts.values())})
            case "POST", []:
                if len(self.contexts) >= 8:
                    return httpx.Response(429, json={"error": "too_many_contexts", "detail": "At most 8."})
                name = body["context_id"]
                state = {"context_id": name, "lang": "python", "state": "idle", "created_at": time.time()}
                known = self.contexts.setdefault(name, {**state, "executions": 0, "restarts": 0})
                return httpx.Response(201, json=known)
            case _, [name, *_] if name not in self.contexts:
                return httpx.Response(404, json={"error": "unknown_context", "detail": "No.", "field": "context"})
            case "GET", [name]:
                return httpx.Response(200, json=self.contexts[name])
            case "DELETE", [name]:
                del self.contexts[name]
                return httpx.Response(200, json={"context_id": name, "status": "deleted"})
            case "POST", [name, "restart"]:
                self.contexts[name]["restarts"] += 1
                return httpx.Response(200, json=self.contexts[name])
            case _, [name, _]:
                return httpx.Response(200, json={"context_id": name, "interrupted": True})
        return httpx.Response(404, json={"error": "not_found", "detail": "Nothing."})

    @staticmethod
    def _of_execution(method: str, rest: list[str], execution: FakeExecution, request: httpx.Request) -> httpx.Response:
        if rest == ["events"]:
            after = int(request.url.params.get("after", 0))
            return _ndjson([event for event in execution.events if event["seq"] > after])
        if rest == ["stdin"]:
            return _stdin(execution, request)
        if not execution.ended:
            execution.end(reason="cancelled", exit_code=None, signal=9)
        return httpx.Response(200, json={"status": "cancelled"})

    def lose(self, session_id: object) -> None:
        """End a sandbox as one that dies by itself: what it ran is kept, ended as lost."""
        kept = self.kept[str(session_id)] = self.sandboxes.pop(str(session_id))
        for execution in kept.values():
            if not execution.ended:
                execution.end(reason="lost", exit_code=None)

    def _execute(self, executions: dict[str, FakeExecution], body: Json, request: httpx.Request) -> httpx.Response:
        execution_id = body["execution_id"]
        execution = executions.get(execution_id)
        if execution is None:
            execution = executions[execution_id] = FakeExecution(body)
            execution.say("started", {})
            if body["code"] != "wait":
                for kind, data in self.shows.get(body["code"], ()):
                    execution.say(kind, data)
                stderr, exit_code = self.says.get(body["code"], ("", 0))
                execution.say("stdout", f"ran {body['code']}\n")
                if stderr:
                    execution.say("stderr", stderr)
                execution.end(exit_code=exit_code, files=self.changed())
        if request.headers.get("Accept") == "application/x-ndjson":
            return _ndjson(execution.events)
        if not execution.ended:
            raise httpx.ReadTimeout("it runs and runs", request=request)
        return httpx.Response(200, json=_result(execution_id, execution))

    def changed(self) -> list[Json]:
        """Return the files as an execution tells of them."""
        told = {"mode": "0644", "change": "created"}
        return [{"path": path, "size": len(content), **told} for path, content in self.files.items()]

    def execution(self, row: Any) -> FakeExecution:
        """Return the fake's side of a row."""
        return self.sandboxes[str(row.session_id)][str(row.pk)]


def _result(execution_id: str, execution: FakeExecution) -> Json:
    end = execution.events[-1]["data"]
    text = {
        name: "".join(event["data"] for event in execution.events if event["type"] == name)
        for name in ("stdout", "stderr")
    }
    return {
        "execution_id": execution_id,
        "status": end["status"],
        **text,
        **{name: end[name] for name in ("exit_code", "signal", "duration_ms", "cpu_ms", "max_rss_bytes")},
        "results": [event["data"] for event in execution.events if event["type"] == "result"],
        "exception": next((event["data"] for event in execution.events if event["type"] == "error"), None),
        "context_restarted": bool(end.get("context_restarted")),
        "truncated": False,
        "files": end.get("files", []),
        "files_truncated": bool(end.get("files_truncated")),
        "started_at": execution.events[0]["at"],
        "finished_at": execution.events[-1]["at"],
        "last_seq": execution.events[-1]["seq"],
    }


def _stdin(execution: FakeExecution, request: httpx.Request) -> httpx.Response:
    if execution.ended:
        return httpx.Response(409, json={"error": "stdin_closed", "detail": "The execution has ended."})
    if request.content:
        execution.say("stdout", request.content.decode())
    if request.url.params["eof"] == "true":
        execution.end()
    return httpx.Response(200, json={"unread_bytes": 0})


def _status(end: Json) -> str:
    if end["reason"] in {"timed_out", "cancelled", "out_of_memory", "lost"}:
        return str(end["reason"])
    return "succeeded" if end["exit_code"] == 0 else "failed"


def _ndjson(events: list[Json]) -> httpx.Response:
    text = "".join(json.dumps(event) + "\n" for event in events)
    return httpx.Response(200, text=text, headers={"Content-Type": "application/x-ndjson"})
