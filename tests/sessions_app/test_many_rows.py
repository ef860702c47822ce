"""What a sweep with nothing due costs a database that has grown, read from the plans of its own statements."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import create_database

# A hundred thousand of everything take a while where others work too.
pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[2]
# Rows of these grow with use; the others are few for ever.
GROWING = "session|execution|sessionevent|idempotencyrecord|artifact"
# SQLite's word, and PostgreSQL's.
READS_ALL = re.compile(rf"(SCAN|(Parallel )?Seq Scan on) sessions_app_({GROWING})\b")

# The order of tests is random, so a fixture of the module might be made anew for each of them.
MADE: dict[str, dict[str, Any]] = {}
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=DATABASES)
def grown(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What `many_rows.py` found on a new database of each kind."""
    if request.param in MADE:
        return MADE[request.param]
    database_url = f"sqlite:///{tmp_path / 'db.sqlite3'}"
    if request.param == "postgresql":
        database_url = create_database(request.getfixturevalue("postgres_url"), f"grown_{os.urandom(4).hex()}")
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "sandboxweb.settings",
        "DATABASE_URL": database_url,
        "DATA_DIR": str(tmp_path),
        "LOG_LEVEL": "ERROR",
    }
    command = [sys.executable, "-m", "tests.sessions_app.many_rows"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    MADE[request.param] = {"vendor": request.param, **json.loads(done.stdout)}
    return MADE[request.param]


def test_a_sweep_with_nothing_due_costs_as_many_statements_as_on_an_empty_database(grown: dict[str, Any]) -> None:
    assert grown["rows"] == {"ended": 100_000, "active": 1_000, "overdue": 0}
    assert grown["before"] == grown["after"] <= 14


def test_every_statement_of_it_finds_its_rows_by_an_index(grown: dict[str, Any]) -> None:
    assert len(grown["plans"]) == grown["after"]
    lines = [line.strip(" ->") for plan in grown["plans"] for line in plan["plan"].splitlines()]
    for line in lines:
        # What SQLite scans by this index are the live sessions alone, and all of them are wanted then.
        assert not READS_ALL.match(line) or "INDEX session_due" in line, line
        assert "TEMP B-TREE" not in line, line
    for index in ("session_due", "session_stuck", "execution_unattended", "session_finished", "idempotency_oldest"):
        assert any(index in line for line in lines), index
