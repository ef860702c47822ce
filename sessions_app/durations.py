"""Durations as people write them on a command line."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def duration(text: str) -> timedelta:
    """Read `90s`, `15m`, `12h`, `30d` or `2w`; the type of an argument."""
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write it as 90s, 15m, 12h, 30d or 2w")
    return timedelta(**{UNITS[match[2]]: int(match[1])})
