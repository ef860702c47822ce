"""`manage.py prune_sessions --older-than 30d`: drop the rows of sessions that ended long ago."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from sessions_app.durations import duration
from sessions_app.services.retention import drop_ended, ended_before


class Command(BaseCommand):
    """Delete ended sessions with their executions and events."""

    help = "Deletes sessions that ended longer ago than that, with their executions and events. Live ones never."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--older-than", type=duration, required=True, help="Since their end: 90s, 12h, 30d, 2w.")
        parser.add_argument("--dry-run", action="store_true", help="Count them only.")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Delete batch after batch."""
        age = options["older_than"]
        if options["dry_run"]:
            self.stdout.write(f"{ended_before(age).count()} sessions would be deleted.")
            return
        total = 0
        while count := drop_ended(age):
            total += count
        self.stdout.write(f"{total} sessions were deleted.")
