"""The proxy's event streams, on the event loop: any number of them, and no thread for one that waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import httpx

from sessions_app.exceptions import ProxyUnavailable, ProxyUnreachable
from sessions_app.proxy_client import AWAY, CONNECT_TIMEOUT_S, NDJSON, ProxyClient, proxy
from sessions_app.proxy_errors import failure_of

# The proxy sends a blank line every few seconds while nothing happens.
SILENCE_S = 30.0
# A line is one event; the agent's chunks have 64 KiB, a rich result may have some MiB.
MAX_LINE_BYTES = 64 * 1024 * 1024


class Event(NamedTuple):
    """One event; `raw` is the whole of it in JSON, as the proxy wrote it."""

    seq: int
    type: str
    raw: bytes
    execution_id: str = ""


Batch = list[Event]

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ProxyClient, httpx.AsyncClient]] = WeakKeyDictionary()


def events(session_id: object, execution_id: object, *, after: int) -> AsyncGenerator[Batch]:
    """Yield an execution's events with `seq > after` as they come, in batches; an empty one is a sign of life.

    Raises ExecutionUnknown, SandboxFailed, ProxyUnavailable. Ends after `exit`, or when the proxy lets go.
    """
    return lines(f"/sessions/{session_id}/executions/{execution_id}/events", {"after": str(after)})


def session_events(session_id: object, *, since: str | None) -> AsyncGenerator[Batch]:
    """Yield the events of all executions of a session, in order, for as long as it lives.

    Begins with what runs now, or after `since`, an execution's id and a number with a colon between. An event `gap`
    comes first when that is not known any more. Raises SandboxFailed, ProxyUnavailable.
    """
    return lines(f"/sessions/{session_id}/events", {} if since is None else {"since": since})


async def lines(path: str, params: Mapping[str, str]) -> AsyncGenerator[Batch]:
    """Yield the events of one of the proxy's streams, a batch for each piece that arrives."""
    client = _client()
    try:
        async with client.stream("GET", path, params=dict(params)) as response:
            if not response.is_success:
                await response.aread()
                raise failure_of(response)
            rest = b""
            async for piece in response.aiter_bytes():
                *whole, rest = (rest + piece).split(b"\n") if rest else piece.split(b"\n")
                if len(rest) > MAX_LINE_BYTES:
                    raise ProxyUnavailable("The sandbox service sent a line without an end.")
                yield [_event(line) for line in whole if line.strip()]
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
        raise ProxyUnreachable(AWAY) from error
    except httpx.TransportError as error:
        raise ProxyUnavailable(AWAY) from error


def _event(line: bytes) -> Event:
    try:
        told = json.loads(line)
        return Event(int(told["seq"]), str(told["type"]), line, str(told.get("execution_id", "")))
    except (ValueError, TypeError, KeyError) as error:
        raise ProxyUnavailable("The sandbox service sent what is no event.") from error


def _client() -> httpx.AsyncClient:
    """Return the client of this loop. A stream's connection ends with it: there is nothing to keep alive."""
    asked = proxy()
    of_loop = _clients.setdefault(asyncio.get_running_loop(), {})
    if asked not in of_loop:
        transport = asked.transport if isinstance(asked.transport, httpx.AsyncBaseTransport) else None
        of_loop[asked] = httpx.AsyncClient(
            base_url=asked.base_url,
            headers={"Authorization": f"Bearer {asked.token}", **NDJSON},
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            transport=transport,
            trust_env=False,
        )
    return of_loop[asked]
