"""How a container that runs foreign code is shut in, from its first day."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docker.types import LogConfig, Mount

from proxy_service.backends.agent_sandbox import WORKDIR
from proxy_service.backends.base import SandboxSpec
from proxy_service.backends.engine import OPEN_FILES, EngineName, ulimits
from proxy_service.backends.fifo_channel import MOUNT, shell_command
from proxy_service.library_links import SHARED_LIBRARIES

MOUNTED_AGENT = "/opt/sandboxweb/agent.py"
BAKED_AGENT = "/opt/sandboxweb/agent.pyc"
CODE_USER = 1000
AGENT_MEMORY_BYTES = 48 * 1024 * 1024
AGENT_PIDS = 6

MANAGED = "sandboxweb.managed"
INSTANCE = "sandboxweb.instance"
NAME = "sandboxweb.name"
SPEC = "sandboxweb.spec"
CREATED_AT = "sandboxweb.created_at"
DROP_IMAGE = "sandboxweb.drop_image"
PLAIN = "sandboxweb.plain"
PIPES = "sandboxweb.pipes"
LIBRARIES = "sandboxweb.libraries"

CODE_ENV = {"HOME": WORKDIR, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
"""What code meets beside the image's own environment; the agent must start with the same, or it starts twice."""


def labels(instance: str, name: str, spec: SandboxSpec, created_at: float) -> dict[str, str]:
    """Return what a container bears so that nothing about it has to be remembered elsewhere."""
    return {
        MANAGED: "true",
        INSTANCE: instance,
        NAME: name,
        SPEC: json.dumps(spec.to_dict(), separators=(",", ":")),
        CREATED_AT: repr(created_at),
    }


def common(spec: SandboxSpec, *, engine: EngineName, runtime: str | None) -> dict[str, Any]:
    """Return what holds for every container: no network, no capability, no log, and limits."""
    limits = spec.limits
    memory = limits.memory_bytes + limits.disk_bytes + AGENT_MEMORY_BYTES
    profile: dict[str, Any] = {
        "detach": True,
        "tty": False,
        "stdin_open": True,
        "hostname": "sandbox",
        "working_dir": WORKDIR,
        "network_mode": spec.network,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": memory,
        "memswap_limit": memory,
        "nano_cpus": int(limits.cpus * 1_000_000_000),
        "pids_limit": limits.pids + AGENT_PIDS,
        "shm_size": 64 * 1024 * 1024,
        "ulimits": ulimits(engine),
        "log_config": LogConfig(type="none"),
    }
    if runtime:
        profile["runtime"] = runtime
    return profile


def with_agent(
    spec: SandboxSpec,
    agent_config: str,
    *,
    engine: EngineName,
    runtime: str | None,
    agent_file: str | None,
    pipes: Path | None = None,
    libraries: Path | None = None,
) -> dict[str, Any]:
    """Return the profile of a container whose main process is the agent.

    The agent is root with three capabilities, to become the code's user and to kill its processes; code has none.
    `agent_file` is this machine's, mounted where the image's own is not the same; `libraries` are unpacked packages.
    """
    options = f"rw,nosuid,nodev,exec,size={spec.limits.disk_bytes}"
    # Podman gives a tmpfs no owner, and would give it the mode of the image's directory.
    owned = f"uid={CODE_USER},gid={CODE_USER},mode=0755" if engine == "docker" else "notmpcopyup,mode=1777"
    shared = "mode=1777" if engine == "docker" else "notmpcopyup,mode=1777"
    agent = BAKED_AGENT if agent_file is None else MOUNTED_AGENT
    tmpfs = {WORKDIR: f"{options},{owned}", "/tmp": f"{options},{shared}"}  # noqa: S108
    if engine == "podman":
        # Podman would mount one there by itself, as large as the memory.
        tmpfs["/var/tmp"] = f"{options},{shared}"  # noqa: S108
    profile = {
        **common(spec, engine=engine, runtime=runtime),
        "entrypoint": ["python3", agent],
        "command": [],
        "user": "0:0",
        "environment": {**CODE_ENV, "SBX_AGENT": agent_config},
        "cap_add": ["SETUID", "SETGID", "KILL"],
        "read_only": True,
        "tmpfs": tmpfs,
    }
    if pipes is not None:
        profile["entrypoint"] = shell_command(agent)
        profile["stdin_open"] = False
        profile["volumes"] = {str(pipes): {"bind": MOUNT, "mode": "rw,Z"}}
    mounts = {MOUNTED_AGENT: agent_file, str(SHARED_LIBRARIES): libraries and str(libraries)}
    profile["mounts"] = [
        Mount(target=target, source=source, type="bind", read_only=True) for target, source in mounts.items() if source
    ]
    return profile


def agent_rlimits(spec: SandboxSpec) -> Mapping[str, int | None]:
    """Return the rlimits that the agent sets for code; the container's own limits bind memory and processes."""
    return {"as": None, "nproc": None, "fsize": spec.limits.disk_bytes, "nofile": OPEN_FILES}
