"""Writers of one process stand in line for SQLite, and always leave it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError
from django.db.utils import ConnectionHandler

from sandboxweb.db.sqlite3 import base


@pytest.fixture
def connections(tmp_path: Path, django_db_blocker: Any) -> Iterator[ConnectionHandler]:
    """Return connections, one a thread, to a new database with one table."""
    options = {"transaction_mode": "IMMEDIATE", "timeout": 5, "init_command": "PRAGMA journal_mode=WAL"}
    database = {"ENGINE": "sandboxweb.db.sqlite3", "NAME": tmp_path / "db", "OPTIONS": options}
    made = ConnectionHandler({"default": database})
    with django_db_blocker.unblock():
        write(made["default"], "CREATE TABLE counts (n INTEGER)")
        write(made["default"], "INSERT INTO counts VALUES (0)")
        yield made
        made["default"].close()
    assert not base._line.locked()


def write(connection: Any, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def begin(connection: Any) -> None:
    connection.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)


def end(connection: Any, *, commit: bool) -> None:
    (connection.commit if commit else connection.rollback)()
    connection.set_autocommit(True)


def test_nothing_is_lost_when_many_threads_write(connections: ConnectionHandler) -> None:
    def add(number: int) -> None:
        own = connections["default"]
        try:
            if number % 2:
                write(own, "UPDATE counts SET n = n + 1")
                return
            begin(own)
            write(own, "UPDATE counts SET n = n + 1")
            end(own, commit=True)
        finally:
            own.close()

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(add, range(200)))
    with connections["default"].cursor() as cursor:
        assert cursor.execute("SELECT n FROM counts").fetchone() == (200,)


@pytest.mark.parametrize("commit", [True, False])
def test_a_writer_waits_for_the_end_of_anothers_transaction(connections: ConnectionHandler, commit: bool) -> None:
    holder, done = connections["default"], threading.Event()
    begin(holder)
    assert base._line.locked()

    def other() -> None:
        write(connections["default"], "UPDATE counts SET n = n + 1")
        connections["default"].close()
        done.set()

    threading.Thread(target=other).start()
    assert not done.wait(0.2)
    end(holder, commit=commit)
    assert done.wait(5)


def test_reading_needs_no_place_in_the_line(connections: ConnectionHandler) -> None:
    own = connections["default"]
    with base._line, own.cursor() as cursor:
        assert cursor.execute("SELECT n FROM counts").fetchone() == (0,)


def test_a_statement_that_fails_and_a_connection_that_closes_leave_the_line(connections: ConnectionHandler) -> None:
    own = connections["default"]
    with pytest.raises(DatabaseError):
        write(own, "INSERT INTO nothing VALUES (1)")
    assert not base._line.locked()
    begin(own)
    own.close()
    assert not base._line.locked()
