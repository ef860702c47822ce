"""Which part of a file a request's `Range` asks for (RFC 9110, section 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

ONE_RANGE = re.compile(r"bytes=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII)


class Unsatisfiable(Exception):
    """The range begins behind the file's end."""


@dataclass(frozen=True)
class Part:
    """`length` bytes from `start` on of a file of `size`."""

    start: int
    length: int
    size: int

    @property
    def content_range(self) -> str:
        """Return the header's value."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{self.size}"


def wanted_part(header: str | None, size: int) -> Part | None:
    """Return the part that is asked for; None where the whole is the answer: also to several ranges, and to nonsense.

    Raises Unsatisfiable.
    """
    match = ONE_RANGE.fullmatch(header or "")
    if match is None:
        return None
    first, last = match.groups()
    if first:
        start, end = int(first), int(last) if last else size - 1
        if last and end < start:
            return None
    elif last:
        start, end = max(0, size - int(last)), size - 1
        if int(last) == 0:
            raise Unsatisfiable
    else:
        return None
    if start >= size:
        raise Unsatisfiable
    return Part(start, min(end, size - 1) - start + 1, size)
