"""Everything is killed, stopped and restarted under load: nothing is lost, run twice or left behind.

`python benchmarks/chaos.py --minutes 10` does the same for longer, with a report.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.chaos.installation import private_engine_possible
from tests.chaos.run import Options, run
from tests.groups import nothing_may_be_left_out

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

DURATION_S = 40.0
CLIENTS = 12


def chaos(backend: str, database: str) -> None:
    """Run a short plan; the one that CHAOS_SEED names, else a new one, which is printed."""
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))
    outcome = run(Options(backend=backend, database=database, seed=seed, duration_s=DURATION_S, clients=CLIENTS))
    found = {finding.name: finding.cases for finding in outcome.failed}
    assert found == {}, f"repeat it: CHAOS_SEED={seed}"
    assert outcome.ledger.outcomes()["succeeded"] > CLIENTS, "hardly anything was done"
    assert all(struck.mended_s is not None for struck in outcome.struck)


@pytest.mark.bubblewrap
def test_nothing_is_lost_or_left_behind_on_bubblewrap_and_sqlite() -> None:
    chaos("bubblewrap", "sqlite")


@pytest.mark.docker
@pytest.mark.postgres
def test_nothing_is_lost_or_left_behind_on_docker_and_postgresql() -> None:
    if (why := private_engine_possible()) and not nothing_may_be_left_out():
        pytest.skip(f"no Docker daemon that may be killed: {why}")
    chaos("docker", "postgres")
