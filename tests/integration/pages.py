"""Pages of documentation whose code is run as printed, and whose answers are compared with what is shown."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANYTHING = "…"
BLOCK = re.compile(r"^```(bash|python|json|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = ("json", "text")
END = "@@ end of a block @@"
TIMEOUT_S = 240


@dataclass(frozen=True)
class Example:
    """A piece of code of a page, and what the page says that it prints; None: nothing."""

    language: str
    code: str
    line: int
    shown: tuple[str, str] | None


def examples_of(page: Path) -> list[Example]:
    """Return the code of a page; what is shown after several pieces in a row is what each of them prints."""
    text = page.read_text()
    blocks = [(found[1], found[2], text.count("\n", 0, found.start()) + 1) for found in BLOCK.finditer(text)]
    examples: list[Example] = []
    row: list[tuple[str, str, int]] = []
    for language, content, line in blocks:
        if language not in SHOWN:
            if any(piece[0] == language for piece in row):
                examples += [Example(*piece, None) for piece in row]
                row = []
            row.append((language, content, line))
            continue
        assert row, f"line {line} shows what nothing prints"
        examples += [Example(*piece, (language, content)) for piece in row]
        row = []
    return examples + [Example(*piece, None) for piece in row]


def run(
    examples: list[Example], language: str, *, env: Mapping[str, str], cwd: Path, before: str = ""
) -> list[tuple[Example, str]]:
    """Run all code of one language in one process, in order, `before` first; return what each piece printed."""
    mine = [example for example in examples if example.language == language]
    if language == "bash":
        command, joint, before = ["/bin/bash"], f"\necho; echo '{END}'\n", "set -euo pipefail\n" + before
    else:
        command, joint = [sys.executable, "-"], f"\nprint(); print('{END}', flush=True)\n"
    script = before + "".join(example.code + joint for example in mine)
    ran = subprocess.run(
        command, input=script, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    outputs = ran.stdout.split(f"\n{END}\n")
    if ran.returncode != 0:
        failed = mine[min(len(outputs), len(mine)) - 1]
        raise AssertionError(f"{language} of line {failed.line} failed:\n{outputs[-1]}\n{ran.stderr}")
    assert len(outputs) == len(mine) + 1, ran.stderr
    return list(zip(mine, outputs, strict=False))


def difference(example: Example, printed: str) -> str:
    """Return what is wrong with what an example printed; nothing when it is what the page shows."""
    if example.shown is None:
        return "" if not printed.strip() else f"printed {printed!r}, and the page shows nothing"
    language, shown = example.shown
    if language == "text":
        pattern = ".*?".join(map(re.escape, shown.strip().split(ANYTHING)))
        matches = re.fullmatch(pattern, printed.strip(), re.DOTALL)
        return "" if matches else f"printed\n{printed}\nbut the page shows\n{shown}"
    try:
        answer = json.loads(printed)
    except ValueError:
        return f"printed no JSON: {printed}"
    return _unlike(json.loads(shown), answer, "")


def _unlike(shown: Any, answered: Any, place: str) -> str:
    """Return the first difference; `…` stands for any value, as the last of a list for any more of them.

    An answer may have keys that are not shown.
    """
    if shown == ANYTHING:
        return ""
    if isinstance(shown, dict) and isinstance(answered, dict):
        for key, value in shown.items():
            if key not in answered:
                return f"{place}.{key} is not in the answer {answered}"
            if unlike := _unlike(value, answered[key], f"{place}.{key}"):
                return unlike
        return ""
    if isinstance(shown, list) and isinstance(answered, list):
        more = shown[-1:] == [ANYTHING]
        wanted = shown[:-1] if more else shown
        if len(answered) < len(wanted) or (len(answered) > len(wanted) and not more):
            return f"{place} has {len(answered)} entries: {answered}"
        found = (_unlike(one, other, f"{place}[]") for one, other in zip(wanted, answered, strict=False))
        return next(filter(None, found), "")
    return "" if shown == answered else f"{place} is {answered!r}, the page shows {shown!r}"
