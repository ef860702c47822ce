"""Kill, stop and restart every process under load, and show what was lost: `python benchmarks/chaos.py --minutes N`."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):
    # Run as a file: Python then looks for modules beside it.
    sys.path[0] = str(ROOT)

from benchmarks.chaos_report import write_report  # noqa: E402
from tests.chaos.installation import Installation  # noqa: E402
from tests.chaos.run import Options, run  # noqa: E402


def main() -> int:
    """Run what the arguments say; return 1 when anything was found that must not be."""
    parser = argparse.ArgumentParser(prog="python benchmarks/chaos.py", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long to strike (10)")
    parser.add_argument("--clients", type=int, default=20, help="clients at work at the same time (20)")
    parser.add_argument("--kill-every", type=float, default=5, metavar="SECONDS", help="pause between blows (5)")
    parser.add_argument("--backend", choices=["bubblewrap", "docker"], default="bubblewrap")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--seed", type=int, help="the plan to repeat; chosen and printed when left out")
    parser.add_argument("--out", type=Path, default=Path("var/chaos"), help="where report, chart and logs go")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    out = options.out / f"{options.backend}-{options.database}"
    out.mkdir(parents=True, exist_ok=True)

    def keep_logs(installation: Installation) -> None:
        for path in (*installation.servers.data_dir.glob("*.log"), *installation.home.glob("*/log")):
            name = path.name if path.suffix else f"{path.parent.name}.log"
            shutil.copyfile(path, out / name)

    outcome = run(
        Options(
            backend=options.backend,
            database=options.database,
            seed=seed,
            duration_s=60 * options.minutes,
            clients=options.clients,
            kill_every_s=options.kill_every,
        ),
        say=lambda line: print(line, flush=True),
        logs_to=keep_logs,
    )
    print(write_report(outcome, out))
    print(f"\nreport.json, report.md, timeline.png, timeline.svg and the servers' logs are in {out}")
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
