"""ReaperSweep: what the last sweep of the reaper did, for the admin's front page and the metrics."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import datetime

from django.db import models, transaction

from sessions_app import clock


class ReaperSweep(models.Model):
    """Be one row, written by whichever reaper swept last."""

    ONLY_ID = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY_ID, editable=False)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    host = models.CharField(max_length=255, blank=True)
    counts = models.JSONField(default=dict, help_text="What each step handled.")
    failures = models.JSONField(default=dict, help_text="What each step that failed said.")
    totals = models.JSONField(default=dict, help_text="What each step handled since the first sweep.")
    total_sweeps = models.PositiveBigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="sweep_is_one_row")]

    def __str__(self) -> str:
        return f"Sweep of {self.finished_at:%Y-%m-%d %H:%M:%S}"

    @classmethod
    def keep(cls, *, started_at: datetime, counts: Mapping[str, int], failures: Mapping[str, str]) -> None:
        """Write the sweep that ends now over the last one, and add what it did to the totals."""
        values = {
            "started_at": started_at,
            "finished_at": clock.now(),
            "host": socket.gethostname()[:255],
            "counts": dict(counts),
            "failures": dict(failures),
        }
        with transaction.atomic():
            row = cls.objects.select_for_update().filter(pk=cls.ONLY_ID).first()
            if row is None:
                cls.objects.create(**values, totals=dict(counts), total_sweeps=1)
                return
            totals = {step: row.totals.get(step, 0) + counts.get(step, 0) for step in {**row.totals, **counts}}
            cls.objects.filter(pk=cls.ONLY_ID).update(**values, totals=totals, total_sweeps=row.total_sweeps + 1)
