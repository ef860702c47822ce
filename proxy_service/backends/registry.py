"""Make the sessions with an agent known to llm-sandbox: `SandboxSession(backend="sandboxweb-docker")` and its like."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import docker
from llm_sandbox.backends import BackendCapabilities, register_backend
from llm_sandbox.core.session_base import BaseSession

CONTAINERS = BackendCapabilities(
    container_images=True, filesystem_isolation=True, network_isolation=True, seccomp=True, daemon_required=True
)
LOCAL = BackendCapabilities(platforms=("linux",), filesystem_isolation=True, network_isolation=True, seccomp=True)


def _docker(**kwargs: Any) -> BaseSession:
    from proxy_service.backends.container_sessions import AgentDockerSession

    return AgentDockerSession(engine="docker", **kwargs)


def _podman(**kwargs: Any) -> BaseSession:
    from proxy_service.backends.container_sessions import AgentDockerSession

    client = kwargs.pop("client", None) or docker.DockerClient(base_url="unix:///run/podman/podman.sock")
    return AgentDockerSession(client, engine="podman", **kwargs)


def _bubblewrap(**kwargs: Any) -> BaseSession:
    from proxy_service.backends.bubblewrap_sessions import AgentBubblewrapSession

    return AgentBubblewrapSession(**kwargs)


def register() -> None:
    """Register the three; once is enough."""
    for name, factory, capabilities in (
        ("sandboxweb-docker", _docker, CONTAINERS),
        ("sandboxweb-podman", _podman, CONTAINERS),
        ("sandboxweb-bubblewrap", _bubblewrap, LOCAL),
    ):
        with suppress(ValueError):
            register_backend(name, factory, capabilities=capabilities)
