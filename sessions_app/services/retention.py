"""What is kept of sessions that ended, and for how long."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction

from sessions_app import clock
from sessions_app.models import Session
from sessions_app.querysets import SessionQuerySet

# Sessions of one transaction, with all their executions and events: writers wait for no longer than that takes.
BATCH = 100


def ended_before(age: timedelta) -> SessionQuerySet:
    """Return the sessions that ended longer ago than that, the oldest end first; a live one is never among them."""
    return Session.objects.ended().filter(finished_at__lt=clock.now() - age).order_by("finished_at")


def drop_ended(age: timedelta, *, limit: int = BATCH) -> int:
    """Delete at most `limit` of them with their executions and events, in one transaction; return how many."""
    with transaction.atomic():
        # Two that prune at once take different ones.
        rows = ended_before(age).select_for_update(skip_locked=True)
        keys = list(rows.values_list("pk", flat=True)[:limit])
        Session.objects.filter(pk__in=keys).delete()
    return len(keys)
