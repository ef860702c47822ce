"""What code in a context showed and raised, as the columns of its row.

It comes out of a sandbox: what is no result becomes none, and nothing is longer than a row may be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# The pictures among them are texts too, in base64.
TEXT_KEYS = ("text", "html", "markdown", "svg", "png", "jpeg", "pdf", "latex", "javascript")
# The sandbox's agent allows 8 MiB a result and about 40 MiB an execution; base64 makes four bytes of three.
MAX_RESULTS_CHARS = 56 * 1024 * 1024
MAX_RESULTS = 1000
PLACE = re.compile(r"  File \"<input \d{1,9}>\", line (\d{1,9}), in (\S{1,200})$")
MAX_TRACEBACK_LINES = 20_000


def results(value: object) -> list[dict[str, Any]]:
    """Return the rich results in an answer of the proxy."""
    found: list[dict[str, Any]] = []
    left = MAX_RESULTS_CHARS
    for item in value[:MAX_RESULTS] if isinstance(value, list) else ():
        if not isinstance(item, Mapping):
            continue
        result = {key: clean(item[key]) for key in TEXT_KEYS if isinstance(item.get(key), str)}
        if "json" in item:
            result["json"] = clean(item["json"])
        left -= _size(result)
        if left < 0:
            break
        found.append({**result, "is_main_result": item.get("is_main_result") is True})
    return found


def exception(value: object) -> dict[str, Any] | None:
    """Return the exception that nothing caught, if there was one."""
    if not isinstance(value, Mapping):
        return None
    lines = value.get("traceback")
    traceback = lines[:MAX_TRACEBACK_LINES] if isinstance(lines, list) else []
    return {
        "name": clean(str(value.get("name", ""))),
        "value": clean(str(value.get("value", ""))),
        "traceback": [clean(str(line)) for line in traceback],
    }


def where(exception: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the line of the code itself at which it was interrupted; empty when nothing says so."""
    lines = exception["traceback"] if exception is not None and exception["name"] == "KeyboardInterrupt" else []
    places = [place for line in reversed(lines) if (place := PLACE.match(line))]
    return {"line": int(places[0][1]), "function": places[0][2]} if places else {}


def clean(value: Any) -> Any:
    """Return JSON whose texts every database can keep."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    return value


def _size(value: Any) -> int:
    """Return about how many characters a value takes as JSON."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(key) + _size(item) for key, item in value.items())
    return sum(map(_size, value)) if isinstance(value, list) else 8
