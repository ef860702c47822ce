"""SQLite whose writers of one process wait in line for each other.

SQLite lets one writer in at a time; whoever comes meanwhile sleeps and looks again, up to a tenth of a second later. A
process with many threads is faster when the next writer is woken as the one before it ends. Between processes SQLite's
own lock still holds.
"""

from __future__ import annotations

import threading
from typing import Any

from django.db.backends.sqlite3 import base

# Django looks for these in the module that a backend's name leads to.
Database = base.Database  # type: ignore[attr-defined]

WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")

# Longer than SQLite itself waits; whoever waited so long tries without the line, and SQLite says what is wrong.
PATIENCE_S = 30.0

_line = threading.Lock()


class Cursor(base.SQLiteCursorWrapper):
    """Stand in line for a statement that is a transaction of its own."""

    def execute(self, query: str, params: Any = None) -> Any:
        """Execute a statement."""
        if self.connection.in_transaction or not query.startswith(WRITES):
            return super().execute(query, params)
        entered = _line.acquire(timeout=PATIENCE_S)
        try:
            return super().execute(query, params)
        finally:
            if entered:
                _line.release()


class DatabaseWrapper(base.DatabaseWrapper):
    """Stand in line from the beginning of a transaction to its end."""

    _in_line = False

    def create_cursor(self, name: str | None = None) -> Any:
        """Return a cursor that stands in line."""
        return self.connection.cursor(factory=Cursor)

    def _start_transaction_under_autocommit(self) -> None:
        self._in_line = _line.acquire(timeout=PATIENCE_S)
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._leave_line()
            raise

    def _commit(self) -> None:
        try:
            super()._commit()  # type: ignore[misc]
        finally:
            self._leave_line()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._leave_line()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            self._leave_line()

    def _leave_line(self) -> None:
        if self._in_line:
            self._in_line = False
            _line.release()
