"""How things are, in a few numbers: for the admin's front page, the metrics and the health check."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.db.models import Count, Q

from sessions_app import clock
from sessions_app.models import Execution, ReaperSweep, Session

# A reaper sweeps every few seconds; after this long without one it is not running.
SWEEP_IS_LATE_AFTER = timedelta(seconds=60)
# A session whose deadline has come is due; one that no sweep has ended for so long is overdue.
OVERDUE_AFTER = timedelta(seconds=30)
END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True)
class Overview:
    """Counts of live rows, each read from a partial index: the cost grows with what lives, not with what is kept."""

    active: int
    pending: int
    terminating: int
    due: int
    overdue: int
    running: int
    queued: int
    sweep: ReaperSweep | None
    now: datetime

    @property
    def passing(self) -> int:
        """Return how many sessions are being made or ended."""
        return self.pending + self.terminating

    @property
    def sweep_is_late(self) -> bool:
        """Tell whether the reaper seems not to run."""
        return self.sweep is None or self.now - self.sweep.finished_at > SWEEP_IS_LATE_AFTER


def overview() -> Overview:
    """Return how many sessions and executions live now."""
    now = clock.now()
    # Every live row has its instant, so those due at the end of time are all of them, and an index has them together.
    passing = dict(Session.objects.stuck(END_OF_TIME).order_by().values_list("status").annotate(Count("pk")))
    executions = dict(Execution.objects.unattended(END_OF_TIME).order_by().values_list("status").annotate(Count("pk")))
    long_due = Count("pk", filter=Q(expires_at__lte=now - OVERDUE_AFTER))
    late = Session.objects.due(now).order_by().aggregate(due=Count("pk"), overdue=long_due)
    return Overview(
        active=Session.objects.due(END_OF_TIME).count(),
        pending=passing.get("pending", 0),
        terminating=passing.get("terminating", 0),
        due=late["due"],
        overdue=late["overdue"],
        running=executions.get("running", 0),
        queued=executions.get("queued", 0),
        sweep=ReaperSweep.objects.first(),
        now=now,
    )


def database_answers() -> bool:
    """Tell whether the database answers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return bool(cursor.fetchone())
