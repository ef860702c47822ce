"""Execution: one run of code in a session."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db import IntegrityError, models, transaction
from django.db.models import Q

from sessions_app import clock
from sessions_app.limits import OUTPUT_LIMIT_BYTES
from sessions_app.models.event import SessionEvent
from sessions_app.models.session import Session
from sessions_app.prepared import Parameter, PreparedUpdate
from sessions_app.querysets import EXECUTION_LIVE, ExecutionQuerySet

# How long after its start a reaper looks whether somebody settles an execution, and how long after each look again.
ATTENTION = timedelta(seconds=10)
# The same for one that is known to have nobody who waits for it; from there the pauses grow with its age.
UNATTENDED = timedelta(seconds=1)


class Execution(models.Model):
    """Keep what was run and what came of it."""

    class Status(models.TextChoices):
        # It waits for the session's earlier executions.
        QUEUED = "queued", "Queued"
        # The sandbox has it.
        RUNNING = "running", "Running"
        # The code exited with 0.
        SUCCEEDED = "succeeded", "Succeeded"
        # The code exited with something else, or was refused for what it asked for.
        FAILED = "failed", "Failed"
        # It ran for longer than its time-out.
        TIMED_OUT = "timed_out", "Timed out"
        # It was killed by the memory limit.
        OUT_OF_MEMORY = "out_of_memory", "Out of memory"
        # Somebody cancelled it, or ended its session.
        CANCELLED = "cancelled", "Cancelled"
        # Its sandbox vanished before the result was known.
        LOST = "lost", "Lost"
        # This server failed to run it.
        ERROR = "error", "Error"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="executions")
    status = models.CharField(max_length=16, choices=Status)
    code = models.TextField()
    libraries = models.JSONField(default=list, blank=True)
    stdin = models.TextField(null=True, blank=True)  # noqa: DJ001  # no standard input is not empty standard input
    stdin_stream = models.BooleanField(
        "stdin goes on", default=False, help_text="More standard input may be sent while it runs."
    )
    env = models.JSONField("environment", default=dict, blank=True)
    context = models.CharField(max_length=100, blank=True)
    timeout_s = models.FloatField("time-out (s)")
    output_limit_bytes = models.PositiveIntegerField(
        "output limit", default=OUTPUT_LIMIT_BYTES, help_text="How much of each output stream is kept here, in bytes."
    )

    stdout = models.TextField(blank=True)
    stderr = models.TextField(blank=True)
    exit_code = models.IntegerField(null=True, blank=True)
    signal = models.IntegerField(null=True, blank=True)
    phase = models.CharField(
        max_length=8, blank=True, help_text="`compile` when its language refused the code, `run` when it ran."
    )
    results = models.JSONField(default=list, blank=True)
    exception = models.JSONField(
        null=True, blank=True, help_text="What code in a context raised and nothing caught: name, value, traceback."
    )
    context_restarted = models.BooleanField(
        default=False, help_text="Whether the state of its context was lost, in it or before it."
    )
    artifacts = models.JSONField(default=list, blank=True)
    files = models.JSONField(default=list, blank=True, help_text="The files of the workspace that it made or changed.")
    files_truncated = models.BooleanField(
        default=False, help_text="Whether it may have made or changed more files than are listed."
    )
    truncated = models.BooleanField(default=False)
    hint = models.TextField(blank=True)
    error = models.TextField(blank=True, help_text="What went wrong on this server's side, when something did.")
    duration_ms = models.FloatField(null=True, blank=True)
    cpu_ms = models.FloatField(null=True, blank=True)
    max_rss_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    last_seq = models.PositiveBigIntegerField(default=0, help_text="The last event of the sandbox's journal seen here.")

    created_at = models.DateTimeField(default=clock.now, editable=False)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    attend_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When a reaper looks whether it can be settled."
    )

    objects = ExecutionQuerySet.as_manager()

    # Written by this very request, which has not handed it over yet: only then can one know that nobody has.
    is_fresh = False

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["session"], condition=Q(status="running"), name="execution_one_running_a_session"
            ),
            models.CheckConstraint(
                condition=Q(
                    status__in=[
                        "queued",
                        "running",
                        "succeeded",
                        "failed",
                        "timed_out",
                        "out_of_memory",
                        "cancelled",
                        "lost",
                        "error",
                    ]
                ),
                name="execution_status_is_known",
            ),
            models.CheckConstraint(
                condition=Q(status__in=EXECUTION_LIVE, finished_at__isnull=True, attend_at__isnull=False)
                | (~Q(status__in=EXECUTION_LIVE) & Q(finished_at__isnull=False, attend_at__isnull=True)),
                name="execution_finished_at_once_it_ended",
            ),
            models.CheckConstraint(condition=Q(timeout_s__gt=0), name="execution_timeout_positive"),
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="execution_newest"),
            models.Index(fields=["session", "-created_at", "-id"], name="execution_newest_of_session"),
            models.Index(fields=["attend_at"], condition=Q(attend_at__isnull=False), name="execution_unattended"),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def is_live(self) -> bool:
        """Tell whether its result is not known yet."""
        return self.status in EXECUTION_LIVE

    def finish(
        self,
        status: str,
        *,
        actor: str,
        user_id: int | None = None,
        reason: str = "",
        values: Mapping[str, object] | None = None,
        unless_attended: bool = False,
    ) -> bool:
        """Write the result of a live execution and give its place back: queued or running → `status`.

        Return False, with the row's own values read in, when somebody else settled it first; with `unless_attended`
        also when somebody else has looked at it since this object was read.
        """
        now = clock.now()
        result = {"finished_at": now, **(values or {}), "status": status, "attend_at": None}
        with transaction.atomic():
            if (self._finish_unattended(result) if unless_attended else FINISH(result, id=self.pk)) == 0:
                won = others = False
            else:
                before, won = self.status, True
                for name, value in result.items():
                    setattr(self, name, value)
                others = self.session.release(now)
                SessionEvent.of_execution(self, from_status=before, actor=actor, user_id=user_id, reason=reason)
        if not won:
            self.refresh_from_db()
        elif others:
            Execution.promote_next(self.session_id, actor=actor)
        return won

    def _finish_unattended(self, result: Mapping[str, object]) -> int:
        rows = Execution.objects.filter(pk=self.pk, status__in=EXECUTION_LIVE, attend_at=self.attend_at)
        return rows.update(**result)

    def begin(self, *, actor: str) -> bool:
        """Note that the sandbox has started it: queued → running; False when another one still counts as running."""
        now = clock.now()
        try:
            with transaction.atomic():
                rows = Execution.objects.filter(pk=self.pk, status=self.Status.QUEUED)
                if rows.update(status=self.Status.RUNNING, started_at=now) == 0:
                    return False
                self.status, self.started_at = self.Status.RUNNING, now
                SessionEvent.of_execution(self, from_status=self.Status.QUEUED, actor=actor)
        except IntegrityError:
            self.status, self.started_at = self.Status.QUEUED, None
            return False
        return True

    def note_progress(self, values: Mapping[str, object]) -> None:
        """Keep what a live execution has printed so far, unless the row has as much already."""
        if values.get("last_seq", 0) == self.last_seq:
            return
        kept = {name: values[name] for name in ("stdout", "stderr", "results", "truncated", "last_seq")}
        if Execution.objects.filter(pk=self.pk, status__in=EXECUTION_LIVE).update(**kept):
            for name, value in kept.items():
                setattr(self, name, value)

    def attend(self) -> None:
        """Say that somebody looks after it now: whoever wrote it can no longer know that it was not handed over."""
        self.attend_at = clock.now() + ATTENTION
        Execution.objects.filter(pk=self.pk, status__in=EXECUTION_LIVE).update(attend_at=self.attend_at)

    def leave_unattended(self) -> None:
        """Have a reaper look at it soon: nobody waits for its end."""
        self.attend_at = clock.now() + UNATTENDED
        Execution.objects.filter(pk=self.pk, status__in=EXECUTION_LIVE).update(attend_at=self.attend_at)

    def put_off(self, until: datetime) -> bool:
        """Have reapers look at it then; False when it ended, or somebody took it over, meanwhile."""
        rows = Execution.objects.filter(pk=self.pk, status__in=EXECUTION_LIVE, attend_at=self.attend_at)
        return rows.update(attend_at=until) == 1

    @classmethod
    def promote_next(cls, session_id: uuid.UUID, *, actor: str) -> None:
        """Call the execution that is first in the queue running: the sandbox runs them in order.

        In a transaction of its own: holding one execution's row while asking for another's could deadlock.
        """
        following = cls.objects.filter(session_id=session_id).queued().first()
        if following is not None:
            following.begin(actor=actor)

    def claim(self, *, now: datetime) -> bool:
        """Take the next look at it, so that no other reaper does."""
        until = now + min(ATTENTION, max(UNATTENDED, (now - self.created_at) / 4))
        rows = Execution.objects.filter(pk=self.pk, status__in=EXECUTION_LIVE, attend_at=self.attend_at)
        if rows.update(attend_at=until) == 0:
            return False
        self.attend_at = until
        return True


FINISH: PreparedUpdate[Execution] = PreparedUpdate(
    lambda: Execution.objects.live().filter(pk=Parameter("id")), id=lambda: Execution._meta.get_field("id")
)
