"""ClockAnchor: what ties the clock of deadlines to one that may be set; `sessions_app/clock.py` reads and writes it."""

from __future__ import annotations

from django.db import models


class ClockAnchor(models.Model):
    """Be one row."""

    ONLY_ID = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY_ID, editable=False)
    boot_id = models.CharField(max_length=64, blank=True, help_text="On SQLite: the boot that the offset counts from.")
    offset_us = models.BigIntegerField(
        default=0,
        help_text="On SQLite: from the machine's boot to the clock. On PostgreSQL: what is added to the server's.",
    )
    revision = models.PositiveIntegerField(default=0, help_text="How often the server's clock was seen to be set.")

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="clock_is_one_row")]

    def __str__(self) -> str:
        return f"{self.offset_us / 1_000_000:+.3f} s"
