"""Sandboxes on Podman, through its Docker-compatible service."""

from __future__ import annotations

from proxy_service.backends.containers import ContainerBackend
from proxy_service.backends.podman_seccomp import write_strict_profile
from proxy_service.settings import Settings


class PodmanBackend(ContainerBackend):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "podman")

    def _security_opt(self, *, local: bool) -> tuple[str, ...]:
        profile = write_strict_profile(self._settings.data_dir.absolute()) if local else None
        return () if profile is None else (f"seccomp={profile}",)
