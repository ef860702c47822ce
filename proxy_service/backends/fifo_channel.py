"""Two named pipes between the proxy and an agent, for an engine that closes a container's stdin at the first detach.

Podman's monitor does so. The agent holds both pipes open for reading and writing, so neither ever ends for it; for the
proxy the one that it reads ends with the agent.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from pathlib import Path

from proxy_service.agent_events import AgentGone

MOUNT = "/run/sandboxweb"
OPEN_TIMEOUT_S = 10.0
OPEN_PAUSE_S = 0.01


def make_pipes(directory: Path) -> None:
    """Make the pipes that a container will be given; nobody but our own user may come near."""
    directory.mkdir(parents=True, mode=0o700)
    for name in ("in", "out"):
        os.mkfifo(directory / name, 0o600)


def remove_pipes(directory: Path) -> None:
    """Remove the pipes."""
    shutil.rmtree(directory, ignore_errors=True)


def shell_command(agent: str) -> list[str]:
    """Return the command that starts the agent on its pipes; the one that we wait for is opened last."""
    return ["/bin/sh", "-c", f"exec python3 {agent} 1<>{MOUNT}/out 0<>{MOUNT}/in"]


class PipesWriter:
    """Writes to the agent; closing it closes both pipes, or a forgotten reader would take what its successor awaits."""

    def __init__(self, writer: asyncio.StreamWriter, reading: asyncio.BaseTransport) -> None:
        self._writer = writer
        self._reading = reading

    def write(self, data: bytes, /) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()
        self._reading.close()


async def open_pipes(directory: Path) -> tuple[asyncio.StreamReader, PipesWriter]:
    """Open our ends once the agent has opened its own.

    Raises:
        AgentGone: when it does not within some seconds.
    """
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            into = await _open_to_write(directory / "in")
        try:
            out = os.open(directory / "out", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except BaseException:
            os.close(into)
            raise
    except OSError as error:
        raise AgentGone(f"the agent's pipes cannot be opened: {error or 'time-out'}") from error
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    from_agent = os.fdopen(out, "rb", buffering=0)
    reading, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), from_agent)
    control = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    to_agent = os.fdopen(into, "wb", buffering=0)
    transport, _ = await loop.connect_write_pipe(lambda: control, to_agent)
    return reader, PipesWriter(asyncio.StreamWriter(transport, control, None, loop), reading)


async def _open_to_write(path: Path) -> int:
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        await asyncio.sleep(OPEN_PAUSE_S)
