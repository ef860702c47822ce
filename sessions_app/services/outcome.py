"""What came of an execution, as the columns of its row: from the proxy's answer, or from the sandbox's journal.

All of it comes out of a sandbox, so nothing here trusts its size, its type or its characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sessions_app.limits import WHOLE_OUTPUT_LIMIT_BYTES
from sessions_app.models import Execution
from sessions_app.services import rich
from sessions_app.services.output import cut, fits, omitted

Status = Execution.Status

FINAL = frozenset(Status.values) - {Status.QUEUED, Status.RUNNING}
STATUS_BY_EXIT_REASON = {
    "timed_out": Status.TIMED_OUT,
    "cancelled": Status.CANCELLED,
    "out_of_memory": Status.OUT_OF_MEMORY,
    "lost": Status.LOST,
}
# The agent bounds output in bytes; each byte that is no UTF-8 becomes a character of three.
TAKEN_LIMIT_BYTES = 3 * WHOLE_OUTPUT_LIMIT_BYTES + 4096
PHASES = ("compile", "run")
MAX_FILES = 100
MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1


@dataclass
class Outcome:
    """Be the final status, the values that go with it, and what else the sandbox said of the end."""

    status: str
    values: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)


def from_reply(reply: Mapping[str, Any]) -> Outcome:
    """Read the proxy's answer to an execute that waited."""
    status = str(reply.get("status", ""))
    stdout, cut_out = kept(reply.get("stdout"))
    stderr, cut_err = kept(reply.get("stderr"))
    values = {
        **_measures(reply),
        "stdout": stdout,
        "stderr": stderr,
        "results": rich.results(reply.get("results")),
        "exception": rich.exception(reply.get("exception")),
        "context_restarted": reply.get("context_restarted") is True,
        **_files(reply),
        "error": kept(reply.get("error"))[0],
        "truncated": bool(reply.get("truncated")) or cut_out or cut_err,
        "started_at": _instant(reply.get("started_at")),
        "finished_at": _instant(reply.get("finished_at")),
        "last_seq": _integer(reply.get("last_seq"), MAX_INT64) or 0,
    }
    return Outcome(status if status in FINAL else Status.ERROR, values, _told(reply, values["exception"]))


@dataclass
class Journal:
    """Be what the events read so far add up to."""

    started_at: datetime | None = None
    outcome: Outcome | None = None
    partial: dict[str, Any] = field(default_factory=dict)


def from_events(events: Iterable[Mapping[str, Any]]) -> Journal:
    """Add a journal's events up; `outcome` is None while there is no `exit`."""
    journal = Journal()
    parts: dict[str, list[str]] = {"stdout": [], "stderr": []}
    results: list[Any] = []
    exception: object = None
    truncated, last_seq = False, 0
    end: Mapping[str, Any] | None = None
    finished_at: datetime | None = None
    for event in events:
        kind, data = event.get("type"), event.get("data")
        last_seq = max(last_seq, _integer(event.get("seq"), MAX_INT64) or 0)
        if kind in parts:
            parts[str(kind)].append(str(data))
        elif kind == "started":
            journal.started_at = _instant(event.get("at"))
        elif kind == "truncated" and isinstance(data, Mapping):
            truncated = True
            parts.get(str(data.get("stream")), []).append(omitted(_integer(data.get("omitted_bytes"), MAX_INT64) or 0))
        elif kind == "result":
            results.append(data)
        elif kind == "error":
            exception = data
        elif kind == "exit" and isinstance(data, Mapping):
            end, finished_at = data, _instant(event.get("at"))
    stdout, cut_out = kept("".join(parts["stdout"]))
    stderr, cut_err = kept("".join(parts["stderr"]))
    journal.partial = {
        "stdout": stdout,
        "stderr": stderr,
        "results": rich.results(results),
        "exception": rich.exception(exception),
        "truncated": truncated or cut_out or cut_err,
        "started_at": journal.started_at,
        "last_seq": last_seq,
    }
    if end is not None:
        values = {**journal.partial, **_measures(end), **_files(end), "finished_at": finished_at}
        values["context_restarted"] = end.get("context_restarted") is True
        journal.outcome = Outcome(_status_of(end), values, _told(end, values["exception"]))
    return journal


def kept(text: object) -> tuple[str, bool]:
    """Return text as every database can keep it, its middle cut out when it is too long, and whether that was done."""
    if not isinstance(text, str):
        return "", False
    storable = text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    if fits(storable, TAKEN_LIMIT_BYTES):
        return storable, False
    return cut(storable, WHOLE_OUTPUT_LIMIT_BYTES), True


def _status_of(end: Mapping[str, Any]) -> str:
    status = str(end.get("status", ""))
    if status in FINAL:
        return status
    if end.get("reason") in STATUS_BY_EXIT_REASON:
        return STATUS_BY_EXIT_REASON[str(end["reason"])]
    return Status.SUCCEEDED if end.get("exit_code") == 0 else Status.FAILED


def _measures(source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "exit_code": _integer(source.get("exit_code"), MAX_INT32),
        "signal": _integer(source.get("signal"), MAX_INT32),
        "phase": phase if (phase := source.get("phase")) in PHASES else "",
        "duration_ms": _number(source.get("duration_ms")),
        "cpu_ms": _number(source.get("cpu_ms")),
        "max_rss_bytes": _integer(source.get("max_rss_bytes"), MAX_INT64),
    }


def _told(source: Mapping[str, Any], exception: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what only a hint is made of."""
    told = {name: rich.clean(source[name]) for name in ("message", "where") if source.get(name)}
    return told if "where" in told or not (where := rich.where(exception)) else {**told, "where": where}


def _files(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the files that the code made or changed, without what is no such entry, and whether there are more."""
    said = _list(source.get("files"))
    found = []
    for item in said[:MAX_FILES]:
        if not isinstance(item, Mapping) or not isinstance(item.get("path"), str):
            continue
        entry: dict[str, Any] = {
            "path": rich.clean(item["path"]),
            "size": _integer(item.get("size"), MAX_INT64) or 0,
            "mode": str(item.get("mode"))[:8],
            "change": "modified" if item.get("change") == "modified" else "created",
        }
        if isinstance(item.get("encoded_path"), str):
            entry["encoded_path"] = rich.clean(item["encoded_path"])
        found.append(entry)
    return {"files": found, "files_truncated": source.get("files_truncated") is True or len(said) > MAX_FILES}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _integer(value: object, bound: int) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= bound else None


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < MAX_INT64:
        return None
    return float(value)


def _instant(value: object) -> datetime | None:
    seconds = _number(value)
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError):
        return None
