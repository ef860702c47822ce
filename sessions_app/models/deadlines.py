"""Deadlines of sessions as the database reckons them, from a row as it is at that moment."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import DateTimeField, DurationField, ExpressionWrapper, F, IntegerField, Value
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Least


def after(start: F | Value, seconds: F) -> ExpressionWrapper[CombinedExpression]:
    """Return the instant so many seconds after another, reckoned by the database."""
    # SQLite's backend multiplies durations by an IntegerField only, not by a PositiveIntegerField.
    count = ExpressionWrapper(seconds, IntegerField())
    duration = ExpressionWrapper(count * Value(timedelta(seconds=1), DurationField()), DurationField())
    return ExpressionWrapper(start + duration, DateTimeField())


# When the session ends whatever it does.
LIFETIME_ENDS_AT = after(F("started_at"), F("max_lifetime_s"))


def idle_deadline(now: datetime) -> Least:
    """Return when a session whose last activity is `now` ends, reckoned by the database from the row as it is."""
    return Least(LIFETIME_ENDS_AT, after(Value(now, DateTimeField()), F("idle_timeout_s")))
