"""The short commands of a start: check the backend, migrate, make the first administrator and key."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

from deploy.supervisor.credentials import Credentials, with_api_key
from deploy.supervisor.processes import kill_group, tethered
from deploy.supervisor.settings import Settings

COMMAND_TIMEOUT_S = 300.0
TAIL_LINES = 15
API_KEY = re.compile(r"\bsbx_\S+")


class StartError(Exception):
    """Say in plain words why the start stops here."""


async def run(command: list[str], environment: Mapping[str, str], settings: Settings) -> tuple[int, str]:
    """Run a command to its end; return exit code and output (both streams)."""
    process = await asyncio.create_subprocess_exec(
        *tethered(command),
        cwd=settings.root,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), COMMAND_TIMEOUT_S)
    except TimeoutError:
        raise StartError(f"{' '.join(command[1:])} took longer than {COMMAND_TIMEOUT_S:.0f} s.") from None
    finally:
        kill_group(process.pid)
    return process.returncode or 0, output.decode(errors="replace").strip()


async def manage(
    settings: Settings, credentials: Credentials, *arguments: str, extra: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a `manage.py` command."""
    environment = {**settings.app_environment(credentials.proxy_token), **(extra or {})}
    return await run([sys.executable, "manage.py", *arguments], environment, settings)


async def check_backend(settings: Settings, credentials: Credentials) -> None:
    """Ask the proxy whether it can make sandboxes here; raise StartError with the mend when it cannot."""
    command = [sys.executable, "-m", "proxy_service", "check"]
    code, output = await run(command, settings.proxy_environment(credentials.proxy_token), settings)
    if code:
        raise StartError(f"No sandboxes can be made on this machine:\n{last_lines(output)}")


def check_database(url: str) -> None:
    """Raise StartError at once when nobody listens where a PostgreSQL URL points; its pool would wait half a minute."""
    parts = urlsplit(url)
    if not parts.scheme.startswith("postgres") or not parts.hostname:
        return
    address = (parts.hostname, parts.port or 5432)
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError as error:
        raise StartError(f"No database answers at {address[0]}:{address[1]}, named by DATABASE_URL: {error}") from None


async def migrate(settings: Settings, credentials: Credentials) -> None:
    """Bring the database to the newest schema."""
    await asyncio.to_thread(check_database, settings.environment.get("DATABASE_URL", ""))
    code, output = await manage(settings, credentials, "migrate", "--noinput", "--verbosity", "0")
    if code:
        database = "DATABASE_URL" if settings.environment.get("DATABASE_URL") else str(settings.data_dir)
        raise StartError(f"The database ({database}) cannot be used:\n{last_lines(output)}")


async def make_first_user_and_key(settings: Settings, credentials: Credentials) -> tuple[Credentials, bool]:
    """Make the administrator, unless that name is taken, and a key of theirs.

    Return the credentials with the key, and whether the administrator is new (else the password stayed as it was).
    """
    extra = {
        "DJANGO_SUPERUSER_USERNAME": credentials.admin_user,
        "DJANGO_SUPERUSER_PASSWORD": credentials.admin_password,
        "DJANGO_SUPERUSER_EMAIL": f"{credentials.admin_user}@localhost",
    }
    code, output = await manage(settings, credentials, "createsuperuser", "--noinput", extra=extra)
    if code and "taken" not in output:
        raise StartError(f"The first administrator could not be made:\n{last_lines(output)}")
    key_code, key_output = await manage(settings, credentials, "create_api_key", credentials.admin_user)
    found = API_KEY.search(key_output)
    if key_code or found is None:
        raise StartError(f"The first API key could not be made:\n{last_lines(key_output)}")
    return with_api_key(credentials, found.group(0)), code == 0


def last_lines(text: str) -> str:
    """Return the end of a long output, without the frames of tracebacks."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "Traceback ("))]
    return "\n".join(lines[-TAIL_LINES:])
