"""Reach a container engine: Docker itself, or Podman through the same HTTP interface."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Literal

import docker
import requests
from docker.context import ContextAPI
from docker.errors import DockerException
from docker.types import Ulimit

from proxy_service.errors import BackendAway
from proxy_service.settings import Settings

EngineName = Literal["docker", "podman"]

OPEN_FILES = 1024
MAX_PROCESSES = 4096

_MEND = {
    "docker": "Start it (for example: sudo systemctl start docker, or colima start), or set DOCKER_HOST.",
    "podman": "Start it (podman system service --time=0 unix:///PATH) and set PODMAN_URL=unix:///PATH.",
}


def engine_url(engine: EngineName, settings: Settings) -> str:
    """Return where the engine listens: from the settings, else from where its own tools look."""
    if engine == "docker":
        if settings.docker_host:
            return settings.docker_host
        context = ContextAPI.get_current_context()
        return (context.Host if context is not None else None) or "unix:///var/run/docker.sock"
    if settings.podman_url:
        return settings.podman_url
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    rootless = f"unix://{runtime_dir}/podman/podman.sock" if runtime_dir else None
    return rootless if rootless and os.geteuid() != 0 else "unix:///run/podman/podman.sock"


def engine_is_local(url: str) -> bool:
    """Tell whether the engine sees this machine's files: it listens on a socket here and runs on this kernel."""
    return url.startswith("unix://") and Path(url.removeprefix("unix://")).is_socket() and os.uname().sysname == "Linux"


def connect(
    engine: EngineName, settings: Settings, *, timeout_s: float = 60.0, connections: int = 10
) -> docker.DockerClient:
    """Return a client whose engine has answered.

    Raises:
        BackendAway: when it does not answer, with the mend.
    """
    url = engine_url(engine, settings)
    if url.startswith("unix://") and not Path(url.removeprefix("unix://")).exists():
        raise BackendAway(f"The {engine.capitalize()} engine does not answer: no {url}", mend=_MEND[engine])
    client = None
    try:
        client = docker.DockerClient(base_url=url, version="1.40", timeout=int(timeout_s), max_pool_size=connections)
        client.ping()
    except (DockerException, requests.RequestException, OSError) as error:
        if client is not None:
            client.close()
        detail = f"The {engine.capitalize()} engine does not answer at {url}: {error}"
        raise BackendAway(detail, mend=_MEND[engine]) from error
    return client


def ulimits(engine: EngineName) -> list[Ulimit]:
    """Return what a container may have of files, and what Podman must not guess: its guess may be refused."""
    limits = [Ulimit(name="core", soft=0, hard=0), Ulimit(name="nofile", soft=OPEN_FILES, hard=OPEN_FILES)]
    if engine == "podman":
        own = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        most = MAX_PROCESSES if own == resource.RLIM_INFINITY else min(own, MAX_PROCESSES)
        limits.append(Ulimit(name="nproc", soft=most, hard=most))
    return limits
