"""Session: a user's row for one sandbox, from the request for it to its end."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import models, transaction
from django.db.models import Case, DateTimeField, F, Q, When
from django.db.models.functions import Least

from sessions_app import clock
from sessions_app.limits import MAX_LIVE_EXECUTIONS
from sessions_app.models.deadlines import LIFETIME_ENDS_AT, after, idle_deadline
from sessions_app.models.event import SessionEvent
from sessions_app.models.template import SandboxTemplate
from sessions_app.prepared import Parameter, PreparedUpdate
from sessions_app.querysets import SESSION_ENDED, SESSION_LIVE, SESSION_PASSING, SessionQuerySet

# How long whoever makes or ends a sandbox may take before a reaper takes the row over. Making one is bounded by the
# proxy client's own time-out, which is shorter: else a reaper would end a session that is still being made. Where
# libraries are brought, which takes longer, its maker renews the lease.
PENDING_LEASE = timedelta(seconds=18)
TERMINATING_LEASE = timedelta(seconds=15)


class Session(models.Model):
    """Be the truth about one session; every transition is a compare-and-swap that also writes its event."""

    class Status(models.TextChoices):
        # The row stands, its sandbox is being made.
        PENDING = "pending", "Pending"
        # It has a sandbox and can run code.
        ACTIVE = "active", "Active"
        # It is over for its user; its sandbox may still be there.
        TERMINATING = "terminating", "Terminating"
        # It ended, and its sandbox with it.
        TERMINATED = "terminated", "Terminated"
        # It could not be made, or lost its sandbox.
        FAILED = "failed", "Failed"

    class Reason(models.TextChoices):
        USER = "user", "By its user"
        ADMIN = "admin", "By an administrator"
        IDLE = "idle", "Idle for too long"
        MAX_LIFETIME = "max_lifetime", "Reached its maximum lifetime"
        LOST = "lost", "Its sandbox was lost"
        ERROR = "error", "An error of this server"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="sandbox_sessions")
    template = models.ForeignKey(SandboxTemplate, on_delete=models.PROTECT, related_name="sessions")
    lang = models.CharField("language", max_length=32)
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    termination_reason = models.CharField(max_length=16, choices=Reason, blank=True)
    error = models.TextField(blank=True, help_text="What went wrong, when something did.")
    is_one_shot = models.BooleanField("one-shot", default=False, help_text="Made for a single execution.")
    keep_template = models.BooleanField(default=False)
    metadata = models.JSONField(default=dict, blank=True)
    env = models.JSONField("environment", default=dict, blank=True)
    libraries = models.JSONField(
        default=list, blank=True, help_text="Installed before its first execution, beside the template's."
    )

    sandbox = models.CharField(max_length=255, blank=True, help_text="The proxy's name for the sandbox.")
    backend = models.CharField(max_length=64, blank=True)
    capabilities = models.JSONField(default=dict, blank=True)

    idle_timeout_s = models.PositiveIntegerField("idle time-out (s)")
    max_lifetime_s = models.PositiveIntegerField("lifetime (s)")
    execution_timeout_s = models.PositiveIntegerField("execution time-out (s)")
    grace_s = models.PositiveIntegerField("grace (s)", default=0, help_text="Its end is announced so long before.")
    chosen_timeouts = models.JSONField(
        default=list, blank=True, editable=False, help_text="What its user chose; the rest follows the policy."
    )

    live_executions = models.PositiveSmallIntegerField(
        default=0, editable=False, help_text="Queued and running ones; a session that has any is not idle."
    )
    created_at = models.DateTimeField(default=clock.now, editable=False)
    started_at = models.DateTimeField(null=True, blank=True)
    last_activity_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    announced_for = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="The deadline that was announced; another is announced anew."
    )
    finished_at = models.DateTimeField(null=True, blank=True)
    attend_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When a reaper looks after a row in a passing state."
    )

    objects = SessionQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=[*SESSION_LIVE, *SESSION_ENDED]), name="session_status_is_known"
            ),
            models.CheckConstraint(
                condition=Q(status__in=["pending", "active"], termination_reason="")
                | Q(
                    status__in=["terminating", "terminated", "failed"],
                    termination_reason__in=["user", "admin", "idle", "max_lifetime", "lost", "error"],
                ),
                name="session_reason_once_it_ends",
            ),
            models.CheckConstraint(
                condition=Q(status__in=SESSION_ENDED, finished_at__isnull=False)
                | Q(status__in=SESSION_LIVE, finished_at__isnull=True),
                name="session_finished_at_once_it_ended",
            ),
            models.CheckConstraint(
                condition=~Q(status="active")
                | Q(started_at__isnull=False, last_activity_at__isnull=False, expires_at__isnull=False),
                name="session_active_has_a_deadline",
            ),
            models.CheckConstraint(
                condition=Q(status__in=SESSION_PASSING, attend_at__isnull=False)
                | (~Q(status__in=SESSION_PASSING) & Q(attend_at__isnull=True)),
                name="session_passing_is_attended",
            ),
            models.CheckConstraint(
                condition=Q(idle_timeout_s__gte=1, max_lifetime_s__gte=1, execution_timeout_s__gte=1),
                name="session_durations_positive",
            ),
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="session_newest"),
            models.Index(fields=["owner", "-created_at", "-id"], name="session_newest_of_owner"),
            models.Index(fields=["owner", "status", "-created_at", "-id"], name="session_newest_by_status"),
            models.Index(fields=["expires_at"], condition=Q(status="active"), name="session_due"),
            # Its condition follows from `attend_at <= ?`: SQLite's planner does not see through `status IN (?, ?)`.
            models.Index(fields=["attend_at"], condition=Q(attend_at__isnull=False), name="session_stuck"),
            models.Index(fields=["finished_at"], condition=Q(finished_at__isnull=False), name="session_finished"),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def is_live(self) -> bool:
        """Tell whether it has, or may have, a sandbox."""
        return self.status in SESSION_LIVE

    @property
    def lifetime_ends_at(self) -> datetime | None:
        """Return when it ends whatever it does."""
        return self.started_at and self.started_at + timedelta(seconds=self.max_lifetime_s)

    def is_expired(self, now: datetime) -> bool:
        """Tell whether it is still called active though its deadline has come."""
        return self.status == self.Status.ACTIVE and self.expires_at is not None and self.expires_at <= now

    def expiry_reason(self, now: datetime) -> str:
        """Say which of its two clocks ran out."""
        ends_at = self.lifetime_ends_at
        return self.Reason.MAX_LIFETIME if ends_at is not None and ends_at <= now else self.Reason.IDLE

    # --- Transitions: each returns False, and changes nothing, when the row is no longer in the state it starts from --

    def activate(
        self, *, sandbox: str, backend: str, capabilities: dict[str, object], actor: str, user_id: int | None = None
    ) -> bool:
        """Give a pending session its sandbox: pending → active."""
        now = clock.now()
        ends_in = timedelta(seconds=min(self.idle_timeout_s, self.max_lifetime_s))
        return self._move(
            [self.Status.PENDING],
            actor=actor,
            user_id=user_id,
            status=self.Status.ACTIVE,
            sandbox=sandbox,
            backend=backend,
            capabilities=capabilities,
            started_at=now,
            last_activity_at=now,
            expires_at=now + ends_in,
            attend_at=None,
        )

    def begin_end(self, *, reason: str, actor: str, user_id: int | None = None) -> bool:
        """Close the session for its user: pending or active → terminating."""
        return self._move(
            [self.status] if self.status in ("pending", "active") else [],
            actor=actor,
            user_id=user_id,
            reason=reason,
            status=self.Status.TERMINATING,
            termination_reason=reason,
            attend_at=clock.now() + TERMINATING_LEASE,
        )

    def begin_expiry(self, *, actor: str) -> bool:
        """Close an active session whose deadline has come, unless it was renewed meanwhile: active → terminating."""
        now = clock.now()
        return self._move(
            [self.Status.ACTIVE],
            Q(expires_at__lte=now),
            actor=actor,
            reason=(reason := self.expiry_reason(now)),
            status=self.Status.TERMINATING,
            termination_reason=reason,
            attend_at=now + TERMINATING_LEASE,
        )

    def finish_end(self, *, actor: str, user_id: int | None = None) -> bool:
        """Close the book once the sandbox is gone: terminating → terminated."""
        return self._move(
            [self.Status.TERMINATING],
            actor=actor,
            user_id=user_id,
            reason=self.termination_reason,
            status=self.Status.TERMINATED,
            finished_at=clock.now(),
            attend_at=None,
        )

    def fail(self, *, reason: str, error: str, actor: str) -> bool:
        """Give up a session that has no sandbox: pending or active → failed."""
        return self._move(
            [self.status] if self.status in ("pending", "active") else [],
            actor=actor,
            reason=error or reason,
            status=self.Status.FAILED,
            termination_reason=reason,
            error=error,
            finished_at=clock.now(),
            attend_at=None,
        )

    def announce_end(self, *, actor: str) -> bool:
        """Write, once for each deadline, that an active session is about to end; False when that was moved or told."""
        untold = Q(announced_for=None) | ~Q(announced_for=F("expires_at"))
        rows = Session.objects.filter(untold, pk=self.pk, status=self.Status.ACTIVE, expires_at=self.expires_at)
        with transaction.atomic():
            if self.expires_at is None or rows.update(announced_for=self.expires_at) == 0:
                return False
            self.announced_for = self.expires_at
            SessionEvent.objects.create(
                session=self,
                type=SessionEvent.Type.EXPIRING,
                actor=actor,
                reason=self.expiry_reason(self.expires_at),
                data={"expires_at": clock.on_the_wall(self.expires_at).isoformat().replace("+00:00", "Z")},
            )
        return True

    def claim(self, *, now: datetime, lease: timedelta) -> bool:
        """Take a row in a passing state over for a while, so that no other reaper does."""
        until = now + lease
        rows = Session.objects.filter(pk=self.pk, status=self.status, attend_at=self.attend_at)
        if rows.update(attend_at=until) == 0:
            return False
        self.attend_at = until
        return True

    def put_off(self, until: datetime) -> bool:
        """Have reapers look after a row in a passing state then; False when somebody took it over meanwhile."""
        rows = Session.objects.filter(pk=self.pk, status=self.status, attend_at=self.attend_at)
        return self.attend_at is not None and rows.update(attend_at=until) == 1

    def _move(
        self,
        froms: list[str],
        *conditions: Q,
        actor: str,
        user_id: int | None = None,
        reason: str = "",
        **values: object,
    ) -> bool:
        """Compare and swap, with the event in the same transaction; on success this object holds the new values."""
        before = self.status
        with transaction.atomic():
            moved = (
                Session.objects.filter(*conditions, pk=self.pk, status__in=froms).update(**values)
                if conditions or len(froms) != 1
                else MOVE(values, id=self.pk, status=froms[0])
            )
            if moved == 0:
                return False
            for name, value in values.items():
                setattr(self, name, value)
            SessionEvent.of_session(self, from_status=before, actor=actor, user_id=user_id, reason=reason)
        return True

    # --- Places for executions, and the one stored deadline --------------------------------------------------------

    def admit(self, now: datetime) -> str | None:
        """Take a place for an execution and return its first status, `running` or `queued`; None when there is none.

        A session that runs code is not idle: its deadline becomes the end of its lifetime until the place is released.
        """
        if self.started_at is not None:
            # Nothing else is live and nobody changed the lifetime: plain values cost half of what expressions do.
            taken = {"live_executions": 1, "last_activity_at": now, "expires_at": self.lifetime_ends_at}
            if TAKE_FIRST_PLACE(taken, id=self.pk, now=now, max_lifetime_s=self.max_lifetime_s):
                self.expires_at = self.lifetime_ends_at
                return "running"
        rows = Session.objects.filter(pk=self.pk, status=self.Status.ACTIVE, expires_at__gt=now)
        busy = {"last_activity_at": now, "expires_at": LIFETIME_ENDS_AT, "live_executions": F("live_executions") + 1}
        if rows.filter(live_executions__lt=MAX_LIVE_EXECUTIONS).update(**busy) == 0:
            return None
        return "running" if self._places_taken() == 1 else "queued"

    def release(self, now: datetime) -> bool:
        """Give an execution's place back; the last one starts the idle clock. Return whether others are left."""
        if self.lifetime_ends_at is not None:
            ends_at = min(self.lifetime_ends_at, now + timedelta(seconds=self.idle_timeout_s))
            durations = {"idle_timeout_s": self.idle_timeout_s, "max_lifetime_s": self.max_lifetime_s}
            given_back = {"live_executions": 0, "last_activity_at": now, "expires_at": ends_at}
            if GIVE_LAST_PLACE_BACK(given_back, id=self.pk, **durations):
                self.expires_at = ends_at
                return False
        # In one statement: between two, another release could make both conditions false, and this place stay taken.
        idle = When(status=self.Status.ACTIVE, live_executions__lte=1, then=idle_deadline(now))
        Session.objects.filter(pk=self.pk).update(
            live_executions=Case(When(live_executions__gt=1, then=F("live_executions") - 1), default=0),
            last_activity_at=now,
            expires_at=Case(idle, default=F("expires_at"), output_field=DateTimeField()),
        )
        return self._places_taken() > 0

    def _places_taken(self) -> int:
        """Read how many places are taken, and the deadline, in the transaction that has just changed both."""
        taken, self.expires_at = Session.objects.values_list("live_executions", "expires_at").get(pk=self.pk)
        return taken

    def touch(self, now: datetime) -> bool:
        """Start the idle clock again; False when the session is not active any more. Nothing else is changed."""
        rows = Session.objects.filter(pk=self.pk, status=self.Status.ACTIVE, expires_at__gt=now)
        ends_at = Case(When(live_executions=0, then=idle_deadline(now)), default=F("expires_at"))
        return rows.update(last_activity_at=now, expires_at=ends_at) == 1

    def change(self, *, now: datetime, active: bool, **values: object) -> bool:
        """Change what its user may change, and reckon the deadline anew; False when it is not active any more.

        `active` says that this counts as activity, so that the idle clock starts again.
        """
        rows = Session.objects.filter(pk=self.pk, status=self.Status.ACTIVE, expires_at__gt=now)
        last = {"last_activity_at": now} if active else {}
        with transaction.atomic():
            if rows.update(**values, **last) == 0:
                return False
            idle = Least(LIFETIME_ENDS_AT, after(F("last_activity_at"), F("idle_timeout_s")))
            rows.update(expires_at=Case(When(live_executions=0, then=idle), default=LIFETIME_ENDS_AT))
        self.refresh_from_db()
        return True


def _field(name: str) -> Callable[[], Any]:
    return lambda: Session._meta.get_field(name)


MOVE: PreparedUpdate[Session] = PreparedUpdate(
    lambda: Session.objects.filter(pk=Parameter("id"), status=Parameter("status")),
    id=_field("id"),
    status=_field("status"),
)
TAKE_FIRST_PLACE: PreparedUpdate[Session] = PreparedUpdate(
    lambda: Session.objects.active().filter(
        pk=Parameter("id"),
        expires_at__gt=Parameter("now"),
        live_executions=0,
        max_lifetime_s=Parameter("max_lifetime_s"),
    ),
    id=_field("id"),
    now=_field("expires_at"),
    max_lifetime_s=_field("max_lifetime_s"),
)
GIVE_LAST_PLACE_BACK: PreparedUpdate[Session] = PreparedUpdate(
    lambda: Session.objects.active().filter(
        pk=Parameter("id"),
        live_executions=1,
        idle_timeout_s=Parameter("idle_timeout_s"),
        max_lifetime_s=Parameter("max_lifetime_s"),
    ),
    id=_field("id"),
    idle_timeout_s=_field("idle_timeout_s"),
    max_lifetime_s=_field("max_lifetime_s"),
)
