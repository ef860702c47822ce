"""How far code came: whether its language took it at all, or it ran and then failed.

Where a compiler is a program of its own, the sandbox says that it failed. An interpreter says so in its own words,
which name the file that the code was put into. Bash and R read as they run: what stands before the place that they
cannot read has run by then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

Phase = Literal["compile", "run"]

_FILE = r"main-[0-9a-f]{8}"
_REFUSALS: Mapping[str, re.Pattern[str]] = {
    "bash": re.compile(rf"^\S*{_FILE}\.sh: line \d+: (?:syntax error|unexpected EOF)", re.MULTILINE),
    "java": re.compile(r"^error: compilation failed$", re.MULTILINE),
    "javascript": re.compile(rf"\A\S*/{_FILE}\.js:\d+\n(?:.*\n){{0,4}}\n?SyntaxError: ", re.MULTILINE),
    "python": re.compile(
        rf"^  File \"[^\"\n]*{_FILE}\.py\", line \d+\n(?:    .*\n)*(?:Syntax|Indentation|Tab)Error: ", re.MULTILINE
    ),
    "r": re.compile(r"^Error: unexpected (?:'|end of |\w+ in:|symbol|input|\w+ constant|assignment)", re.MULTILINE),
    "ruby": re.compile(rf"^\S*{_FILE}\.rb:\d+: (?!in )(?:.*syntax error|.*\(SyntaxError\))", re.MULTILINE),
}
_PYTHON_RAN = "Traceback (most recent call last):"
_READ_CHARS = 64 * 1024


def phase_of(lang: str, end: Mapping[str, Any], stderr: str) -> Phase:
    """Return in which phase an execution ended, by its `exit` event and what it wrote to its standard error."""
    if end.get("programs_left"):
        return "compile"
    if end.get("exit_code") in (0, None) or (refusal := _REFUSALS.get(lang)) is None:
        return "run"
    said = stderr[-_READ_CHARS:] if lang == "java" else stderr[:_READ_CHARS]
    if lang == "python" and _PYTHON_RAN in said:
        return "run"
    return "compile" if refusal.search(said) else "run"
