"""Logs: one line an event on standard error, never a secret and never code."""

from __future__ import annotations

import logging
import sys


def configure(level: str) -> None:
    """Send the proxy's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "docker", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel("WARNING")
