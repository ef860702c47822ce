"""The one clock by which deadlines are written and compared, in every process alike.

A wall clock may be set while sessions live, and those of two machines differ. So the time of deadlines is reckoned
from what nobody sets, this machine's clock since its boot, plus an offset that all processes share:

- On SQLite all processes are on one machine. The first one after a boot keeps the offset to the wall clock in
  `ClockAnchor`, the others read it once: setting the wall clock moves no deadline.
- On PostgreSQL the server's clock is the one clock. Each process measures its offset to it now and then, so the wall
  clocks of app and reaper do not count. When the server's own clock is set, the process that sees the step first
  writes it into `ClockAnchor`, and all go on as if it had not happened.

Reading the clock costs no query but for the measurement, one in `REFRESH_S` seconds a process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, connection
from django.db.models import DateTimeField, F, Func

logger = logging.getLogger(__name__)

# How long a measurement of a database server's clock holds; the two clocks drift apart by less than a millisecond.
REFRESH_S = 10
# A difference past this, and past what the measurement itself took, is a clock that was set, not one that drifts.
STEP_S = 1.0

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND_US = 1_000_000


@dataclass(frozen=True)
class Reading:
    """What this process knows of the clock; all in microseconds."""

    # The clock minus this machine's time since its boot.
    offset_us: int
    # When it was measured, in time since the boot.
    at_us: int
    # How often the correction of the server's clock had changed.
    revision: int = 0
    # What was added to the server's clock.
    correction_us: int = 0


class ClockTimestamp(Func):
    """PostgreSQL's clock at this very moment, not at the beginning of the transaction."""

    function = "clock_timestamp"
    arity = 0
    output_field = DateTimeField()


_known: Reading | None = None
_refreshing = threading.Lock()


def now() -> datetime:
    """Return the time of deadlines."""
    return _sources[-1]()


def reckoned() -> datetime:
    """Return the time of deadlines as this process reckons it."""
    return EPOCH + timedelta(microseconds=_reading().offset_us + _since_boot_us())


def on_the_wall(instant: datetime) -> datetime:
    """Return what a wall clock shows at an instant of this clock: the same, unless one was set since."""
    if _sources[-1] is not reckoned:
        return instant
    ahead_us = -_reading().correction_us
    if connection.vendor == "sqlite":
        ahead_us = _wall_us() - _since_boot_us() - _reading().offset_us
    return instant + timedelta(seconds=round(ahead_us / SECOND_US)) if abs(ahead_us) > STEP_S * SECOND_US else instant


_sources: list[Callable[[], datetime]] = [reckoned]


@contextmanager
def using(source: Callable[[], datetime]) -> Iterator[None]:
    """Put another clock in place for a while, in all threads: the seam by which tests travel in time."""
    _sources.append(source)
    try:
        yield
    finally:
        _sources.remove(source)


def refresh() -> None:
    """Measure the database's clock now; the reaper does before each sweep, so that a step is seen soon."""
    global _known
    if _sources[-1] is reckoned:
        with _refreshing:
            _known = _measured(_known)


def forget() -> None:
    """Measure anew at the next question, as a new process does."""
    global _known
    _known = None


def _since_boot_us() -> int:
    # It goes on while the machine is suspended, as the sessions' time does.
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def _wall_us() -> int:
    return time.time_ns() // 1000


def _reading() -> Reading:
    """Return a reading that is fresh enough, measured by one thread while the others use the last."""
    global _known
    known = _known
    if known is None:
        with _refreshing:
            _known = known = _known or _measured(None)
        return known
    stale = connection.vendor != "sqlite" and _since_boot_us() - known.at_us > REFRESH_S * SECOND_US
    # What a transaction reads and writes here could be rolled back with it.
    if stale and not connection.in_atomic_block and _refreshing.acquire(blocking=False):
        try:
            _known = known = _measured(known)
        except (DatabaseError, SynchronousOnlyOperation) as error:
            logger.info("The database's clock could not be read; the last reading holds: %s", error)
        finally:
            _refreshing.release()
    return known


def _measured(known: Reading | None) -> Reading:
    if connection.vendor == "sqlite":
        return _anchored(known)
    return _of_the_server(known)


def _anchored(known: Reading | None) -> Reading:
    """Return the offset that the first process after this machine's boot has kept."""
    from sessions_app.models import ClockAnchor

    boot_id = BOOT_ID.read_text().strip()
    offset_us = _wall_us() - _since_boot_us() if known is None else known.offset_us
    values = {"boot_id": boot_id, "offset_us": offset_us}
    anchor, made = ClockAnchor.objects.get_or_create(pk=ClockAnchor.ONLY_ID, defaults=values)
    if not made and anchor.boot_id != boot_id:
        ClockAnchor.objects.filter(pk=anchor.pk, boot_id=anchor.boot_id).update(**values)
        anchor.refresh_from_db()
    return Reading(anchor.offset_us, _since_boot_us())


def _of_the_server(known: Reading | None) -> Reading:
    """Measure the server's clock, and correct it for everybody if it was set since the last reading."""
    from sessions_app.models import ClockAnchor

    before = _since_boot_us()
    anchor = ClockAnchor.objects.annotate(server_time=ClockTimestamp()).first()
    if anchor is None:
        ClockAnchor.objects.get_or_create(pk=ClockAnchor.ONLY_ID)
        return _of_the_server(known)
    took = _since_boot_us() - before
    server_us = (anchor.server_time - EPOCH) // timedelta(microseconds=1)
    measured = Reading(
        offset_us=server_us + anchor.offset_us - before - took // 2,
        at_us=before + took,
        revision=anchor.revision,
        correction_us=anchor.offset_us,
    )
    if known is None or known.revision != measured.revision:
        return measured
    step_us = measured.offset_us - known.offset_us
    if abs(step_us) <= STEP_S * SECOND_US + took:
        return measured
    rows = ClockAnchor.objects.filter(pk=anchor.pk, revision=anchor.revision)
    if rows.update(offset_us=anchor.offset_us - step_us, revision=F("revision") + 1) == 0:
        return _of_the_server(None)  # another process was first
    logger.warning("The database's clock was set by %+.1f s; deadlines go on as before", step_us / SECOND_US)
    return replace(
        measured,
        offset_us=known.offset_us,
        revision=anchor.revision + 1,
        correction_us=anchor.offset_us - step_us,
    )
