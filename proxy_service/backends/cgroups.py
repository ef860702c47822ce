"""Bound the memory, processes and CPU of a whole sandbox by a cgroup (v1 or v2), where this user may make one."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxy_service.backends.base import Limits

log = logging.getLogger(__name__)

ROOT = Path("/sys/fs/cgroup")
PREFIX = "sandboxweb-"
CONTROLLERS = ("memory", "pids", "cpu")
CPU_PERIOD_US = 100_000
_REMOVE_TRIES = 50
_REMOVE_PAUSE_S = 0.02


@dataclass(frozen=True)
class Cgroup:
    """The directories, one a hierarchy, that a sandbox's processes are put into."""

    directories: tuple[Path, ...]

    def write(self, file: str, value: str) -> None:
        """Write a control file in whichever hierarchy has it."""
        for directory in self.directories:
            if (directory / file).exists():
                (directory / file).write_text(value)

    async def remove(self) -> None:
        """Kill what is left in the cgroup and remove it."""
        for directory in self.directories:
            for _ in range(_REMOVE_TRIES):
                try:
                    directory.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    # Its last processes are still on their way out.
                    await asyncio.sleep(_REMOVE_PAUSE_S)
            else:
                log.warning("cgroup %s could not be removed", directory)


class Cgroups:
    """The place beneath which a proxy makes the cgroups of its sandboxes; `limits` names what they can bound."""

    def __init__(self, name: str) -> None:
        self.limits: tuple[str, ...] = ()
        self._name = name
        self._parents: dict[str, Path] = {}
        self._v2 = (ROOT / "cgroup.controllers").exists()
        for controller in CONTROLLERS:
            with suppress(OSError):
                self._parents[controller] = self._prepare(controller)
        if self._parents and not self._usable():
            self._parents.clear()
        self.limits = tuple(self._parents)

    def _prepare(self, controller: str) -> Path:
        if not self._v2:
            parent = ROOT / controller / self._name
            if not (ROOT / controller / "cgroup.procs").exists():
                raise FileNotFoundError(controller)
            parent.mkdir(exist_ok=True)
            return parent
        parent = ROOT / self._name
        parent.mkdir(exist_ok=True)
        for directory in (ROOT, parent):
            if controller not in (directory / "cgroup.subtree_control").read_text().split():
                (directory / "cgroup.subtree_control").write_text(f"+{controller}")
        return parent

    def _usable(self) -> bool:
        try:
            probe = self.create("probe", Limits(memory_bytes=64 << 20, cpus=1.0, pids=8, disk_bytes=0))
        except OSError:
            return False
        for directory in probe.directories:
            with suppress(OSError):
                directory.rmdir()
        return True

    def create(self, name: str, limits: Limits) -> Cgroup:
        """Make the cgroup of one sandbox. Raises OSError."""
        for controller, parent in self._parents.items():
            if not parent.exists():
                self._prepare(controller)
        cgroup = Cgroup(tuple(dict.fromkeys(parent / name for parent in self._parents.values())))
        for directory in cgroup.directories:
            directory.mkdir(exist_ok=True)
        quota_us = max(1000, int(limits.cpus * CPU_PERIOD_US))
        if self._v2:
            values = {
                "memory.max": str(limits.memory_bytes),
                "memory.swap.max": "0",
                "pids.max": str(limits.pids),
                "cpu.max": f"{quota_us} {CPU_PERIOD_US}",
            }
        else:
            values = {
                "memory.limit_in_bytes": str(limits.memory_bytes),
                "memory.memsw.limit_in_bytes": str(limits.memory_bytes),
                "pids.max": str(limits.pids),
                "cpu.cfs_period_us": str(CPU_PERIOD_US),
                "cpu.cfs_quota_us": str(quota_us),
            }
        for file, value in values.items():
            cgroup.write(file, value)
        return cgroup

    def remove_dead(self) -> None:
        """Remove the empty cgroups of proxies that were killed; their names begin with the process's id."""
        for parent in {path.parent for path in self._parents.values()}:
            for left in parent.glob(f"{PREFIX}*"):
                pid = left.name.removeprefix(PREFIX).partition("-")[0]
                if pid.isdigit() and not Path("/proc", pid).exists():
                    for directory in (*(path for path in left.iterdir() if path.is_dir()), left):
                        with suppress(OSError):
                            directory.rmdir()

    def close(self) -> None:
        """Remove the place itself, when nothing is left beneath it."""
        for parent in set(self._parents.values()):
            with suppress(OSError):
                parent.rmdir()
