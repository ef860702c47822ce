"""Settings under several environments; each in a process of its own, as an installation has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHOW = """
import json, django
django.setup()
from django.conf import settings
print(json.dumps({name: getattr(settings, name, None) for name in %r}, default=str))
"""


def run(*command: str, data_dir: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a bare environment."""
    bare = {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir), "DJANGO_SETTINGS_MODULE": "sandboxweb.settings"}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env={**bare, **env}, capture_output=True, text=True, check=False
    )


def settings(*names: str, data_dir: Path, **env: str) -> dict[str, Any]:
    """Return settings as they are under an environment."""
    done = run("-c", SHOW % (names,), data_dir=data_dir, **env)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_defaults_are_a_local_installation(tmp_path: Path) -> None:
    found = settings("DEBUG", "DATABASES", "CHANNEL_LAYERS", "PROXY_URL", "ALLOWED_HOSTS", data_dir=tmp_path)
    database = found["DATABASES"]["default"]
    assert found["DEBUG"] is False
    assert database["ENGINE"].endswith("sqlite3")
    assert database["NAME"] == str(tmp_path / "db.sqlite3")
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "journal_mode=WAL" in database["OPTIONS"]["init_command"]
    assert "InMemory" in found["CHANNEL_LAYERS"]["default"]["BACKEND"]
    assert found["PROXY_URL"] == "http://127.0.0.1:8000"
    assert "*" not in found["ALLOWED_HOSTS"]


def test_postgresql_gets_a_pool_and_redis_the_channels(tmp_path: Path) -> None:
    found = settings(
        "DATABASES",
        "CHANNEL_LAYERS",
        "CACHES",
        data_dir=tmp_path,
        DATABASE_URL="postgres://u:p@db:5433/x",
        DATABASE_POOL_SIZE="30",
        REDIS_URL="redis://cache:6379/1",
    )
    database = found["DATABASES"]["default"]
    assert (database["HOST"], database["PORT"], database["NAME"]) == ("db", 5433, "x")
    assert database["OPTIONS"]["pool"]["max_size"] == 30
    assert not database.get("CONN_MAX_AGE")
    assert "redis" in found["CHANNEL_LAYERS"]["default"]["BACKEND"]
    assert found["CACHES"]["default"]["LOCATION"] == "redis://cache:6379/1"


@pytest.mark.parametrize("url", ["mysql://u:p@h/x", "oracle://u:p@h/x"])
def test_another_database_is_refused_in_words(tmp_path: Path, url: str) -> None:
    done = run("manage.py", "check", data_dir=tmp_path, DATABASE_URL=url)
    assert done.returncode != 0
    assert "SQLite and PostgreSQL" in done.stderr


def test_production_passes_every_deployment_check(tmp_path: Path) -> None:
    done = run(
        "manage.py",
        "check",
        "--deploy",
        "--fail-level",
        "WARNING",
        data_dir=tmp_path,
        SANDBOXWEB_PRODUCTION="true",
        ALLOWED_HOSTS="sandbox.example.org",
        PROXY_TOKEN="token",
    )
    assert done.returncode == 0, done.stderr


def test_the_settings_are_not_the_place_where_secrets_are_printed(tmp_path: Path) -> None:
    done = run("manage.py", "check", data_dir=tmp_path, SECRET_KEY="swordfish" * 8, PROXY_TOKEN="tunafish")
    assert "fish" not in done.stdout + done.stderr


def test_a_retention_that_is_no_duration_is_refused_in_words(tmp_path: Path) -> None:
    done = run("manage.py", "check", data_dir=tmp_path, SESSION_RETENTION="a month")
    assert done.returncode != 0
    assert "SESSION_RETENTION: 'a month' is no duration" in done.stderr
