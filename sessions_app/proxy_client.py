"""The one file of the app that asks the proxy: one kept-alive HTTP client a process, shared by all threads.

Every request names what it is about (`session_id`, `execution_id`), so the proxy takes a repetition as the same one:
a connection that breaks under a request is tried once more without asking what became of the first.
"""

from __future__ import annotations

import http.client
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from time import monotonic
from typing import Any
from urllib.parse import quote

import httpx
from django.conf import settings

from sessions_app.exceptions import (
    ProxyUnavailable,
    ProxyUnreachable,
    SandboxMissing,
)
from sessions_app.http_pool import Answer, ConnectFailed, HttpPool
from sessions_app.proxy_errors import answer_of, failure, failure_of

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 1.0
READ_TIMEOUT_S = 10.0
# A cold start, its image at hand, on a busy machine; shorter than the lease of a pending session.
CREATE_TIMEOUT_S = 15.0
# The same for one that is to have libraries, which a registry may be asked for first.
LIBRARIES_TIMEOUT_S = 380.0
# What the proxy may need on top of an execution's own time-out: installing libraries, killing, sending output.
EXECUTE_MARGIN_S = 90.0
# How long a journal that does not end is read before it counts as "still running".
JOURNAL_PATIENCE_S = 1.0

NDJSON = {"Accept": "application/x-ndjson"}
AWAY = "The sandbox service is away. Try again in a few seconds."

Json = dict[str, Any]


class ProxyClient:
    """Speak the proxy's contract; raise the app's own exceptions."""

    def __init__(self, base_url: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        self.base_url, self.token, self.transport = base_url, token, transport
        headers = {"Authorization": f"Bearer {token}"}
        # What is short goes past the client that can do everything; a transport stands in for the network.
        self._pool = HttpPool(base_url, headers, connect_timeout_s=CONNECT_TIMEOUT_S) if transport is None else None
        self._http = httpx.Client(
            base_url=base_url,
            headers=headers,
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            # As many as there are waiting threads: a limit here would make executions wait for each other.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30),
            transport=transport,
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        if self._pool is not None:
            self._pool.close()

    # --- The server -----------------------------------------------------------------------------------------------

    def health(self) -> Json:
        """Return what `GET /` tells: status, version, backend, capabilities, pool."""
        return self._json("GET", "/", timeout_s=CONNECT_TIMEOUT_S)

    def languages(self) -> list[Json]:
        """Return the languages that this server can run, each with its version."""
        return list(self._json("GET", "/languages")["languages"])

    def put_pool(self, templates: list[Json]) -> Json:
        """Tell the proxy which sandboxes to keep ready: the whole wish, not a change of it."""
        return self._json("PUT", "/pool", body={"templates": templates})

    # --- Sessions -------------------------------------------------------------------------------------------------

    def create_session(self, body: Mapping[str, Any]) -> Json:
        """Make the sandbox of `body["session_id"]`, with its libraries, or find it again."""
        with_libraries = body.get("libraries") or body.get("more_libraries")
        timeout_s = LIBRARIES_TIMEOUT_S if with_libraries else CREATE_TIMEOUT_S
        return self._json("POST", "/sessions", body=body, timeout_s=timeout_s)

    def list_sessions(self) -> list[Json]:
        """Return an item, with at least `session_id`, for each session whose sandbox really runs."""
        answer = self._json("GET", "/sessions")
        known = {item["session_id"]: item for item in answer.get("items", [])}
        return [known.get(session_id, {"session_id": session_id}) for session_id in answer["sessions"]]

    def delete_session(self, session_id: object) -> None:
        """End a sandbox; that there is none is as good."""
        try:
            self._json("DELETE", f"/sessions/{session_id}")
        except SandboxMissing:
            return

    # --- Executions -----------------------------------------------------------------------------------------------

    def execute(self, session_id: object, body: Mapping[str, Any], *, wait_s: float) -> Json:
        """Run code, or join its run, and return the result; it may take `wait_s` plus a margin."""
        return self._json("POST", f"/sessions/{session_id}/execute", body=body, timeout_s=wait_s + EXECUTE_MARGIN_S)

    def start(self, session_id: object, body: Mapping[str, Any]) -> None:
        """Hand code over without waiting for it: return once the proxy has it queued or started."""
        path = f"/sessions/{session_id}/execute"
        with self._stream("POST", path, body=body, timeout_s=EXECUTE_MARGIN_S) as response:
            next(_lines(response), None)

    def events(
        self, session_id: object, execution_id: object, *, after: int = 0, follow: bool = True, patience_s: float = 30
    ) -> Iterator[Json]:
        """Yield the journal's events with `seq > after`; go on with live ones when `follow`.

        Silence for longer than `patience_s` raises ProxyUnavailable: the proxy sends blank lines while it waits.
        """
        path = f"/sessions/{session_id}/executions/{execution_id}/events"
        params = {"after": str(after), "follow": "true" if follow else "false"}
        with self._stream("GET", path, params=params, timeout_s=patience_s) as response:
            for line in _lines(response):
                yield json.loads(line)

    def journal(
        self, session_id: object, execution_id: object, *, follow: bool = False, patience_s: float = JOURNAL_PATIENCE_S
    ) -> list[Json]:
        """Return the events so far, `exit` the last when it ended; `follow` waits for that, `patience_s` at most."""
        found: list[Json] = []
        deadline = monotonic() + patience_s
        silence_s = patience_s if follow else READ_TIMEOUT_S
        try:
            for event in self.events(session_id, execution_id, follow=follow, patience_s=silence_s):
                found.append(event)
                if event["type"] == "exit" or (follow and monotonic() > deadline):
                    break
        except ProxyUnavailable:
            if not found:
                raise
        return found

    def cancel(self, session_id: object, execution_id: object) -> None:
        """Kill an execution and all that it started."""
        self._json("DELETE", f"/sessions/{session_id}/executions/{execution_id}")

    def send_stdin(self, session_id: object, execution_id: object, data: bytes, *, eof: bool) -> int:
        """Pass standard input on to code that runs; return how many bytes it has not read yet.

        Sent once: after ProxyUnavailable nobody can tell whether the bytes arrived.
        """
        path = f"/sessions/{session_id}/executions/{execution_id}/stdin"
        try:
            response = self._http.post(path, content=data, params={"eof": "true" if eof else "false"})
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ProxyUnreachable(AWAY) from error
        except httpx.TransportError as error:
            raise ProxyUnavailable("The sandbox service broke off: the input may have arrived or not.") from error
        if not response.is_success:
            raise failure_of(response)
        return int(_decoded(answer_of(response)).get("unread_bytes", 0))

    # --- Files ----------------------------------------------------------------------------------------------------

    def transfer(
        self,
        method: str,
        session_id: object,
        path: bytes,
        *,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        content: Iterator[bytes] | bytes | None = None,
        timeout_s: float,
    ) -> httpx.Response:
        """Send a request about a file and return its answer, whose body is still to be read, and to be closed.

        `timeout_s` bounds each silence, not the whole. It is never sent twice: a body can be read only once.
        """
        # One segment, whatever it holds: nothing on the way may take a part of it for `..` or for another address.
        name = quote(path, safe="").replace(".", "%2E")
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        address = f"/sessions/{session_id}/files/{name}"
        request = self._http.build_request(
            method, address, params=params, headers=headers, content=content, timeout=timeout
        )
        try:
            response = self._http.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise ProxyUnreachable(AWAY) from error
        except httpx.TransportError as error:
            raise ProxyUnavailable(AWAY) from error
        if response.is_success or response.status_code in (304, 416):
            return response
        try:
            response.read()
            raise failure_of(response)
        finally:
            response.close()

    # --- Contexts -------------------------------------------------------------------------------------------------

    def create_context(self, session_id: object, context_id: str) -> Json:
        """Make a context, or find the one of that id again."""
        return self._json("POST", f"/sessions/{session_id}/contexts", body={"context_id": context_id})

    def list_contexts(self, session_id: object) -> list[Json]:
        """Return the contexts of a session."""
        return list(self._json("GET", f"/sessions/{session_id}/contexts")["contexts"])

    def show_context(self, session_id: object, context_id: str) -> Json:
        """Return one context."""
        return self._json("GET", f"/sessions/{session_id}/contexts/{context_id}")

    def restart_context(self, session_id: object, context_id: str) -> Json:
        """Give a context a new interpreter."""
        return self._json("POST", f"/sessions/{session_id}/contexts/{context_id}/restart")

    def interrupt_context(self, session_id: object, context_id: str) -> Json:
        """Interrupt what runs in a context."""
        return self._json("POST", f"/sessions/{session_id}/contexts/{context_id}/interrupt")

    def delete_context(self, session_id: object, context_id: str) -> Json:
        """End a context."""
        return self._json("DELETE", f"/sessions/{session_id}/contexts/{context_id}")

    # --- HTTP -----------------------------------------------------------------------------------------------------

    def _json(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, timeout_s: float = READ_TIMEOUT_S
    ) -> Json:
        if self._pool is None:
            answer = answer_of(self._send(self._request(method, path, body=body, timeout_s=timeout_s)))
        else:
            answer = _exchange(self._pool, method, path, body=body, timeout_s=timeout_s)
        if answer.status // 100 == 2:
            return _decoded(answer)
        raise failure(answer, path)

    @contextmanager
    def _stream(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        timeout_s: float,
    ) -> Iterator[httpx.Response]:
        request = self._request(method, path, body=body, params=params, timeout_s=timeout_s, headers=NDJSON)
        response = self._send(request, stream=True)
        try:
            if not response.is_success:
                response.read()
                raise failure_of(response)
            yield response
        except httpx.TransportError as error:
            raise ProxyUnavailable(AWAY) from error
        finally:
            response.close()

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Request:
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        return self._http.build_request(method, path, json=body, params=params, headers=headers, timeout=timeout)

    def _send(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        try:
            return self._http.send(request, stream=stream)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise ProxyUnreachable(AWAY) from error
        except httpx.TimeoutException as error:
            raise ProxyUnavailable("The sandbox service did not answer in time.") from error
        except httpx.TransportError as error:
            logger.info("The connection to the proxy broke (%r); trying %s once more", error, request.url.path)
        try:
            return self._http.send(request, stream=stream)
        except httpx.TransportError as error:
            raise ProxyUnavailable(AWAY) from error


def _lines(response: httpx.Response) -> Iterator[str]:
    return (line for line in response.iter_lines() if line.strip())


def _exchange(pool: HttpPool, method: str, path: str, *, body: Mapping[str, Any] | None, timeout_s: float) -> Answer:
    payload = None if body is None else json.dumps(body, separators=(",", ":")).encode()
    try:
        return pool.request(method, path, payload, timeout_s=timeout_s)
    except ConnectFailed as error:
        raise ProxyUnreachable(AWAY) from error
    except TimeoutError as error:
        raise ProxyUnavailable("The sandbox service did not answer in time.") from error
    except (OSError, http.client.HTTPException) as error:
        logger.info("The connection to the proxy broke (%r); trying %s once more", error, path)
    try:
        return pool.request(method, path, payload, timeout_s=timeout_s)
    except (OSError, http.client.HTTPException) as error:
        raise ProxyUnavailable(AWAY) from error


def _decoded(answer: Answer) -> Json:
    try:
        value = json.loads(answer.content)
    except ValueError as error:
        raise ProxyUnavailable("The sandbox service gave an answer that is not JSON.") from error
    if not isinstance(value, dict):
        raise ProxyUnavailable("The sandbox service gave an answer of an unknown shape.")
    return value


@cache
def _shared() -> ProxyClient:
    return ProxyClient(settings.PROXY_URL, settings.PROXY_TOKEN)


_instead: list[ProxyClient] = []


def proxy() -> ProxyClient:
    """Return this process's client."""
    return _instead[-1] if _instead else _shared()


@contextmanager
def using(client: ProxyClient) -> Iterator[ProxyClient]:
    """Put another client in place for a while, in all threads: the seam that tests use."""
    _instead.append(client)
    try:
        yield client
    finally:
        _instead.remove(client)
        client.close()
