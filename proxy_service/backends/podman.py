"""Sandboxes on Podman, through its Docker-compatible service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxy_service.backends.containers import ContainerBackend
from proxy_service.backends.podman_seccomp import write_strict_profile
from proxy_service.errors import BackendUnavailable
from proxy_service.settings import Settings


class PodmanBackend(ContainerBackend):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "podman")

    def _security_opt(self, *, local: bool) -> tuple[str, ...]:
        profile = write_strict_profile(self._settings.data_dir.absolute()) if local else None
        return () if profile is None else (f"seccomp={profile}",)

    def _pipes_dir(self, *, local: bool) -> Path | None:
        return self._settings.data_dir.absolute() / "podman" if local else None

    def _check_runtime(self, info: Mapping[str, Any]) -> None:
        """Make sure that the service runs what is wanted: it lets nobody choose for a container."""
        wanted, own = self._settings.sandbox_runtime, str(info.get("DefaultRuntime"))
        if wanted and wanted != own:
            mend = f"Start the service with it: podman --runtime {wanted} system service --time=0 unix:///PATH"
            raise BackendUnavailable(f"Podman's service runs {own}, not {wanted}.", mend=mend)

    def capabilities(self) -> dict[str, Any]:
        """Return what sandboxes can do; over a service on another machine none is found again."""
        return {**super().capabilities(), "resume": self._is_local}
