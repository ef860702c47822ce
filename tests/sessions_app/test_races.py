"""Many at the same rows, on a real SQLite file and on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import create_database

ROOT = Path(__file__).resolve().parents[2]


# The order of tests is random, so a fixture of the module might be made anew for each of them.
PLAYED: dict[str, dict[str, Any]] = {}
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=DATABASES)
def races(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What came of the scenarios in `races.py`, played on a new database of each kind."""
    if request.param in PLAYED:
        return PLAYED[request.param]
    database_url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    if request.param == "postgresql":
        database_url = create_database(request.getfixturevalue("postgres_url"), f"races_{os.urandom(4).hex()}")
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "sandboxweb.settings",
        "DATABASE_URL": database_url,
        "DATA_DIR": str(tmp_path),
        "DATABASE_POOL_SIZE": "5",
        "LOG_LEVEL": "ERROR",
    }
    command = [sys.executable, "-m", "tests.sessions_app.races"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    PLAYED[request.param] = json.loads(done.stdout)
    return PLAYED[request.param]


def test_executions_of_one_session_never_run_side_by_side_and_end_once(races: dict[str, Any]) -> None:
    result = races["submissions"]
    assert result["submitted"] == {"running": 1, "queued": 16, "QueueFull": 7}
    assert result["completed"] == {"succeeded": 34}
    assert result["ends"] == {"1": 17}
    assert (result["live"], result["idle_clock_runs"]) == (0, True)


def test_a_session_ends_once_however_many_end_it(races: dict[str, Any]) -> None:
    result = races["endings"]
    assert result["did"] == {"swept": 2, "ended": 2}
    assert result["statuses"] == {"terminated": 40}
    assert result["ends"] == {"active": 40, "terminating": 40, "terminated": 40}
    assert result["sandboxes"] == 0


def test_one_request_of_many_with_one_key_begins(races: dict[str, Any]) -> None:
    assert races["claims"]["did"] == {"began": 1, "IdempotencyInProgress": 15}


def test_a_session_is_its_makers_for_as_long_as_that_lives(races: dict[str, Any]) -> None:
    result = races["leases"]
    assert result["alive"] == ["active", {"seen": 1, "taken up": 0, "failed": 0}]
    assert result["dead"] == ["died", {"seen": 1, "taken up": 0, "failed": 1}]
    assert result["statuses"] == ["active", "failed"]


def test_executions_that_wait_hold_no_database_connection(races: dict[str, Any]) -> None:
    assert races["waiting"]["did"] == {"succeeded": 30}
