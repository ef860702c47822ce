"""Installations for the integration tests, shared where a test leaves them as it found them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import httpx
import pytest

from tests.integration.servers import Servers
from tests.postgres import create_database

BUBBLEWRAP = pytest.param(
    ("bubblewrap", "sqlite"), id="bubblewrap-sqlite", marks=[pytest.mark.bubblewrap, pytest.mark.servers]
)
DOCKER = pytest.param(
    ("docker", "postgres"),
    id="docker-postgres",
    marks=[pytest.mark.docker, pytest.mark.postgres, pytest.mark.servers],
)


@pytest.fixture(scope="session", params=[BUBBLEWRAP, DOCKER])
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Run a whole installation: embedded sandboxes on SQLite, and Docker on PostgreSQL.

    A test that stops or kills a process starts it again before it ends.
    """
    backend, database = cast(tuple[str, str], request.param)
    data_dir = tmp_path_factory.mktemp(f"{backend}-{database}")
    url = f"sqlite:///{data_dir / 'db.sqlite3'}"
    if database == "postgres":
        url = create_database(request.getfixturevalue("postgres_url"), data_dir.name)
    running = Servers(backend=backend, database_url=url, data_dir=data_dir)
    try:
        running.set_up()
        yield running
    finally:
        running.tear_down()
    assert running.containers_left() == []


@pytest.fixture
def api(servers: Servers) -> Iterator[httpx.Client]:
    """A client of the app server with the administrator's key; what it made is ended afterwards."""
    with servers.client() as client:
        yield client
        for session_id in client.get("/sessions", params={"status": "active"}).json()["sessions"]:
            client.delete(f"/sessions/{session_id}")


@pytest.fixture
def session_id(api: httpx.Client) -> str:
    """The id of a new session."""
    answer = api.post("/sessions", json={"lang": "python"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["session_id"])
