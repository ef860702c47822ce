"""The program that runs inside a sandbox; nothing of the proxy imports it, it is only started."""

from __future__ import annotations

import py_compile
from pathlib import Path

AGENT_FILE = Path(__file__).resolve().parent / "agent.py"


def compile_agent(target: Path) -> Path:
    """Compile the agent for this interpreter's version into `target`, a name ending in .pyc, and return it.

    An agent that starts compiled starts in half the time and in less than half the memory.
    """
    py_compile.compile(
        str(AGENT_FILE),
        cfile=str(target),
        dfile="agent.py",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    return target
