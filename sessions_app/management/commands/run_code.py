"""`manage.py run_code FILE`: run a file in a sandbox of its own, from any shell beside a running server."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from sessions_app.exceptions import InvalidInput, ProxyUnavailable, SandboxwebError
from sessions_app.models import Actor, Execution
from sessions_app.services.executions import run_once

# Exit codes beyond the code's own, as shells and sysexits.h have them.
BAD_INPUT = 64
OUR_FAILURE = 70
TRY_AGAIN = 75
EXIT_CODES = {
    Execution.Status.TIMED_OUT: 124,
    Execution.Status.OUT_OF_MEMORY: 137,
    Execution.Status.CANCELLED: 130,
}
KILLED_BY_SIGNAL = 128


class Command(BaseCommand):
    """Run code and behave like it: its output, its exit code."""

    help = "Runs a file (or standard input, as -) in a new sandbox, prints its output and exits with its exit code."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("file", help="The file with the code, or - for standard input.")
        parser.add_argument("--lang", help="The language (python).")
        parser.add_argument("--template", help="The sandbox template.")
        parser.add_argument(
            "--library", action="append", default=[], dest="libraries", help="A library; may be given several times."
        )
        parser.add_argument("--timeout", type=float, help="Seconds after which the code is killed.")
        parser.add_argument("--user", help="Whose session it is; the first administrator's otherwise.")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run the code in a one-shot session."""
        code = _read(options["file"])
        owner = _owner(options["user"])
        try:
            execution = run_once(
                owner=owner,
                code=code,
                lang=options["lang"],
                template=options["template"],
                libraries=options["libraries"],
                timeout=options["timeout"],
                actor=Actor.COMMAND,
            )
        except InvalidInput as error:
            raise CommandError(f"{error.field}: {error.message}", returncode=BAD_INPUT) from error
        except ProxyUnavailable as error:
            raise CommandError(error.message, returncode=TRY_AGAIN) from error
        except SandboxwebError as error:
            raise CommandError(error.message, returncode=OUR_FAILURE) from error
        self.stdout.write(execution.stdout, ending="")
        self.stderr.write(execution.stderr, style_func=str, ending="")
        if execution.error:
            self.stderr.write(execution.error)
        if status := exit_code_of(execution):
            sys.exit(status)


def exit_code_of(execution: Execution) -> int:
    """Return what a shell would see if it had run the code itself."""
    if execution.status in EXIT_CODES:
        return EXIT_CODES[Execution.Status(execution.status)]
    if execution.exit_code is not None:
        return execution.exit_code
    if execution.signal is not None:
        return KILLED_BY_SIGNAL + execution.signal
    return OUR_FAILURE


def _read(file: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return raw.decode()
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}", returncode=BAD_INPUT) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is not UTF-8 text", returncode=BAD_INPUT) from error


def _owner(name: str | None) -> Any:
    users = get_user_model()._default_manager
    if name is not None:
        user = users.filter(username=name).first()
        if user is None:
            raise CommandError(f"There is no user {name!r}.", returncode=BAD_INPUT)
        return user
    user = users.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if user is None:
        raise CommandError("There is no administrator; name a user with --user.", returncode=BAD_INPUT)
    return user
