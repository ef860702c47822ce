"""Write what a chaos run found: a table to read, JSON to compare, a timeline to see."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.chaos.run import Outcome

SHOWN_CASES = 5
COLOURS = {"kill": "#d1242f", "stop": "#bf8700", "restart": "#0969da"}
MARKERS = {"kill": "x", "stop": "s", "restart": "^"}


def write_report(outcome: Outcome, folder: Path) -> str:
    """Write report.json, report.md, timeline.png and timeline.svg into `folder`; return the report as Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = table(outcome)
    (folder / "report.md").write_text(f"{text}\n")
    (folder / "report.json").write_text(json.dumps(data(outcome), indent=1) + "\n")
    _timeline(outcome, folder)
    return text


def facts(outcome: Outcome) -> dict[str, Any]:
    """Return how much was done and struck."""
    ledger = outcome.ledger
    blows = Counter(f"{struck.blow.target}: {struck.blow.kind}" for struck in outcome.struck)
    final = [request for request in ledger.requests if request.final]
    return {
        "machine": outcome.machine,
        "seed": outcome.options.seed,
        "minutes": outcome.options.duration_s / 60,
        "clients": outcome.options.clients,
        "blows": f"{len(outcome.struck)} ({_counts(blows)})",
        "requests": f"{len(ledger.requests)}, of which {len(ledger.requests) - len(final)} were sent again",
        "wait for an answer, repetitions included": _spread([seconds for seconds, _ in ledger.waits]),
        "sessions acknowledged": len(ledger.sessions),
        "sessions by end": _counts(outcome.session_ends),
        "executions asked for": len(ledger.asked),
        "executions by outcome": _counts(ledger.outcomes()),
        "servers that ended by themselves": _counts(Counter(outcome.deaths)) or "none",
        "empty containerd shims that the killed engine left": outcome.empty_shims,
    }


def table(outcome: Outcome) -> str:
    """Return the findings and the facts as Markdown tables."""
    options = outcome.options
    lines = [
        f"### {options.backend} and {options.database}, {options.duration_s / 60:g} minutes",
        "",
        "| what must not be | found | none since, after the last blow |",
        "| --- | ---: | ---: |",
    ]
    for finding in outcome.findings:
        since = "" if finding.clean_after_s is None else f"{finding.clean_after_s:.1f} s"
        lines.append(f"| {finding.name} | {len(finding.cases)} | {since} |")
    lines += ["", "| fact | value |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in facts(outcome).items()]
    for finding in outcome.failed:
        lines += ["", f"{finding.name}:", *(f"- {case}" for case in finding.cases[:SHOWN_CASES])]
        if len(finding.cases) > SHOWN_CASES:
            lines.append(f"- and {len(finding.cases) - SHOWN_CASES} more")
    return "\n".join(lines)


def data(outcome: Outcome) -> dict[str, Any]:
    """Return all that is known of the run."""
    ledger = outcome.ledger
    return {
        "options": asdict(outcome.options),
        "facts": facts(outcome),
        "findings": [asdict(finding) for finding in outcome.findings],
        "struck": [asdict(struck) for struck in outcome.struck],
        "longest_waits": sorted(ledger.waits, reverse=True)[:20],
        "asked": [
            {
                "mark": asked.program.mark,
                "kind": asked.kind,
                "attempts": asked.attempts,
                "execution_id": (asked.answer or {}).get("execution_id"),
                "status": (asked.answer or {}).get("status"),
                "refusal": asked.refusal,
            }
            for asked in ledger.asked
        ],
        "requests": [[round(r.at_s, 3), round(r.took_s, 3), r.what, r.outcome, r.final] for r in ledger.requests],
    }


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items(), key=lambda item: -item[1]))


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "nothing was answered"
    ordered = sorted(seconds)
    late = ordered[int(0.99 * (len(ordered) - 1))]
    return f"median {statistics.median(ordered):.2f} s, 99 % within {late:.1f} s, longest {ordered[-1]:.1f} s"


def _timeline(outcome: Outcome, folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    requests = outcome.ledger.requests
    seconds = int(max([outcome.options.duration_s, *(r.at_s + r.took_s for r in requests)])) + 1
    answered, again = [0] * (seconds + 1), [0] * (seconds + 1)
    for request in requests:
        bucket = answered if request.final else again
        bucket[int(request.at_s + request.took_s)] += 1
    figure, (load, blows) = plt.subplots(2, 1, figsize=(12, 5), sharex=True, height_ratios=[3, 1])
    load.stackplot(
        range(seconds + 1), answered, again, labels=["answered", "sent again"], colors=["#1f6feb", "#ffb077"]
    )
    load.set_ylabel("requests a second")
    load.legend(loc="upper right", fontsize=8)
    title = f"{outcome.options.backend} and {outcome.options.database}, seed {outcome.options.seed}"
    load.set_title(title, loc="left", fontsize=10, fontweight="bold")
    targets = sorted({struck.blow.target for struck in outcome.struck})
    for struck in outcome.struck:
        row, kind = targets.index(struck.blow.target), struck.blow.kind
        end = struck.mended_s if struck.mended_s is not None else struck.at_s + struck.blow.lasts_s
        blows.plot([struck.at_s, end], [row, row], color=COLOURS[kind], linewidth=3, solid_capstyle="butt")
        blows.plot(struck.at_s, row, MARKERS[kind], color=COLOURS[kind], markersize=5)
    for kind, colour in COLOURS.items():
        blows.plot(
            [], [], MARKERS[kind], color=colour, label={"kill": "SIGKILL", "stop": "SIGSTOP"}.get(kind, "SIGTERM")
        )
    blows.legend(loc="lower right", bbox_to_anchor=(1, 0.98), fontsize=8, ncols=3, frameon=False)
    blows.set_yticks(range(len(targets)), targets)
    blows.set_ylim(-0.7, len(targets) + 0.3)
    blows.set_xlabel("seconds")
    for axis in (load, blows):
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.01)
    figure.tight_layout()
    figure.savefig(folder / "timeline.png", dpi=110)
    figure.savefig(folder / "timeline.svg")
    plt.close(figure)
