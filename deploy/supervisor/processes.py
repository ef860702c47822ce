"""Run the long-lived processes: each in its own group, logged to a file, started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TETHER = str(Path(__file__).with_name("tether.py"))
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
STEADY_AFTER_S = 60.0
LAST_WORDS_S = 1.0
LONGEST_LINE_BYTES = 4096
LOG_LIMIT_BYTES = 20 * 1024 * 1024
TAIL_LINES = 15

Announce = Callable[[str, str], None]


class LogFile:
    """A log that keeps one older part, so that it cannot fill the disk."""

    def __init__(self, path: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Append to the log; begin a new part past the limit."""
        if self.file.tell() + len(data) > self.limit_bytes:
            self.file.close()
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
            self.file = self.path.open("ab", buffering=0)
        self.file.write(data)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Service:
    """One supervised process. `announce(name, text)` gets the short lines for the console."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_dir: Path,
        announce: Announce,
        *,
        verbose: bool = False,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.environment = dict(environment)
        self.announce = announce
        self.verbose = verbose
        self.log_path = log_dir / f"{name}.log"
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.process: asyncio.subprocess.Process | None = None
        self.pump: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process, tied to this one's life, and its log."""
        # A pipe of our own: asyncio's would make wait() wait for whoever else holds it open.
        reading, writing = os.pipe()
        try:
            self.process = await asyncio.create_subprocess_exec(
                *tethered(self.command),
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
            )
        finally:
            os.close(writing)
            self.pump = asyncio.create_task(self._pump(reading))

    async def ended(self) -> int:
        """Wait for the started process to end; return its exit code (negative: killed by that signal)."""
        assert self.process is not None  # noqa: S101 - start() came before
        code = await self.process.wait()
        kill_group(self.process.pid)
        if self.pump is not None:
            # What the process left behind may hold the pipe open for ever: give what it wrote last a moment, no more.
            _, unfinished = await asyncio.wait({self.pump}, timeout=LAST_WORDS_S)
            for task in unfinished:
                task.cancel()
        return code

    async def keep_running(self) -> None:
        """Start the process again whenever it ends by itself, with growing pauses while it keeps dying."""
        delay = FIRST_DELAY_S
        while True:
            started = time.monotonic()
            code = await self.ended()
            if time.monotonic() - started > STEADY_AFTER_S:
                delay = FIRST_DELAY_S
            self.announce(self.name, f"died ({describe(code)}), starts again in {delay:g} s; log: {self.log_path}")
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY_S)
            await self.start()

    async def stop(self, timeout_s: float) -> None:
        """Ask the process to end, kill what is left of its group after `timeout_s`."""
        if self.process is None or self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), timeout_s)
        except TimeoutError:
            self.announce(self.name, f"did not end within {timeout_s:g} s and is killed")
        kill_group(self.process.pid)
        await self.ended()

    def last_words(self) -> str:
        """Return the end of what the process logged."""
        return "\n".join(self.tail)

    async def _pump(self, reading: int) -> None:
        """Move what the process writes to its log until every writer is gone."""
        log = LogFile(self.log_path)
        stream = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(stream)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(reading, "rb", buffering=0))
        rest = b""
        try:
            while chunk := await stream.read(65536):
                log.write(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[-LONGEST_LINE_BYTES:]
                for line in lines:
                    self._heard(line.decode(errors="replace"))
        finally:
            transport.close()
            log.close()

    def _heard(self, line: str) -> None:
        self.tail.append(line)
        if self.verbose:
            self.announce(self.name, f"| {line}")


def tethered(command: Sequence[str]) -> list[str]:
    """Return the command as one that the kernel ends together with this process."""
    return [sys.executable, "-I", "-S", TETHER, str(os.getpid()), *command]


def kill_group(process_group: int) -> None:
    """Kill every process of a group that still has any."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process_group, signal.SIGKILL)


def describe(code: int) -> str:
    """Say how a process ended: `exit code 1`, `SIGKILL`."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
