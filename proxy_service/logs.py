"""Logs: one line an event on standard error, never a secret and never code."""

from __future__ import annotations

import logging
import sys

_ALWAYS_THERE = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class WithExtras(logging.Formatter):
    """Put what a record was given as `extra` behind its message, as name=value."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line."""
        extras = {name: value for name, value in vars(record).items() if name not in _ALWAYS_THERE}
        return " ".join((super().formatMessage(record), *(f"{name}={value!r}" for name, value in extras.items())))


def configure(level: str) -> None:
    """Send the proxy's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(WithExtras("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "docker", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel("WARNING")
