"""What the environment says: typed readers for the settings, and the two secrets that live in files."""

from __future__ import annotations

import os
import secrets
from argparse import ArgumentTypeError
from datetime import timedelta
from pathlib import Path

import environ  # type: ignore[import-untyped]
from django.core.exceptions import ImproperlyConfigured

from sessions_app.durations import duration

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
if (BASE_DIR / ".env").is_file():
    environ.Env.read_env(BASE_DIR / ".env", overwrite=False)


def data_dir() -> Path:
    """Return the directory of everything this installation keeps, made when it is missing."""
    path = BASE_DIR / str(env.str("DATA_DIR", default="var"))
    path.mkdir(mode=0o750, parents=True, exist_ok=True)
    return path


def upload_dir(directory: Path) -> Path:
    """Return where large bodies of requests wait: on disk, since `/tmp` may be memory."""
    path = directory / "uploads"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def secret_key(directory: Path) -> str:
    """Return `SECRET_KEY`, else the one in `directory`, written there (mode 0600) on the first start."""
    if given := env.str("SECRET_KEY", default=""):
        return str(given)
    path = directory / "secret_key"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return _write_once(path, secrets.token_urlsafe(64))


def _write_once(path: Path, value: str) -> str:
    """Write `value` to `path` whole or not at all; whoever comes second reads what the first one wrote."""
    draft = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    draft.write_text("")
    draft.chmod(0o600)
    draft.write_text(value)
    try:
        os.link(draft, path)
    except FileExistsError:
        return path.read_text().strip()
    finally:
        draft.unlink()
    return value


def retention(name: str, default: str) -> timedelta | None:
    """Return how long something is kept after its end; None is for ever."""
    text = str(env.str(name, default=default))
    if text == "never":
        return None
    try:
        return duration(text)
    except ArgumentTypeError as error:
        raise ImproperlyConfigured(f"{name}: {error}, or never to keep them all.") from error


def credential(name: str, directory: Path, default: str = "") -> str:
    """Return `name` from the environment, else from the credentials that the first start wrote to `directory`.

    So `manage.py run_code` works in any shell beside a running server. Only the one value is taken: the
    administrator's password has no business in the environment of a process.
    """
    if given := env.str(name, default=""):
        return str(given)
    try:
        lines = (directory / "credentials.env").read_text().splitlines()
    except OSError:
        return default
    values = dict(line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return values.get(name, default).strip().strip("'\"")
