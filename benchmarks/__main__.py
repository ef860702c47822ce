"""Run the benchmark: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from .cases import CASES, Bench
from .report import Report
from .stack import Stack


def main() -> int:
    """Measure the chosen cases; return 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--backend", choices=["docker", "bubblewrap"], action="append", help="default: both")
    parser.add_argument("--case", choices=list(CASES), action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=60, help="rounds of the execution case (others scale)")
    parser.add_argument("--out", type=Path, default=Path("var/benchmarks"), help="where results and charts go")
    options = parser.parse_args()
    report = Report()
    with ExitStack() as stack:
        backends = options.backend or ["docker", "bubblewrap"]
        stacks = {backend: stack.enter_context(Stack(backend)) for backend in backends}
        bench = Bench(stacks, report, options.rounds)
        for name in options.case or list(CASES):
            began = time.monotonic()
            print(f"{name} …", end=" ", flush=True, file=sys.stderr)
            CASES[name](bench)
            print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
            report.write(options.out)
    print(report.table())
    print(f"\nresults.json, results.md, chart.png and chart.svg are in {options.out}")
    return 1 if any(row.verdict == "MISSED" for row in report.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
