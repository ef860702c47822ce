"""Keep `$DATA_DIR/credentials.env`: what a client of this server needs, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.supervisor.settings import Settings, parse_env

FILE_NAME = "credentials.env"
HEADER = "# Made by start_all.sh. Read it in a shell with:  . {path}\n"


@dataclass(frozen=True)
class Credentials:
    """The first administrator and key; an empty API key means that none was made yet."""

    admin_user: str
    admin_password: str
    api_key: str
    proxy_token: str


def load_or_make(settings: Settings) -> Credentials:
    """Read the credentials of an earlier start, or make new ones; PROXY_TOKEN of the environment wins."""
    path = settings.data_dir / FILE_NAME
    known = parse_env(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return Credentials(
        admin_user=known.get("SANDBOXWEB_ADMIN_USER") or "admin",
        admin_password=known.get("SANDBOXWEB_ADMIN_PASSWORD") or secrets.token_urlsafe(18),
        api_key=known.get("SANDBOXWEB_API_KEY", ""),
        proxy_token=settings.environment.get("PROXY_TOKEN") or known.get("PROXY_TOKEN") or secrets.token_urlsafe(32),
    )


def with_api_key(credentials: Credentials, api_key: str) -> Credentials:
    """Return the credentials with another key."""
    return replace(credentials, api_key=api_key)


def save(credentials: Credentials, settings: Settings) -> Path:
    """Write the file anew (mode 0600, in one step), so that its URLs follow changed ports."""
    path = settings.data_dir / FILE_NAME
    values = {
        "SANDBOXWEB_URL": settings.app_url,
        "SANDBOXWEB_API_KEY": credentials.api_key,
        "SANDBOXWEB_ADMIN_USER": credentials.admin_user,
        "SANDBOXWEB_ADMIN_PASSWORD": credentials.admin_password,
        "PROXY_URL": settings.proxy_url,
        "PROXY_TOKEN": credentials.proxy_token,
    }
    text = HEADER.format(path=path) + "".join(f"{name}='{value}'\n" for name, value in values.items())
    fresh = path.with_name(f".{FILE_NAME}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
    return path
