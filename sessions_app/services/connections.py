"""Database connections around the waits for the proxy."""

from __future__ import annotations

from django.db import close_old_connections, connection


def release_connection() -> None:
    """Give this thread's connection back to the pool before a wait, so that waiting costs the database nothing.

    The next query takes one again. SQLite has no server whose connections could run out, so its one stays; and a
    connection inside a transaction belongs to whoever opened that (a test).
    """
    if connection.vendor != "sqlite" and not connection.in_atomic_block:
        connection.close()


def replace_broken_connection() -> None:
    """Let the next query take a new connection if the database dropped this one, say because it was restarted."""
    if not connection.in_atomic_block:
        close_old_connections()
