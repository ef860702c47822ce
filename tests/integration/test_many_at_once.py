"""Many executions at once: waiting for code costs a thread, but no database connection."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.integration.servers import Servers
from tests.postgres import create_database

pytestmark = [pytest.mark.bubblewrap, pytest.mark.postgres, pytest.mark.servers, pytest.mark.timeout(400)]

EXECUTIONS = 200
CONNECTIONS = 30
SLEEP_S = 5
AT_THE_DOOR = 1000


@pytest.fixture(scope="module")
def small_database(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """An installation whose app server may open fewer connections than there are executions."""
    data_dir = tmp_path_factory.mktemp("many-at-once")
    url = create_database(postgres_url, data_dir.name)
    # The reaper has its own few; all of them together stay within CONNECTIONS.
    settings = {"DATABASE_POOL_SIZE": "26"}
    running = Servers(backend="bubblewrap", database_url=url, data_dir=data_dir, settings=settings)
    try:
        running.set_up()
        yield running
    finally:
        running.tear_down()


def connections(url: str) -> int:
    """Return how many connections this database has, this one not counted."""
    with psycopg.connect(url) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_two_hundred_executions_wait_at_once_on_thirty_connections(small_database: Servers) -> None:
    headers = {"Authorization": f"Bearer {small_database.key}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    with httpx.Client(base_url=small_database.app_url, headers=headers, timeout=120, limits=limits) as client:
        sessions = []
        for _ in range(EXECUTIONS):
            answer = client.post("/sessions", json={"lang": "python"})
            assert answer.status_code == 201, answer.text
            sessions.append(answer.json()["session_id"])

        outcomes: list[tuple[int, str]] = []
        failures: list[str] = []

        def execute(number: int, session_id: str) -> None:
            body = {"code": f"import time; time.sleep({SLEEP_S}); print({number})"}
            answer = client.post(f"/sessions/{session_id}/execute", json=body)
            outcomes.append((number, str(answer.json().get("stdout"))))
            if answer.json().get("status") != "succeeded":
                failures.append(answer.text)

        threads = [threading.Thread(target=execute, args=pair) for pair in enumerate(sessions)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        most = 0
        while any(thread.is_alive() for thread in threads):
            most = max(most, connections(small_database.database_url))
            time.sleep(0.25)
        took = time.monotonic() - began
        for session_id in sessions:
            client.delete(f"/sessions/{session_id}")

    assert failures == []
    assert sorted(outcomes) == [(number, f"{number}\n") for number in range(EXECUTIONS)]
    assert most <= CONNECTIONS
    assert took < EXECUTIONS * SLEEP_S / 10, "they did not run side by side"


def test_the_app_server_took_its_log_without_a_traceback(small_database: Servers) -> None:
    log = Path(small_database.log("app")).read_text()
    assert "Traceback" not in log


def test_a_thousand_clients_may_knock_while_the_app_server_is_busy(small_database: Servers) -> None:
    """With a short queue the kernel would drop them, and those that had hoped would be reset later."""
    address = ("127.0.0.1", small_database.app_port)
    with ExitStack() as opened:
        small_database.signal("app", signal.SIGSTOP)
        try:
            clients = [opened.enter_context(socket.create_connection(address, 5)) for _ in range(AT_THE_DOOR)]
            for client in clients:
                client.sendall(b"HEAD /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        finally:
            small_database.signal("app", signal.SIGCONT)
        for client in clients:
            client.settimeout(60)
            assert client.recv(12).startswith(b"HTTP/1.1 ")
