"""`manage.py reap_sessions`: sweep again and again, until told to stop."""

from __future__ import annotations

import logging
import os
import signal
from argparse import ArgumentParser
from threading import Event, Timer
from time import monotonic
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand

from sessions_app.reaper import WORKERS, Reaper, Sweep, sweep

logger = logging.getLogger(__name__)

# A sweep that waits for the proxy is left where it is after so long: every step may be cut off anywhere.
STOP_WITHIN_S = 0.8


class Command(BaseCommand):
    """Run the loop; what a sweep does stands in `sessions_app/reaper.py`."""

    help = "Ends expired sessions, settles executions, and cleans up after crashes. Any number of them may run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--interval", type=float, default=5, help="Seconds between two sweeps (5).")
        parser.add_argument("--once", action="store_true", help="Sweep once, and exit with 1 if a step failed.")
        parser.add_argument("--max-seconds", type=float, help="Exit after so many seconds.")
        parser.add_argument("--workers", type=int, default=WORKERS, help=f"Rows handled at the same time ({WORKERS}).")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Sweep until the time is up or a signal comes."""
        stop = Event()
        reaper = Reaper(workers=options["workers"], should_stop=stop.is_set)
        if options["once"]:
            done = sweep(reaper)
            self.stdout.write(described(done) or "nothing to do")
            if done.failures:
                raise SystemExit(1)
            return
        _stop_on_signals(stop)
        self._loop(reaper, stop, interval_s=options["interval"], max_s=options["max_seconds"])

    def _loop(self, reaper: Reaper, stop: Event, *, interval_s: float, max_s: float | None) -> None:
        ends_at = None if max_s is None else monotonic() + max_s
        logger.info("Reaper started: a sweep every %g s", interval_s)
        failures: dict[str, str] = {}
        while not stop.is_set() and (ends_at is None or monotonic() < ends_at):
            done = sweep(reaper)
            failures = report(done, failures)
            # A full batch means that more is waiting; but not to try failing rows again without a pause.
            pause_s = 0 if done.is_full and not done.failures else interval_s
            stop.wait(pause_s if ends_at is None else max(0, min(pause_s, ends_at - monotonic())))
        logger.info("Reaper stopped")


def report(done: Sweep, earlier: dict[str, str]) -> dict[str, str]:
    """Log what a sweep did, and a failure when it begins and when it ends: not in every sweep in between."""
    if text := described(done):
        logger.info("Swept: %s", text)
    for step, message in done.failures.items():
        if earlier.get(step) != message:
            logger.warning("The step %s fails: %s", step, message)
    for step in earlier.keys() - done.failures.keys():
        logger.info("The step %s works again", step)
    return done.failures


def described(done: Sweep) -> str:
    """Return one line about what was done; empty when there was nothing to do."""
    parts = [f"{step} {count}" for step, count in done.counts.items() if count]
    return ", ".join(parts + [f"{step} failed ({message})" for step, message in done.failures.items()])


def _stop_on_signals(stop: Event) -> None:
    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        killer = Timer(STOP_WITHIN_S, os._exit, [0])
        killer.daemon = True
        killer.start()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
