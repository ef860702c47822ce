"""Write what was measured: a table to read, JSON to compare, a chart to see."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .measure import Ratio, Samples


@dataclass
class Row:
    """Compare two sides of a case; `target` is the ratio that must not be exceeded (None: none is set)."""

    case: str
    ours: str
    theirs: str
    ours_value: float
    theirs_value: float
    unit: str
    ratio: Ratio
    target: float | None = None
    reach: float | None = None

    @property
    def verdict(self) -> str:
        """Say whether the target is met."""
        if self.target is None:
            return ""
        if self.ratio.value > self.target:
            return "MISSED"
        return "reached" if self.reach is not None and self.ratio.value <= self.reach else "met"


@dataclass
class Report:
    """Collect the samples and rows of one run."""

    samples: dict[str, dict[str, Samples]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def machine(self) -> dict[str, Any]:
        """Describe the machine without naming it."""
        return {
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def table(self) -> str:
        """Return the medians and the ratios as Markdown tables."""
        lines = ["| case | side | median ms | quartiles ms | n |", "| --- | --- | ---: | ---: | ---: |"]
        for case, sides in self.samples.items():
            for name, samples in sides.items():
                low, high = samples.quartiles
                spread = f"{low * 1e3:.1f} - {high * 1e3:.1f}"
                lines.append(f"| {case} | {name} | {samples.median * 1e3:.1f} | {spread} | {len(samples.seconds)} |")
        lines += [
            "",
            "| case | ours | theirs | ratio (90 %) | must be | verdict |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for row in self.rows:
            bound = "" if row.target is None else f"≤ {row.target:.4g}"
            spread = f"{row.ratio.value:.3g} ({row.ratio.low:.3g} - {row.ratio.high:.3g})"
            ours = f"{row.ours}: {row.ours_value:.4g} {row.unit}"
            theirs = f"{row.theirs}: {row.theirs_value:.4g} {row.unit}"
            lines.append(f"| {row.case} | {ours} | {theirs} | {spread} | {bound} | {row.verdict} |")
        if self.facts:
            lines += ["", "| fact | value |", "| --- | --- |"]
            lines += [f"| {name} | {value} |" for name, value in self.facts.items()]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """Write results.json, results.md, chart.png and chart.svg into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        data = {
            "machine": self.machine(),
            "samples_s": {case: {n: s.seconds for n, s in sides.items()} for case, sides in self.samples.items()},
            "rows": [asdict(row) | {"verdict": row.verdict} for row in self.rows],
            "facts": self.facts,
        }
        (folder / "results.json").write_text(json.dumps(data, indent=1) + "\n")
        (folder / "results.md").write_text(self.table() + "\n")
        self._chart(folder)

    def _chart(self, folder: Path) -> None:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt

        cases = [(case, sides) for case, sides in self.samples.items() if len(sides) > 1]
        if not cases:
            return
        heights = [len(sides) for _, sides in cases]
        figure, axes = plt.subplots(
            len(cases), 1, figsize=(10, 0.42 * sum(heights) + 0.8 * len(cases)), height_ratios=heights, squeeze=False
        )
        for axis, (case, sides) in zip(axes[:, 0], cases, strict=True):
            names = list(sides)[::-1]
            medians = [sides[name].median * 1e3 for name in names]
            low = [m - sides[n].quartiles[0] * 1e3 for n, m in zip(names, medians, strict=True)]
            high = [sides[n].quartiles[1] * 1e3 - m for n, m in zip(names, medians, strict=True)]
            colours = ["#1f6feb" if "sandboxweb" in name else "#9aa4b2" for name in names]
            axis.barh(names, medians, color=colours, xerr=[[max(v, 0) for v in low], [max(v, 0) for v in high]])
            axis.set_xscale("log")
            axis.set_title(case, loc="left", fontsize=10, fontweight="bold")
            axis.tick_params(labelsize=8)
            for index, median in enumerate(medians):
                axis.annotate(f" {median:.1f} ms", (median, index), fontsize=8, va="bottom")
            axis.margins(x=0.2)
            axis.spines[["top", "right"]].set_visible(False)
        axes[-1, 0].set_xlabel("milliseconds, logarithmic: median with quartiles; blue is Sandboxweb")
        figure.tight_layout()
        figure.savefig(folder / "chart.png", dpi=110)
        figure.savefig(folder / "chart.svg")
        plt.close(figure)
