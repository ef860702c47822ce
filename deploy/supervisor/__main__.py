"""`python -m deploy.supervisor [--verbose]`: what start_all.sh hands over to once `.venv` is there."""

from __future__ import annotations

import asyncio
import os
import sys

from deploy.supervisor.commands import StartError
from deploy.supervisor.settings import SettingsError, load
from deploy.supervisor.supervisor import Supervisor


def main(arguments: list[str]) -> int:
    """Run until stopped; return a process exit code."""
    verbose = bool({"--verbose", "-v"} & set(arguments))
    try:
        settings = load(os.environ)
        os.chdir(settings.root)
        asyncio.run(Supervisor(settings, verbose=verbose).run())
    except (SettingsError, StartError) as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
