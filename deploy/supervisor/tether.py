"""Become another program that the kernel kills when its parent dies: `python tether.py PARENT_PID PROGRAM ARGUMENT…`.

An exec in the child is used instead of a function between fork and exec, which is unsafe beside threads. The order
(prctl, then look who the parent is) leaves no moment in which a parent's death goes unseen.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and exec the program."""
    parent_pid, program = int(arguments[0]), arguments[1]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(1)
    os.execvp(program, arguments[1:])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
