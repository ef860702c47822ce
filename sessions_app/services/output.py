"""Output of a length that its reader asked for: its head and its tail, and a line that says what is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

STREAMS = ("stdout", "stderr")
# What stands where a sandbox has cut out the middle of more than this server keeps.
OMITTED = re.compile(r"\n\[… (\d{1,18}) bytes omitted …\]\n")


def omitted(count: int, kept: str = "") -> str:
    """Return what stands where output was cut; `kept` says where what is left out can be had."""
    return f"\n[… {count} bytes omitted{', ' if kept else ''}{kept} …]\n"


def fits(text: str, limit_bytes: int) -> bool:
    """Tell whether text is no longer than a limit."""
    return 4 * len(text) <= limit_bytes or len(text.encode()) <= limit_bytes


def cut(text: str, limit_bytes: int, *, whole: str = "") -> str:
    """Return text with its middle left out if it is longer than the limit, which the line about that does not count to.

    `whole` is the address of the text. What a sandbox has left out of its middle before is counted, too.
    """
    if fits(text, limit_bytes):
        return text
    raw = text.encode()
    tail_bytes = limit_bytes // 2
    head = raw[: limit_bytes - tail_bytes].decode("utf-8", "ignore")
    tail = raw[len(raw) - tail_bytes :].decode("utf-8", "ignore")
    middle = text[len(head) : len(text) - len(tail)]
    before = OMITTED.findall(middle)
    own = OMITTED.sub("", middle) if before else middle
    kept = f"{'more' if before else 'all'} of it: {whole}" if whole else ""
    return head + omitted(len(own.encode()) + sum(map(int, before)), kept) + tail


def fitted(values: Mapping[str, Any], limit_bytes: int) -> dict[str, Any]:
    """Return the columns of an execution with its output cut to the limit."""
    short = {name: cut(values[name], limit_bytes) for name in STREAMS if name in values}
    if all(short[name] is values[name] for name in short):
        return dict(values)
    return {**values, **short, "truncated": True}
