"""What the person in front of the terminal reads."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.supervisor.credentials import Credentials
from deploy.supervisor.settings import Settings

NAME_WIDTH = 8


def say(name: str, text: str) -> None:
    """Print a short line about one of the parts."""
    sys.stdout.write(f"{name:<{NAME_WIDTH}} {text}\n")
    sys.stdout.flush()


def backend(name: str, asked_for: str | None) -> str:
    """Say which backend makes the sandboxes, and why it is not Docker when nobody chose."""
    if name == "bubblewrap" and (asked_for or "auto") == "auto":
        return "made by bubblewrap: no Docker daemon with this project's images answers (docs/docker.md)"
    return f"made by {name}"


def ways_in(settings: Settings, credentials: Credentials, credentials_file: Path) -> str:
    """Return the closing block: where to go, with what, and a request to try."""
    file = short(credentials_file)
    return f"""
Sandboxweb is ready. Ctrl-C stops it.

  Start page   {settings.app_url}/
  API docs     {settings.app_url}/docs
  Admin        {settings.app_url}/admin/   user {credentials.admin_user}, password in {file}
  API key      SANDBOXWEB_API_KEY in {file}
  Logs         {short(settings.log_dir)}/

  Try it from another shell:
    . {file}
    curl -s "$SANDBOXWEB_URL/sandbox/execute" -H "Authorization: Bearer $SANDBOXWEB_API_KEY" \\
      -H "Content-Type: application/json" -d '{{"lang": "python", "code": "print(6 * 7)"}}'

"""


def short(path: Path) -> str:
    """Return a path as it reads from the current directory, with `./` so that a shell can source it."""
    try:
        return f"./{path.relative_to(Path.cwd())}"
    except ValueError:
        return str(path)
