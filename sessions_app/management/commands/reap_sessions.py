"""`manage.py reap_sessions`: sweep again and again, until told to stop."""

from __future__ import annotations

import logging
import os
import signal
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Timer
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand

from sessions_app.attempts import WORKERS, Reaper
from sessions_app.durations import at_least_one, seconds
from sessions_app.reaper import Sweep, sweep

logger = logging.getLogger(__name__)

# A sweep that waits for the proxy is left where it is after so long: every step may be cut off anywhere.
STOP_WITHIN_S = 0.8


class Command(BaseCommand):
    """Run the loop; what a sweep does stands in `sessions_app/reaper.py`."""

    help = "Ends expired sessions, settles executions, and cleans up after crashes. Any number of them may run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--interval", type=seconds, default=5.0, help="Seconds between two sweeps (5).")
        parser.add_argument("--once", action="store_true", help="Sweep once, and exit with 1 if a step failed.")
        parser.add_argument("--max-seconds", type=seconds, help="Exit after so many seconds, even amid a sweep.")
        parser.add_argument(
            "--workers", type=at_least_one, default=WORKERS, help=f"Rows handled at the same time ({WORKERS})."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Sweep until the time is up or a signal comes."""
        stop = Event()
        reaper = Reaper(workers=options["workers"], should_stop=stop.is_set)
        with _stopped_by_signals(stop), _stopped_after(options["max_seconds"], stop):
            if options["once"]:
                self._once(reaper)
            else:
                self._loop(reaper, stop, interval_s=options["interval"])

    def _once(self, reaper: Reaper) -> None:
        done = sweep(reaper)
        self.stdout.write(described(done) or "nothing to do")
        if done.failures:
            raise SystemExit(1)

    def _loop(self, reaper: Reaper, stop: Event, *, interval_s: float) -> None:
        logger.info("Reaper started: a sweep every %g s", interval_s)
        failures: dict[str, str] = {}
        while not stop.is_set():
            done = sweep(reaper)
            failures = report(done, failures)
            # A full batch means that more is waiting; but not to try failing rows again without a pause.
            stop.wait(0 if done.is_full and not done.failures else interval_s)
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


@contextmanager
def _stopped_after(max_s: float | None, stop: Event) -> Iterator[None]:
    """Stop after so many seconds, if any."""
    if max_s is None:
        yield
        return
    timers = [Timer(max_s, stop.set), Timer(max_s + STOP_WITHIN_S, os._exit, [0])]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


@contextmanager
def _stopped_by_signals(stop: Event) -> Iterator[None]:
    """Stop at SIGTERM and SIGINT, within a second."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        killer = Timer(STOP_WITHIN_S, os._exit, [0])
        killer.daemon = True
        killer.start()

    earlier = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
