"""Find out before a start whether a TCP port is free, and who holds it when it is not."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

LISTEN = "0A"


def is_free(host: str, port: int) -> bool:
    """Return whether a server could listen there now."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """Name the process that listens on a port (`python3 server.py, process 123`), or return an empty string."""
    if sys.platform == "linux":
        return holder_from_proc(port)
    try:
        lsof = ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"]
        found = subprocess.run(lsof, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r"^p(\d+)\nc(.+)$", found, re.MULTILINE)
    return f"{match[2]}, process {match[1]}" if match else ""


def holder_from_proc(port: int) -> str:
    """Look the listener up in /proc: its socket's inode, then the process that has it open."""
    sockets = {f"socket:[{inode}]" for inode in listening_inodes(port)}
    for process in Path("/proc").iterdir():
        if sockets and process.name.isdigit() and sockets & open_files(process):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            return f"{command[:120]}, process {process.name}"
    return ""


def listening_inodes(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a port."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        rows = Path(table).read_text().splitlines()[1:] if Path(table).exists() else []
        for fields in map(str.split, rows):
            if fields[3] == LISTEN and int(fields[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(fields[9])
    return inodes


def open_files(process: Path) -> set[str]:
    """Return what the descriptors of a process point at; nothing for a process that is not ours to look at."""
    targets = set()
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            # A descriptor may be closed between the two looks.
            with contextlib.suppress(OSError):
                targets.add(os.readlink(link))
    return targets
