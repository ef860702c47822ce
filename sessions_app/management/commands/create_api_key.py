"""`manage.py create_api_key USER`: make a key and show it, once."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from sessions_app.models import ApiKey

MAX_NAME_CHARS = 50


class Command(BaseCommand):
    """Make a key for a user."""

    help = "Creates an API key and prints it on standard output; it is kept as a hash, so it is shown only now."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("user", help="The name of the user who owns the key.")
        parser.add_argument("--name", default="command line", help="What the key is for, as the admin shows it.")
        parser.add_argument("--expires-in-days", type=float, help="After so many days the key is refused.")
        parser.add_argument(
            "--create-user", action="store_true", help="Create the user, without a password, if there is none."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Create the key and print it."""
        days, name = options["expires_in_days"], options["name"].strip()
        if not 0 < len(name) <= MAX_NAME_CHARS:
            raise CommandError(f"--name must have 1 to {MAX_NAME_CHARS} characters.")
        if days is not None and not 0 < days <= 36500:
            raise CommandError("--expires-in-days must be more than 0 and at most 36500.")
        owner = _user(options["user"], create=options["create_user"])
        expiry = None if days is None else timezone.now() + timedelta(days=days)
        _, key = ApiKey.objects.create_key(owner=owner, name=name, expiry_date=expiry)
        self.stderr.write(f"A key for {owner.get_username()}; it is shown only this once:", self.style.NOTICE)
        self.stdout.write(key)


def _user(name: str, *, create: bool) -> Any:
    users = get_user_model()._default_manager
    user = users.filter(username=name).first()
    if user is None and create:
        return get_user_model().objects.create_user(username=name)
    if user is None:
        raise CommandError(f"There is no user {name!r}; --create-user makes one.")
    if not user.is_active:
        raise CommandError(f"The user {name!r} is not active, so a key of theirs would be refused.")
    return user
