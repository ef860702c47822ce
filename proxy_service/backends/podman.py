"""Sandboxes on Podman, through its Docker-compatible service."""

from __future__ import annotations

from proxy_service.backends.containers import ContainerBackend
from proxy_service.settings import Settings


class PodmanBackend(ContainerBackend):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "podman")
