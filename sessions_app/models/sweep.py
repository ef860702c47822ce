"""ReaperSweep: what the last sweep of the reaper did, for the admin's front page and the metrics."""

from __future__ import annotations

from django.db import models


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
