"""Start the process that holds a local sandbox, and take it away with all that belongs to it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from proxy_service.backends.cgroups import Cgroup
from proxy_service.backends.workspaces import Workspaces

log = logging.getLogger(__name__)

KILL_TIMEOUT_S = 10.0
REMOVE_TRIES = 40
REMOVE_PAUSE_S = 0.05
MAX_COMPLAINT_BYTES = 2000
MAX_HEARD_BYTES = 64 * 1024

# The shell enters the cgroups before it becomes bubblewrap, so that no process is ever outside of them.
_ENTER = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 > "$1/cgroup.procs" || exit 125; shift; n=$((n-1)); done; exec "$@"'
)


class LocalProcess:
    """A process with its cgroup and its directory; `complaint` is what it said on stderr while it started."""

    def __init__(self, process: Process, errors: int, directory: Path, cgroup: Cgroup | None) -> None:
        self.process = process
        self.directory = directory
        self.cgroup = cgroup
        self._errors = errors
        self._heard_bytes = 0

    @classmethod
    async def start(
        cls, argv: list[str], env: Mapping[str, str], *, seccomp: int | None, directory: Path, cgroup: Cgroup | None
    ) -> LocalProcess:
        """Start a process from the loop's own thread: bubblewrap ends with the thread that started it."""
        if cgroup is not None:
            places = [str(place) for place in cgroup.directories]
            argv = ["/bin/sh", "-c", _ENTER, "sh", str(len(places)), *places, *argv]
        errors, stderr = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=dict(env),
                cwd="/",
                pass_fds=() if seccomp is None else (seccomp,),
                start_new_session=True,
            )
        except BaseException:
            os.close(errors)
            raise
        finally:
            os.close(stderr)
        return cls(process, errors, directory, cgroup)

    def complaint(self) -> str:
        """Return the first words on stderr."""
        os.set_blocking(self._errors, False)
        with suppress(BlockingIOError):
            return os.read(self._errors, MAX_COMPLAINT_BYTES).decode(errors="replace").strip()
        return ""

    def listen(self) -> None:
        """Log what the agent complains of from now on, up to a bound; code's stderr is not this one."""
        os.set_blocking(self._errors, False)
        asyncio.get_running_loop().add_reader(self._errors, self._hear)

    def _hear(self) -> None:
        try:
            said = os.read(self._errors, MAX_COMPLAINT_BYTES)
        except BlockingIOError:
            return
        self._heard_bytes += len(said)
        if said:
            log.warning("agent in %s: %s", self.directory.name, said.decode(errors="replace").strip())
        if not said or self._heard_bytes > MAX_HEARD_BYTES:
            self.stop_listening()

    def stop_listening(self) -> None:
        """Close our end of stderr."""
        if self._errors >= 0:
            asyncio.get_running_loop().remove_reader(self._errors)
            os.close(self._errors)
            self._errors = -1

    async def remove(self) -> None:
        """Kill the process and whatever lives in its namespace; remove its cgroup and its files."""
        self.stop_listening()
        if self.process.returncode is None:
            # The whole group: bubblewrap's child would wait for ever for a parent that dies before it has told the
            # child its user, and what the child becomes ends with its parent only from some instant on.
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.stdin is not None:
            # An agent that has outlived its parent all the same ends with its input.
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), KILL_TIMEOUT_S)
        except TimeoutError:
            log.error("process %d does not die", self.process.pid)
        await remove_rest(self.directory, self.cgroup)


async def remove_rest(directory: Path, cgroup: Cgroup | None) -> None:
    """Remove the cgroup and the files of a sandbox whose process was killed or never started."""
    if cgroup is not None:
        await cgroup.remove()
    for left in reversed(range(REMOVE_TRIES)):
        try:
            await asyncio.to_thread(Workspaces.remove, directory)
            return
        except Exception as error:
            # The last processes may still be writing while the kernel ends them.
            if not left:
                log.error("%s could not be removed: %s", directory, error)
        await asyncio.sleep(REMOVE_PAUSE_S)


def kill_half_started(directories: Iterable[Path]) -> None:
    """Kill what dead proxies had just started in these directories: bubblewrap whose parent died before its child."""
    wanted = [os.fsencode(f"{directory}/") for directory in directories]
    for entry in Path("/proc").iterdir() if wanted else ():
        with suppress(OSError):
            if not entry.name.isdigit():
                continue
            command = (entry / "cmdline").read_bytes()
            if command.split(b"\0")[0].endswith(b"bwrap") and any(directory in command for directory in wanted):
                os.kill(int(entry.name), signal.SIGKILL)
