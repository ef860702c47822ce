"""Compare what clients were told with what is true: each finding must be empty."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from tests.chaos.installation import Installation
from tests.chaos.ledger import Asked, Ledger

PASSING = ("pending", "terminating")
SESSION_LIVE = ("pending", "active", "terminating")
EXECUTION_LIVE = ("queued", "running")
LOOK_S = 0.5

Rows = list[dict[str, Any]]


@dataclass
class Finding:
    """One thing that must not be: `cases` name what was found, `clean_after_s` when there was none any more."""

    name: str
    cases: list[str]
    clean_after_s: float | None = None


@dataclass
class Truth:
    """What the database and the machine say at one moment."""

    sessions: Rows
    executions: Rows
    sandboxes: set[str]
    left_behind: list[str]
    of_proxy: dict[str, str]
    runs: dict[str, int]
    session_by_id: dict[str, dict[str, Any]] = field(init=False)
    execution_by_id: dict[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.session_by_id = {row["id"]: row for row in self.sessions}
        self.execution_by_id = {row["id"]: row for row in self.executions}

    @classmethod
    def of(cls, installation: Installation, runs: dict[str, int]) -> Truth:
        """Look."""
        return cls(
            sandboxes=installation.sandboxes(),
            of_proxy=installation.proxy_sessions(),
            left_behind=installation.left_behind(),
            sessions=installation.rows("session", "id", "status", "termination_reason", "sandbox", "error"),
            executions=installation.rows(
                "execution", "id", "session_id", "status", "stdout", "stderr", "error", "code", "started_at"
            ),
            runs=runs,
        )


def stuck(truth: Truth, _: Ledger) -> list[str]:
    """Rows on their way somewhere while nobody asks for anything any more."""
    sessions = [f"session {row['id']}: {row['status']}" for row in truth.sessions if row["status"] in PASSING]
    live = [f"execution {row['id']}: {row['status']}" for row in truth.executions if row["status"] in EXECUTION_LIVE]
    return sessions + live


def unowned(truth: Truth, _: Ledger) -> list[str]:
    """Sandboxes, processes and directories that belong to no live row."""
    owned = {row["sandbox"] for row in truth.sessions if row["status"] in SESSION_LIVE}
    known = {key: name for key, name in truth.of_proxy.items() if name not in owned}
    names = [f"sandbox {name}" for name in sorted(truth.sandboxes - owned)]
    return names + [f"the proxy still has {key}: {name}" for key, name in known.items()] + truth.left_behind


def without_sandbox(truth: Truth, _: Ledger) -> list[str]:
    """Live rows whose sandbox does not exist, or that the proxy does not know."""
    live = [row for row in truth.sessions if row["status"] in SESSION_LIVE]
    return [
        f"session {row['id']} ({row['status']}): {row['sandbox'] or 'no sandbox'}"
        for row in live
        if row["sandbox"] not in truth.sandboxes or truth.of_proxy.get(row["id"]) != row["sandbox"]
    ]


def run_twice(truth: Truth, _: Ledger) -> list[str]:
    """Programs whose mark the witness heard more than once: each was sent under one key."""
    return [f"{mark}: {count} times" for mark, count in truth.runs.items() if count > 1]


def missing(truth: Truth, ledger: Ledger) -> list[str]:
    """Ids that a client was told and that the database does not have."""
    sessions = [f"session {key}" for key in ledger.sessions if key not in truth.session_by_id]
    return sessions + [f"execution {key}" for key in ledger.executions if key not in truth.execution_by_id]


def wrong(truth: Truth, ledger: Ledger) -> list[str]:
    """Answers whose result is not what the code does: told to a client, or kept in the database."""
    found = []
    for key, asked in ledger.executions.items():
        for source, row in (("answer", asked.answer), ("row", truth.execution_by_id.get(key))):
            if row is not None and (why := _wrong(asked, row, truth.runs)):
                found.append(f"{source} {key} ({asked.kind}, {asked.program.mark}): {why}")
    return found


def _wrong(asked: Asked, row: dict[str, Any], runs: dict[str, int]) -> str:
    program, status = asked.program, row["status"]
    if status == "succeeded" or (status == "failed" and not row["error"]):
        if status != ("failed" if program.exit_code else "succeeded"):
            return f"{status}, though it exits with {program.exit_code}: {row['stderr'][-300:]!r}"
        if program.mark not in runs:
            return f"{status}, though it never ran"
        if (row["stdout"], row["stderr"]) != (program.stdout, program.stderr):
            return f"{len(row['stdout'])} characters of output instead of {len(program.stdout)}"
    elif not program.stdout.startswith(row["stdout"]):
        return f"{status}, with output that the code does not begin with"
    elif status == "timed_out" and not asked.cancelled:
        return "timed out, though it takes seconds"
    elif status == "cancelled" and not asked.cancelled:
        return "cancelled, though nobody did"
    return ""


def undone(truth: Truth, ledger: Ledger) -> list[str]:
    """Ends that a client was told and that are not so in the database."""
    found = []
    for key in ledger.ended:
        row = truth.session_by_id.get(key)
        if row is not None and row["status"] in ("pending", "active"):
            found.append(f"session {key} was ended and is {row['status']}")
    for key, asked in ledger.executions.items():
        row = truth.execution_by_id.get(key)
        told = (asked.answer or {}).get("status")
        if row is not None and told not in (None, *EXECUTION_LIVE) and row["status"] != told:
            found.append(f"execution {key} was {told} and is {row['status']}")
    return found


def unanswered(_: Truth, ledger: Ledger) -> list[str]:
    """Requests that never got an answer, however often they were repeated."""
    return ledger.unanswered


def surprises(_: Truth, ledger: Ledger) -> list[str]:
    """Answers that no client should get: a 500, a 404 for what was acknowledged."""
    return ledger.surprises


FINDINGS: dict[str, Callable[[Truth, Ledger], list[str]]] = {
    "rows in a passing state that nothing works on": stuck,
    "sandboxes, processes or directories without a live row": unowned,
    "live rows without a sandbox": without_sandbox,
    "executions run twice under one Idempotency-Key": run_twice,
    "acknowledged rows missing": missing,
    "executions whose result is not what the code does": wrong,
    "acknowledged ends that are not so": undone,
    "requests never answered": unanswered,
    "answers that no client should get": surprises,
}


def judge(
    installation: Installation,
    ledger: Ledger,
    runs: Callable[[], dict[str, int]],
    *,
    since: float,
    within_s: float,
) -> list[Finding]:
    """Look until nothing is found any more, or `within_s` seconds after `since` (monotonic) have gone."""
    findings = {name: Finding(name, ["not looked at"]) for name in FINDINGS}
    while True:
        try:
            truth = Truth.of(installation, runs())
        except Exception as error:
            for finding in findings.values():
                finding.cases = [f"cannot be told: {error!r}"]
        else:
            after_s = time.monotonic() - since
            for name, look in FINDINGS.items():
                finding = findings[name]
                was_clean, finding.cases = not finding.cases, look(truth, ledger)
                if finding.cases:
                    finding.clean_after_s = None
                elif not was_clean:
                    finding.clean_after_s = round(after_s, 1)
        if time.monotonic() - since > within_s or not any(finding.cases for finding in findings.values()):
            return list(findings.values())
        time.sleep(LOOK_S)


def unusable(installation: Installation, truth_of: Rows) -> Finding:
    """Run code in every session that is called active: that its sandbox exists is not yet that it works."""
    cases = []
    with installation.servers.client() as api:
        for row in truth_of:
            if row["status"] != "active":
                continue
            try:
                answer = api.post(f"/sessions/{row['id']}/execute", json={"code": "print(6 * 7)"})
                if answer.status_code == 410 or (answer.status_code == 200 and answer.json()["stdout"] == "42\n"):
                    continue  # 410: its idle time has just ended
                cases.append(f"session {row['id']}: {answer.status_code} {answer.text[:200]}")
            except httpx.HTTPError as error:
                cases.append(f"session {row['id']}: {error!r}")
    return Finding("active sessions in which code does not run", cases)


def lost_without_cause(sessions: Rows, causes: list[tuple[datetime, datetime]]) -> Finding:
    """Name the sessions that were called lost though no blow that takes sandboxes fell while they lived."""
    cases = [
        f"session {row['id']}: {row['created_at']:%H:%M:%S} to {row['finished_at']:%H:%M:%S}, {row['error']}"
        for row in sessions
        if row["termination_reason"] == "lost"
        and not any(row["created_at"] <= until and row["finished_at"] >= since for since, until in causes)
    ]
    return Finding("sessions called lost whose sandbox nothing took", cases)


def ends(sessions: Rows) -> Counter[str]:
    """Count how sessions ended."""
    return Counter(row["termination_reason"] or row["status"] for row in sessions)
