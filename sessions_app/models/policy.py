"""TimeoutPolicy: how long sessions and executions may live, as data that an administrator edits."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q

POSITIVE = [MinValueValidator(1)]


class TimeoutPolicy(models.Model):
    """Hold default and ceiling of each duration, in seconds."""

    name = models.CharField(max_length=100, unique=True)
    is_default = models.BooleanField(
        default=False,
        help_text="Applies where neither the user nor the template has a policy of its own; one policy is the default.",
    )

    idle_timeout_default_s = models.PositiveIntegerField("idle time-out (s)", default=300, validators=POSITIVE)
    idle_timeout_max_s = models.PositiveIntegerField("longest idle time-out (s)", default=3600, validators=POSITIVE)
    max_lifetime_default_s = models.PositiveIntegerField("lifetime (s)", default=3600, validators=POSITIVE)
    max_lifetime_max_s = models.PositiveIntegerField("longest lifetime (s)", default=86400, validators=POSITIVE)
    execution_timeout_default_s = models.PositiveIntegerField("execution time-out (s)", default=30, validators=POSITIVE)
    execution_timeout_max_s = models.PositiveIntegerField(
        "longest execution time-out (s)", default=600, validators=POSITIVE
    )
    grace_s = models.PositiveIntegerField(
        "grace (s)", default=30, help_text="How long before its end a session announces that it is expiring."
    )

    class Meta:
        verbose_name_plural = "timeout policies"
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["is_default"], condition=Q(is_default=True), name="policy_one_default"),
            models.CheckConstraint(
                condition=Q(idle_timeout_default_s__gte=1)
                & Q(max_lifetime_default_s__gte=1)
                & Q(execution_timeout_default_s__gte=1),
                name="policy_durations_positive",
            ),
            models.CheckConstraint(
                condition=Q(idle_timeout_default_s__lte=F("idle_timeout_max_s"))
                & Q(max_lifetime_default_s__lte=F("max_lifetime_max_s"))
                & Q(execution_timeout_default_s__lte=F("execution_timeout_max_s")),
                name="policy_defaults_below_ceilings",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Name the field whose default is above its ceiling."""
        for duration in ("idle_timeout", "max_lifetime", "execution_timeout"):
            default, ceiling = getattr(self, f"{duration}_default_s"), getattr(self, f"{duration}_max_s")
            if default is not None and ceiling is not None and default > ceiling:
                raise ValidationError({f"{duration}_default_s": f"The default is above its ceiling of {ceiling} s."})
