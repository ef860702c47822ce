"""One run from the plan to the verdict."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.chaos.clients import Client
from tests.chaos.installation import Installation, private_engine_possible
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Blow, make_plan
from tests.chaos.verdict import Finding, ends, judge, lost_without_cause, unusable
from tests.chaos.witness import Witness

# Within how many seconds of the last blow everything must be true again.
WITHIN_S = 30.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to run."""

    backend: str
    database: str
    seed: int
    duration_s: float
    clients: int = 20
    kill_every_s: float = 5.0


@dataclass
class Struck:
    """A blow as it was: when it fell, when the target was on its way again."""

    blow: Blow
    at_s: float
    mended_s: float | None = None
    error: str = ""


@dataclass
class Outcome:
    """What came of a run."""

    options: Options
    plan: list[Blow]
    struck: list[Struck] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    session_ends: Counter[str] = field(default_factory=Counter)
    deaths: list[str] = field(default_factory=list)
    empty_shims: int = 0
    machine: str = ""

    @property
    def failed(self) -> list[Finding]:
        """Return the findings that are not empty."""
        return [finding for finding in self.findings if finding.cases]


def run(options: Options, *, say: Say = print, logs_to: Callable[[Installation], None] | None = None) -> Outcome:
    """Run clients and blows for `duration_s` seconds and judge what is left; `logs_to` may keep the servers' logs."""
    if options.backend == "docker" and (why := private_engine_possible()):
        raise RuntimeError(f"Chaos on Docker needs a daemon of its own: {why}.")
    installation = Installation(backend=options.backend, database=options.database)
    plan = make_plan(
        options.seed, duration_s=options.duration_s, every_s=options.kill_every_s, targets=installation.targets
    )
    say(f"seed {options.seed}: {options.backend} and {options.database}, {len(plan)} blows")
    for blow in plan:
        say(f"  {blow}")
    outcome = Outcome(options, plan, machine=installation.versions())
    witness = Witness()
    try:
        with installation.running():
            _run(installation, outcome, witness, say)
            if logs_to is not None:
                logs_to(installation)
    finally:
        witness.close()
    outcome.deaths = installation.deaths
    outcome.empty_shims = installation.empty_shims
    outcome.findings.append(Finding("processes that did not end in time", installation.slow_stops))
    return outcome


def _run(installation: Installation, outcome: Outcome, witness: Witness, say: Say) -> None:
    options = outcome.options
    ledger = outcome.ledger = Ledger()
    stop_clients, stop_supervisor = threading.Event(), threading.Event()
    clients = [
        Client(
            number,
            url=installation.servers.app_url,
            key=installation.servers.key,
            seed=options.seed,
            ledger=ledger,
            witness_port=witness.port,
            stop=stop_clients,
        )
        for number in range(options.clients)
    ]
    supervisor = threading.Thread(target=installation.supervise, args=(stop_supervisor,), daemon=True)
    supervisor.start()
    try:
        for client in clients:
            client.start()
        last_at = _strike_all(installation, outcome, say)
        _sleep_until(ledger.began + options.duration_s)
        stop_clients.set()
        installation.set_pool(0)
        for client in clients:
            client.join(max(0.0, last_at + WITHIN_S - time.monotonic()))
        outcome.findings = judge(installation, ledger, witness.runs, since=last_at, within_s=WITHIN_S)
        late = [client.name for client in clients if client.is_alive()]
        outcome.findings.append(Finding("clients still without an answer", late))
        sessions = installation.rows(
            "session", "id", "status", "termination_reason", "error", "created_at", "finished_at"
        )
        outcome.findings.append(unusable(installation, sessions))
        outcome.findings.append(lost_without_cause(sessions, _causes(installation, outcome)))
        outcome.session_ends = ends(sessions)
    finally:
        stop_clients.set()
        stop_supervisor.set()
        supervisor.join()


def _strike_all(installation: Installation, outcome: Outcome, say: Say) -> float:
    """Do what the plan says; return the monotonic time of the last blow. Mends run beside the next blows."""
    began, last_at = outcome.ledger.began, time.monotonic()
    busy: dict[str, threading.Thread] = {}

    def mend(struck: Struck) -> None:
        try:
            installation.mend(struck.blow)
            struck.mended_s = time.monotonic() - began
        except Exception as error:
            struck.error = repr(error)
            say(f"{struck.blow}: not mended: {error!r}")

    for blow in outcome.plan:
        _sleep_until(began + blow.at_s)
        if blow.target in busy:
            busy[blow.target].join()
        struck = Struck(blow, time.monotonic() - began)
        outcome.struck.append(struck)
        with contextlib.suppress(ProcessLookupError):
            installation.strike(blow)
        last_at = time.monotonic()
        busy[blow.target] = timer = threading.Timer(blow.lasts_s, mend, args=(struck,))
        timer.start()
    for thread in busy.values():
        thread.join()
    return last_at


def _causes(installation: Installation, outcome: Outcome) -> list[tuple[datetime, datetime]]:
    """Return from when to when sandboxes were being taken."""
    began_at = outcome.ledger.began_at
    return [
        (began_at + timedelta(seconds=struck.at_s), began_at + timedelta(seconds=struck.mended_s or struck.at_s))
        for struck in outcome.struck
        if installation.takes_sandboxes(struck.blow)
    ]


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
