"""Many threads at the same rows, in a process of its own: `python -m tests.sessions_app.races`.

The tests' own database lives in a transaction or in memory, where threads cannot meet. This one is real, made anew
at `DATABASE_URL`. Each scenario has an owner of its own and returns what a test looks at; all are printed as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import django
import httpx
from django.core.management import call_command

T = TypeVar("T")


def together(count: int, work: Callable[[int], T]) -> list[T | str]:
    """Do the same in so many threads at the same moment; an exception counts as its name."""
    from django.db import connection

    barrier = threading.Barrier(count)

    def one(number: int) -> T | str:
        try:
            barrier.wait(30)
            return work(number)
        except Exception as error:
            return type(error).__name__
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def submissions(owner: Any, proxy: Any) -> dict[str, Any]:
    """Submit, complete and settle executions of one session at once."""
    from sessions_app.models import Execution, Session
    from sessions_app.services.executions import complete_execution, submit_execution
    from sessions_app.services.sessions import create_session

    session = create_session(owner=owner, actor="api")

    def submit(number: int) -> str:
        own = Session.objects.select_related("template").get(pk=session.pk)
        return submit_execution(session=own, code=str(number), actor="api").status

    submitted = together(24, submit)
    rows = list(Execution.objects.owned_by(owner))

    def complete(number: int) -> str:
        # Two at a time want to settle the same one.
        own = Execution.objects.select_related("session__template").get(pk=rows[number % len(rows)].pk)
        return complete_execution(own, actor="api").status

    completed = together(2 * len(rows), complete)
    session.refresh_from_db()
    return {
        "submitted": Counter(submitted),
        "completed": Counter(completed),
        "live": session.live_executions,
        "ends": Counter(Execution.objects.get(pk=row.pk).events.filter(to_status="succeeded").count() for row in rows),
        "idle_clock_runs": session.expires_at < session.lifetime_ends_at,  # type: ignore[operator]
    }


def endings(owner: Any, proxy: Any) -> dict[str, Any]:
    """Have two reapers and some users end the same sessions at once."""
    from sessions_app.attempts import Reaper
    from sessions_app.models import Session, SessionEvent
    from sessions_app.reaper import sweep
    from sessions_app.services.sessions import create_session, terminate_session

    for _ in range(40):
        create_session(owner=owner, actor="api", idle_timeout=1)
    time.sleep(1.1)

    def end(number: int) -> str:
        if number < 2:
            return "swept" if not sweep(Reaper(workers=4)).failures else "failed"
        for session in Session.objects.filter(owner=owner).order_by("?" if number % 2 else "pk"):
            terminate_session(session=session, reason="user", actor="api")
        return "ended"

    return {
        "did": Counter(together(4, end)),
        "statuses": Counter(Session.objects.filter(owner=owner).values_list("status", flat=True)),
        "ends": Counter(SessionEvent.objects.filter(session__owner=owner).values_list("to_status", flat=True)),
        "sandboxes": len(proxy.sandboxes),
    }


def claims(owner: Any, proxy: Any) -> dict[str, Any]:
    """Use one idempotency key many times at once."""
    from sessions_app.services import idempotency

    def claim(_number: int) -> str:
        return "began" if idempotency.claim(owner=owner, key="k", fingerprint="f").answer is None else "replayed"

    return {"did": Counter(together(16, claim))}


def waiting(owner: Any, proxy: Any) -> dict[str, Any]:
    """Have many more executions wait at once than the database has connections for."""
    from sessions_app.services.executions import complete_execution, submit_execution
    from sessions_app.services.sessions import create_session

    sessions = [create_session(owner=owner, actor="api") for _ in range(30)]
    here = threading.Barrier(len(sessions))

    def all_wait_at_once(request: httpx.Request) -> None:
        if request.url.path.endswith("/execute"):
            here.wait(20)

    proxy.before = all_wait_at_once

    def run(number: int) -> str:
        return complete_execution(submit_execution(session=sessions[number], code="1", actor="api"), actor="api").status

    return {"did": Counter(together(len(sessions), run))}


def leases(owner: Any, proxy: Any) -> dict[str, Any]:
    """Make a session for much longer than a lease, while reapers and repeated requests look; then die in it."""
    from datetime import timedelta
    from unittest import mock

    from sessions_app import reaper
    from sessions_app.attempts import Reaper
    from sessions_app.models import Session
    from sessions_app.services import leases as leases_module
    from sessions_app.services import sessions

    def make(takes_s: float, *, dies: bool = False) -> str:
        def bring_libraries(_request: httpx.Request) -> None:
            time.sleep(takes_s)
            if dies:
                raise KeyboardInterrupt

        proxy.before = bring_libraries
        try:
            return sessions.create_session(owner=owner, actor="api", libraries=["numpy"]).status
        except KeyboardInterrupt:
            return "died"
        finally:
            proxy.before = None

    def look(seconds: float, *, repeat: bool = False) -> Counter[str]:
        did: Counter[str] = Counter()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for session in Session.objects.filter(owner=owner, status="pending"):
                did["seen"] = 1
                did["taken up"] += repeat and sessions.take_up(session, actor="api")
            did["failed"] += reaper.finish_stuck(Reaper(workers=1))
            time.sleep(0.05)
        return did

    lease = timedelta(seconds=3)
    with (
        mock.patch.multiple(leases_module, RENEW_EVERY_S=0.2, PENDING_LEASE=lease),
        mock.patch.multiple(sessions, PENDING_LEASE=lease, TAKE_UP_AFTER=timedelta(seconds=2)),
    ):
        alive = together(2, lambda number: look(4.5, repeat=True) if number else make(5))
        dead = [make(0.5, dies=True), look(4)]
    statuses = Session.objects.filter(owner=owner).values_list("status", flat=True)
    return {"alive": alive, "dead": dead, "statuses": sorted(statuses)}


SCENARIOS = (submissions, endings, claims, waiting, leases)


def main() -> None:
    """Make the database, play the scenarios and print what came of them."""
    django.setup()
    from django.contrib.auth.models import User

    from sessions_app.proxy_client import ProxyClient, using
    from tests.sessions_app.fake_proxy import FakeProxy

    call_command("migrate", verbosity=0)
    results = {}
    for scenario in SCENARIOS:
        proxy = FakeProxy()
        with using(ProxyClient("http://proxy.test", "token", transport=proxy.transport())):
            results[scenario.__name__] = scenario(User.objects.create_user(scenario.__name__), proxy)
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main()
