"""All that happens in a session, for any number of watchers in this process.

One pump a session follows the proxy's stream and writes messages into a log; each watcher reads that at its own pace.
State is pulled: nothing passes between processes, so watchers on several of them need no broker to see the same. A
watcher that falls so far behind that the log has let go of what it needs is cut off; the others do not notice.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from django.db import DatabaseError
from django.db.models import F, Q

from sessions_app import proxy_streams
from sessions_app.api.streams import finished
from sessions_app.exceptions import ProxyUnavailable, SandboxFailed
from sessions_app.models import Actor, Execution, Session, SessionEvent
from sessions_app.proxy_streams import Event
from sessions_app.querysets import EXECUTION_LIVE
from sessions_app.services.following import kept_events, settle
from sessions_app.threads import in_thread

logger = logging.getLogger(__name__)

MAX_LOG_BYTES = 16 * 1024 * 1024
# A watcher takes this many messages, or this much, before it looks again whether it has fallen behind.
BATCH_MESSAGES = 64
BATCH_CHARS = 256 * 1024
SHORTEST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
# How often it is looked whether the session's end was announced.
ANNOUNCEMENTS_EVERY_S = 3.0
# How long the first watcher waits for the proxy before it may speak.
CONNECT_PATIENCE_S = 3.0
# A number after which an execution has no events.
PAST_ITS_END = 10**14


class FellBehind(Exception):
    """A watcher was too slow."""


class Log:
    """The newest messages, numbered from 0 on."""

    def __init__(self, max_bytes: int) -> None:
        """Begin empty."""
        self._max_bytes = max_bytes
        self._texts: deque[str] = deque()
        self._bytes = 0
        self._news: asyncio.Future[None] | None = None
        self.first = 0

    @property
    def next(self) -> int:
        """Return the number of the next message."""
        return self.first + len(self._texts)

    def append(self, text: str) -> None:
        """Add a message, letting go of the oldest when there are too many."""
        self._texts.append(text)
        self._bytes += len(text)
        while self._bytes > self._max_bytes and len(self._texts) > 1:
            self.forget(self.first + 1)
        self.notify()

    def forget(self, before: int) -> None:
        """Let go of the messages before a number."""
        while self._texts and self.first < before:
            self._bytes -= len(self._texts.popleft())
            self.first += 1

    def read(self, start: int) -> list[str]:
        """Return some messages from a number on. Raises FellBehind when it is gone."""
        if start < self.first:
            raise FellBehind
        found: list[str] = []
        chars = 0
        for index in range(start - self.first, min(len(self._texts), start - self.first + BATCH_MESSAGES)):
            found.append(self._texts[index])
            chars += len(self._texts[index])
            if chars >= BATCH_CHARS:
                break
        return found

    def notify(self) -> None:
        """Wake those who wait for something new."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        self._news = None

    async def news(self) -> None:
        """Wait for something new."""
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._news)


class Watcher:
    """One reader of a pump's log."""

    def __init__(self, pump: Pump) -> None:
        """Begin with what runs now, from its beginning if that is still there."""
        self._pump = pump
        self.place = pump.log.next if pump.began is None else max(pump.began, pump.log.first)

    async def connected(self) -> None:
        """Wait until nothing that begins now can be missed."""
        await self._pump.connected()

    async def read(self) -> list[str]:
        """Return the next messages, waiting for one; none at the session's end. Raises FellBehind."""
        log = self._pump.log
        while not (found := log.read(self.place)):
            if self._pump.has_ended:
                return []
            await log.news()
        self.place += len(found)
        self._pump.tidy()
        return found


class Pump:
    """Follow one session as long as somebody watches it."""

    def __init__(self, session_id: UUID) -> None:
        """Begin to follow."""
        self.session_id = session_id
        self.log = Log(MAX_LOG_BYTES)
        self.began: int | None = None
        """The number of the first message about the execution that runs now."""
        self.has_ended = False
        self.watchers: set[Watcher] = set()
        self._last: tuple[str, int] | None = None
        self._is_connected = asyncio.Event()
        self._task = asyncio.ensure_future(self._run())
        self._announcer = asyncio.ensure_future(self._announce())

    async def connected(self) -> None:
        """Wait until nothing that begins now can be missed; not for a proxy that is away."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_PATIENCE_S):
                await self._is_connected.wait()

    def stop(self) -> None:
        """Follow no more."""
        self._task.cancel()
        self._announcer.cancel()

    def tidy(self) -> None:
        """Let go of what all watchers have, but for what runs: a watcher that comes now is told of all that."""
        needed = min((watcher.place for watcher in self.watchers), default=self.log.next)
        self.log.forget(needed if self.began is None else min(needed, self.began))

    def say(self, **message: Any) -> None:
        """Tell all watchers something of this server's own."""
        self.log.append(json.dumps(message, ensure_ascii=False, separators=(",", ":")))

    async def _run(self) -> None:
        try:
            pause_s = SHORTEST_PAUSE_S
            while not self.has_ended:
                try:
                    if await self._follow():
                        pause_s = SHORTEST_PAUSE_S
                    # The stream ended: with its session, or with the proxy.
                    await self._look()
                except SandboxFailed:
                    await self._look()
                except ProxyUnavailable:
                    pass
                except DatabaseError as error:
                    logger.warning("Session %s cannot be followed now: %s", self.session_id, error)
                if not self.has_ended:
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        except Exception:
            logger.exception("Session %s cannot be followed", self.session_id)
        finally:
            self.has_ended = True
            self._announcer.cancel()
            self._is_connected.set()
            self.log.notify()

    async def _announce(self) -> None:
        """Tell of each deadline that the reaper announces: the announcement is in the database alone."""
        told: dict[str, Any] | None = None
        while not self.has_ended:
            await asyncio.sleep(ANNOUNCEMENTS_EVERY_S)
            try:
                announced = await in_thread(_announced, self.session_id)
            except DatabaseError as error:
                logger.info("Whether session %s is about to end is not known now: %s", self.session_id, error)
                continue
            if announced is not None and announced != told:
                told = announced
                self.say(type="expiring", session_id=str(self.session_id), **announced)

    async def _follow(self) -> bool:
        since = None if self._last is None else "{}:{}".format(*self._last)
        heard = False
        async with aclosing(proxy_streams.session_events(self.session_id, since=since)) as batches:
            async for batch in batches:
                heard = True
                for event in batch:
                    await self._tell(event)
                self._is_connected.set()
        return heard

    async def _tell(self, event: Event) -> None:
        if event.type == "place":
            self._last = self._last or (event.execution_id, PAST_ITS_END)
            return
        if event.type == "gap":
            self._last = None
            self.say(type="gap", detail="Events were missed; `GET /executions/{id}/events` has them.")
            return
        if event.type == "started" or self.began is None:
            self.began = self.log.next
        if event.type == "exit":
            # First, so that the end comes again if the database fails.
            execution = await in_thread(_settled, event.execution_id, self.session_id)
        self.log.append(event.raw.decode())
        self._last = event.execution_id, event.seq
        if event.type == "exit":
            if execution is not None:
                self._finish(execution, event.seq)
            self.began = None
            self.tidy()

    def _finish(self, execution: Execution, last: int) -> None:
        self.log.append(_addressed(finished(execution, last), execution))

    async def _look(self) -> None:
        """Ask the database what became of the session, and tell of executions that nobody will tell of any more."""
        key, seq = self._last or ("", 0)
        begun = None if self.began is None else key
        session, ended = await in_thread(_state, self.session_id, begun)
        for execution in ended:
            after = seq if key == str(execution.pk) else 0
            for event in kept_events(execution, after):
                self.log.append(_addressed(event, execution))
            self._finish(execution, max(after, execution.last_seq))
            self.began = None
        if session is None or not session.is_live:
            self.say(
                type="session",
                session_id=str(self.session_id),
                status="terminated" if session is None else session.status,
                termination_reason=None if session is None else session.termination_reason or None,
            )
            self.has_ended = True
            self.log.notify()


def _addressed(event: Event, execution: Execution) -> str:
    """Return an event with the execution that it is of."""
    return f'{event.raw.decode()[:-1]},"execution_id":"{execution.pk}"}}'


def _settled(execution_id: str, session_id: UUID) -> Execution | None:
    try:
        key = UUID(execution_id)
    except ValueError:
        return None
    execution = Execution.objects.select_related("session__template").filter(pk=key, session_id=session_id).first()
    if execution is not None:
        settle(execution, Actor.API)
    return execution


def _state(session_id: UUID, begun: str | None) -> tuple[Session | None, list[Execution]]:
    """Return the session, and what has ended of its live executions and the one that is told of now."""
    ended = []
    rows = Execution.objects.select_related("session__template").filter(session_id=session_id)
    for execution in rows.filter(Q(status__in=EXECUTION_LIVE) | Q(pk=begun)).order_by("created_at"):
        settle(execution, Actor.API)
        if not execution.is_live:
            ended.append(execution)
    return Session.objects.filter(pk=session_id).first(), ended


def _announced(session_id: UUID) -> dict[str, Any] | None:
    """Return the end of an active session that the reaper has announced, unless it was moved since."""
    newest = SessionEvent.objects.filter(
        session_id=session_id, type=SessionEvent.Type.EXPIRING, session__announced_for=F("session__expires_at")
    )
    event = newest.filter(session__status=Session.Status.ACTIVE).order_by("-created_at", "-id").first()
    return None if event is None else {"expires_at": event.data["expires_at"], "reason": event.reason}


_pumps: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[UUID, Pump]] = WeakKeyDictionary()


@contextmanager
def watching(session_id: UUID) -> Iterator[Watcher]:
    """Watch a session; the first watcher starts its pump, the last one stops it."""
    pumps = _pumps.setdefault(asyncio.get_running_loop(), {})
    pump = pumps.get(session_id)
    if pump is None or pump.has_ended:
        pump = pumps[session_id] = Pump(session_id)
    watcher = Watcher(pump)
    pump.watchers.add(watcher)
    try:
        yield watcher
    finally:
        pump.watchers.discard(watcher)
        if not pump.watchers:
            pump.stop()
            if pumps.get(session_id) is pump:
                del pumps[session_id]
