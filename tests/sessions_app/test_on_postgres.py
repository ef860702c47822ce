"""The tests of models, services and reaper hold on PostgreSQL as they do on SQLite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SUBJECTS = (
    "models",
    "services",
    "commands/test_commands.py",
    "test_reaper.py",
    "test_clock.py",
    "test_expiring.py",
    "test_reaper_troubles.py",
    "test_pool.py",
    "test_checks.py",
    "test_prepared.py",
)


@pytest.mark.postgres
def test_models_services_and_reaper_hold_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "DATABASE_URL": postgres_url, "DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", *(str(HERE / subject) for subject in SUBJECTS)]
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
