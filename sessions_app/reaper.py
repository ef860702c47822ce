"""What the reaper does: plain functions, without loop or signals; `manage.py reap_sessions` calls them.

Any number of reapers may run at once: each takes a row by a compare-and-swap before it works on it. Each step handles
a bounded batch, one thing's failure never stops the others, and what keeps failing is tried less and less often. While
the proxy is away, sessions end for their users all the same, and what needs the proxy waits without being tried. A
reaper may be killed anywhere: what it had begun is found again by the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Max

from sessions_app import clock
from sessions_app.attempts import Reaper
from sessions_app.exceptions import ProxyUnavailable, SandboxwebError
from sessions_app.models import Actor, Execution, ReaperSweep, Session, TimeoutPolicy
from sessions_app.models.session import TERMINATING_LEASE
from sessions_app.proxy_client import proxy
from sessions_app.services import artifacts, idempotency, retention
from sessions_app.services.connections import release_connection, replace_broken_connection
from sessions_app.services.executions import end_one_shot
from sessions_app.services.pool import push_pool
from sessions_app.services.sessions import finish_termination
from sessions_app.services.settlement import look_after, lose_session

logger = logging.getLogger(__name__)

# A session's row stands before its sandbox is asked for, so a sandbox whose row ended is nobody's: what remains is
# the time in which its own end may still be under way.
ENDED_GRACE = timedelta(seconds=10)
# A sandbox without any row was made by somebody who uses the proxy by hand, or its row was deleted.
UNKNOWN_GRACE = timedelta(minutes=5)

LOST_MESSAGE = "The sandbox does not run any more."
UNFINISHED_MESSAGE = "The server stopped while it made the sandbox."


@dataclass
class Sweep:
    """Say what one sweep did: how many each step handled, and what the failed ones said."""

    counts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    is_full: bool = False


# --- The steps --------------------------------------------------------------------------------------------------------


def reconcile(reaper: Reaper) -> int:
    """Compare with what really runs: sessions without a sandbox are lost, sandboxes without a session are destroyed.

    The order of the three questions is what makes it safe. A session that was active before the proxy was asked had
    its sandbox by then, so if it is not listed it is gone. A sandbox that is listed had its row before it was made, so
    if that row is not live afterwards it is nobody's. It comes first: its answer tells whether the proxy is there.
    """
    active = set(Session.objects.active().order_by().values_list("pk", flat=True))
    release_connection()
    try:
        items = {str(item["session_id"]): item for item in proxy().list_sessions()}
    except ProxyUnavailable:
        reaper.proxy_is_away = True
        raise
    missing = [pk for pk in active if str(pk) not in items][: reaper.batch]
    lost = Session.objects.filter(pk__in=missing).select_related("template") if missing else []
    owned = {str(pk) for pk in active}
    nobodys = _nobodys([item for session_id, item in items.items() if session_id not in owned])
    return reaper.each(list(lost), _lose) + reaper.each(nobodys[: reaper.batch], _destroy, asks_proxy=True)


def _lose(session: Session) -> bool:
    lose_session(session, error=LOST_MESSAGE, actor=Actor.REAPER)
    return True


def _nobodys(items: list[dict[str, Any]]) -> list[str]:
    """Return the ids of sandboxes that no live row owns, and whose grace is over."""
    if not items:
        return []
    now = clock.now()
    ids = _uuids([str(item["session_id"]) for item in items])
    # Of a live row this is None: its sandbox is left alone.
    ended_at = {str(pk): at for pk, at in Session.objects.filter(pk__in=ids).values_list("pk", "finished_at")}
    found = []
    for item in items:
        session_id = str(item["session_id"])
        if session_id in ended_at:
            since, grace = ended_at[session_id], ENDED_GRACE
        else:
            since, grace = _made_at(item), UNKNOWN_GRACE
        if since is not None and now - since > grace:
            found.append(session_id)
    return found


def _destroy(session_id: str) -> bool:
    proxy().delete_session(session_id)
    logger.info("Destroyed the sandbox %s, which no live session owns", session_id)
    return True


def end_expired(reaper: Reaper) -> int:
    """End active sessions whose deadline has come; for their users they are over even while the proxy is away."""

    begun: list[Session] = []

    def begin(session: Session) -> bool:
        if not session.begin_expiry(actor=Actor.REAPER):
            return False
        begun.append(session)
        return True

    held = [key for key in reaper.backoff.held() if isinstance(key, UUID)]
    due = Session.objects.due(clock.now()).select_related("template")
    count = reaper.each(list((due.exclude(pk__in=held) if held else due)[: reaper.batch]), begin)
    reaper.each(begun, _finish, asks_proxy=True)
    if reaper.proxy_is_away:
        for session in begun:
            session.put_off(clock.now())
    return count


def _finish(session: Session) -> bool:
    finish_termination(session, actor=Actor.REAPER)
    return True


def announce_ends(reaper: Reaper) -> int:
    """Tell once, in its events, of each session that is about to end: a renewal still saves it."""
    widest = TimeoutPolicy.objects.aggregate(widest=Max("grace_s"))["widest"] or 0
    soon = Session.objects.expiring(clock.now(), within=timedelta(seconds=widest))[: reaper.batch]
    return reaper.each(list(soon), lambda session: session.announce_end(actor=Actor.REAPER))


def settle_executions(reaper: Reaper) -> int:
    """Write down what became of executions that nobody may be waiting for; a one-shot's session ends with it."""
    if reaper.proxy_is_away:
        return 0
    now = clock.now()

    def settle(execution: Execution) -> bool:
        if not execution.claim(now=now):
            return False
        look_after(execution, actor=Actor.REAPER)
        if execution.is_live:
            return False
        if execution.session.is_one_shot:
            end_one_shot(execution.session, actor=Actor.REAPER)
        return True

    rows = Execution.objects.unattended(now).select_related("session__template")[: reaper.batch]
    return reaper.each(list(rows), settle, asks_proxy=True)


def finish_stuck(reaper: Reaper) -> int:
    """Finish what a crash left half-way: sessions being made fail, sessions being ended end."""
    now = clock.now()

    def finish(session: Session) -> bool:
        is_in_vain = reaper.proxy_is_away and session.status == Session.Status.TERMINATING
        if is_in_vain or not session.claim(now=now, lease=TERMINATING_LEASE):
            return False
        if session.status == Session.Status.TERMINATING:
            return _finish(session)
        if not session.fail(reason=Session.Reason.ERROR, error=UNFINISHED_MESSAGE, actor=Actor.REAPER):
            return False
        if not reaper.proxy_is_away:
            release_connection()
            # What is left if this fails, `reconcile` finds: its row is not live any more.
            reaper.attempt(str(session.pk), _destroy)
        return True

    rows = Session.objects.stuck(now).select_related("template")
    if reaper.proxy_is_away:
        rows = rows.filter(status=Session.Status.PENDING)
    return reaper.each(list(rows[: reaper.batch]), finish)


def push_pool_targets(reaper: Reaper) -> int:
    """Say again which sandboxes the proxy keeps ready: it may have been started anew. Not counted as work."""
    if not reaper.proxy_is_away:
        push_pool()
    return 0


def drop_idempotency_records(reaper: Reaper) -> int:
    """Delete the answers that nobody may ask for again."""
    return idempotency.drop_old(limit=reaper.batch * 10)


def drop_old_sessions(reaper: Reaper) -> int:
    """Delete sessions that ended longer ago than they are kept, with their executions and events."""
    age = settings.SESSION_RETENTION
    return 0 if age is None else retention.drop_ended(age, limit=reaper.batch)


def drop_artifacts(reaper: Reaper) -> int:
    """Delete the artifacts whose time is over, and bytes that nothing tells of."""
    return artifacts.drop_expired(limit=reaper.batch) + artifacts.drop_orphans()


STEPS: tuple[Callable[[Reaper], int], ...] = (
    reconcile,
    end_expired,
    announce_ends,
    settle_executions,
    finish_stuck,
    push_pool_targets,
    drop_idempotency_records,
    drop_old_sessions,
    drop_artifacts,
)

# --- A sweep ----------------------------------------------------------------------------------------------------------


def sweep(reaper: Reaper) -> Sweep:
    """Do every step once, whatever becomes of the others, and keep a record of it."""
    _follow_the_clock()
    started_at = clock.now()
    reaper.proxy_is_away = False
    done = Sweep()
    for step in STEPS:
        if reaper.should_stop():
            break
        name = step.__name__
        replace_broken_connection()
        try:
            count = step(reaper)
        except SandboxwebError as error:
            done.failures[name] = error.message
        except Exception as error:
            logger.exception("The step %s failed", name)
            done.failures[name] = type(error).__name__
        else:
            done.counts[name] = count
            done.is_full = done.is_full or count >= reaper.batch
    reaper.proxy_is_away = False
    _record(done, started_at)
    return done


def _follow_the_clock() -> None:
    replace_broken_connection()
    try:
        clock.refresh()
    except DatabaseError as error:
        logger.warning("The database's clock could not be read: %s", error)


def _record(done: Sweep, started_at: datetime) -> None:
    """Keep the sweep for the admin's front page and the metrics; that it cannot be kept stops nothing."""
    try:
        ReaperSweep.keep(started_at=started_at, counts=done.counts, failures=done.failures)
    except Exception:
        logger.exception("The sweep could not be recorded")


def _uuids(ids: list[str]) -> list[str]:
    found = []
    for text in ids:
        try:
            found.append(str(UUID(text)))
        except ValueError:
            continue
    return found


def _made_at(item: dict[str, Any]) -> datetime | None:
    made = item.get("created_at")
    if isinstance(made, int | float):
        return datetime.fromtimestamp(made, UTC)
    try:
        return datetime.fromisoformat(str(made))
    except ValueError:
        return None
