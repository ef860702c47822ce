"""Following executions as they run, from any event on, over whatever breaks on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic
from typing import Any

from sessions_app import proxy_streams
from sessions_app.exceptions import ExecutionUnknown, ProxyUnavailable, SandboxFailed
from sessions_app.models import Execution
from sessions_app.proxy_client import proxy
from sessions_app.proxy_streams import Batch, Event
from sessions_app.services.connections import release_connection
from sessions_app.services.executions import end_one_shot
from sessions_app.services.settlement import settle_execution
from sessions_app.threads import in_thread

# How long a stream outlasts a proxy that is away: a restart takes a few seconds.
PATIENCE_S = 20.0
PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0

GAP = "The sandbox is gone, and with it the events after the last that you had. `GET /executions/{id}` has the output."
MEASURES = ("status", "exit_code", "signal", "duration_ms", "cpu_ms", "max_rss_bytes")


async def follow_execution(execution: Execution, *, actor: str, after: int = 0) -> AsyncGenerator[Batch]:
    """Yield the events with `seq > after` as they come, to the end; an empty batch is a sign of life.

    At the end the execution is settled, and what it was given is its row's. Ceasing to iterate does not stop the code.
    Raises ProxyUnavailable when the proxy stays away; the stream is then taken up again with `after`.
    """
    away_since: float | None = None
    pause_s = PAUSE_S
    session_is_live = execution.session.is_live
    while execution.is_live or session_is_live:
        try:
            async with aclosing(_told(execution, after)) as batches:
                async for batch in batches:
                    away_since, pause_s = None, PAUSE_S
                    if batch:
                        after = batch[-1].seq
                    yield batch
                    if batch and batch[-1].type == "exit":
                        session_is_live = await in_thread(settle, execution, actor)
                        if not execution.is_live:
                            return
            # The proxy let go before the end: it stops, or the session does.
            raise ProxyUnavailable("The sandbox service ended the stream.")
        except (ExecutionUnknown, SandboxFailed):
            session_is_live = await in_thread(settle, execution, actor)
        except ProxyUnavailable:
            session_is_live = await in_thread(settle, execution, actor)
            away_since = away_since or monotonic()
            if execution.is_live and monotonic() - away_since > PATIENCE_S:
                raise
        if not execution.is_live:
            break
        yield []
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    yield kept_events(execution, after)


async def _told(execution: Execution, after: int) -> AsyncGenerator[Batch]:
    """Yield what the proxy tells, without what is only for itself."""
    async with aclosing(proxy_streams.events(execution.session_id, execution.pk, after=after)) as batches:
        async for batch in batches:
            yield [event for event in batch if event.seq > 0]


def settle(execution: Execution, actor: str) -> bool:
    """Have the row say how it ended, unless somebody who waited has written that; tell whether its session is live."""
    execution.refresh_from_db()
    session_is_live = execution.session.is_live
    settle_execution(execution, actor=actor)
    if execution.session.is_one_shot and not execution.is_live and session_is_live:
        end_one_shot(execution.session, actor=actor)
        return False
    return session_is_live


def journal_of(execution: Execution, *, actor: str, after: int = 0) -> list[Any]:
    """Return the events so far with `seq > after`, as values: the sandbox's own while it has them, else what was kept.

    Raises ProxyUnavailable when it is away and nothing is kept yet.
    """
    if execution.session.is_live:
        release_connection()
        try:
            told = list(proxy().events(execution.session_id, execution.pk, after=after, follow=False))
        except (ExecutionUnknown, SandboxFailed):
            settle(execution, actor)
        except ProxyUnavailable:
            if execution.is_live:
                raise
        else:
            if execution.is_live and told and told[-1]["type"] == "exit":
                settle(execution, actor)
            return told
    return [] if execution.is_live else [json.loads(event.raw) for event in kept_events(execution, after)]


def kept_events(execution: Execution, after: int) -> Batch:
    """Return what the row has kept of the events: its output in one piece, for whoever has seen nothing of it.

    Whoever has seen a part is told of the gap: which part that was, the sandbox took along.
    """
    ended = execution.finished_at.timestamp() if execution.finished_at else None
    began = execution.started_at.timestamp() if execution.started_at else ended
    events: list[tuple[str, Any, float | None]] = []
    if after == 0:
        events = [("started", {}, began)]
        events += [(name, text, ended) for name in ("stdout", "stderr") if (text := getattr(execution, name))]
    events.append(("exit", {name: getattr(execution, name) for name in MEASURES}, ended))
    # Counted backwards from the last number that the journal had, so that whoever goes on from here has seen all.
    first = max(execution.last_seq, len(events)) - len(events) + 1
    numbered = [event_of(seq, *event) for seq, event in enumerate(events, start=first)]
    missed = after and execution.last_seq - after > 1
    gap = [event_of(0, "gap", {"events": execution.last_seq - after - 1, "detail": GAP}, None)] if missed else []
    return gap + [event for event in numbered if event.seq > after]


def event_of(seq: int, kind: str, data: Any, at: float | None) -> Event:
    """Return an event of this server's own making."""
    raw = json.dumps({"seq": seq, "type": kind, "data": data, "at": at}, ensure_ascii=False, separators=(",", ":"))
    return Event(seq, kind, raw.encode("utf-8", "replace"))
