"""Durations as people write them on a command line."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def seconds(text: str) -> float:
    """Read a number of seconds above 0; the type of an argument."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return number


def at_least_one(text: str) -> int:
    """Read a number that counts things; the type of an argument."""
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 9999")
    return int(text)


def duration(text: str) -> timedelta:
    """Read `90s`, `15m`, `12h`, `30d` or `2w`; the type of an argument."""
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write it as 90s, 15m, 12h, 30d or 2w")
    return timedelta(**{UNITS[match[2]]: int(match[1])})
