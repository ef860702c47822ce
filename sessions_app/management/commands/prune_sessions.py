"""`manage.py prune_sessions --older-than 30d`: drop the rows of sessions that ended long ago."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from sessions_app import clock
from sessions_app.durations import duration
from sessions_app.models import Session

# Sessions of one transaction, with all their executions and events: writers wait for no longer than that takes.
BATCH = 100


class Command(BaseCommand):
    """Delete ended sessions with their executions and events."""

    help = "Deletes sessions that ended longer ago than that, with their executions and events. Live ones never."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--older-than", type=duration, required=True, help="Since their end: 90s, 12h, 30d, 2w.")
        parser.add_argument("--dry-run", action="store_true", help="Count them only.")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Delete batch after batch."""
        horizon = clock.now() - options["older_than"]
        old = Session.objects.ended().filter(finished_at__lt=horizon)
        if options["dry_run"]:
            self.stdout.write(f"{old.count()} sessions would be deleted.")
            return
        total = 0
        while keys := list(old.order_by("finished_at").values_list("pk", flat=True)[:BATCH]):
            with transaction.atomic():
                Session.objects.filter(pk__in=keys).delete()
            total += len(keys)
        self.stdout.write(f"{total} sessions were deleted.")
