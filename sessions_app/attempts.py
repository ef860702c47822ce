"""How the reaper works through rows: several at a time, each on its own, with patience for what keeps failing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from django.db import DatabaseError, connection

from sessions_app import clock
from sessions_app.backoff import Backoff
from sessions_app.exceptions import ProxyUnavailable, ProxyUnreachable, SandboxwebError
from sessions_app.models import Execution, Session
from sessions_app.proxy_client import proxy

logger = logging.getLogger(__name__)

Row = TypeVar("Row")

# Rows that one step takes on in one sweep; a full batch makes the next sweep follow at once.
BATCH = 200
# Rows worked on at the same time: each waits for the proxy, not for this machine.
WORKERS = 8


@dataclass
class Reaper:
    """Carry how sweeps work: how many rows at a time, whether to stop, what failed before, where the proxy is."""

    workers: int = WORKERS
    batch: int = BATCH
    should_stop: Callable[[], bool] = lambda: False
    backoff: Backoff = field(default_factory=Backoff)
    proxy_is_away: bool = False

    def each(self, rows: Iterable[Row], handle: Callable[[Row], bool], *, asks_proxy: bool = False) -> int:
        """Handle rows, several at a time; return how many were. One that failed lately is left alone for a while.

        Where `asks_proxy`, no more are begun once the proxy turns out to be away.
        """
        held = self.backoff.held()
        rows = [row for row in rows if _key(row) not in held]

        def one(row: Row) -> bool:
            return not (asks_proxy and self.proxy_is_away) and self.attempt(row, handle)

        def one_in_a_thread(row: Row) -> bool:
            try:
                return one(row)
            finally:
                connection.close()

        if self.workers <= 1 or len(rows) <= 1:
            return sum(one(row) for row in rows)
        with ThreadPoolExecutor(self.workers, thread_name_prefix="reaper") as pool:
            return sum(pool.map(one_in_a_thread, rows))

    def attempt(self, row: Row, handle: Callable[[Row], bool]) -> bool:
        """Handle one row; whatever goes wrong is logged, and puts the row off, not the others."""
        if self.should_stop():
            return False
        try:
            handled = handle(row)
        except ProxyUnavailable as error:
            self.proxy_is_away = self.proxy_is_away or isinstance(error, ProxyUnreachable) or not _proxy_answers()
            # If it is away that is not this row's fault: it is due again at once, when the proxy is back.
            self._put_off(row, 0 if self.proxy_is_away else self.backoff.failed(_key(row)), error)
            return False
        except Exception as error:
            self._put_off(row, self.backoff.failed(_key(row)), error)
            return False
        self.backoff.worked(_key(row))
        return handled

    def _put_off(self, row: object, seconds: float, error: Exception) -> None:
        expected = isinstance(error, SandboxwebError)
        what, reason = type(row).__name__, str(error) or type(error).__name__
        if seconds:
            text = "%s %s could not be handled, and is left alone for %g s: %s"
            logger.warning(text, what, row, seconds, reason, exc_info=not expected)
        if isinstance(row, Session | Execution):
            try:
                row.put_off(clock.now() + timedelta(seconds=seconds))
            except DatabaseError as trouble:
                logger.warning("%s %s could not be put off: %s", what, row, trouble)


def _proxy_answers() -> bool:
    """Tell whether the proxy is there: one that hangs must not cost a time-out for each row."""
    try:
        return bool(proxy().health())
    except SandboxwebError:
        return False


def _key(row: object) -> Hashable:
    return row.pk if isinstance(row, Session | Execution) else row
