"""What makes sandboxes; each backend is imported only when it is chosen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # The settings need `base`, which is in this package.
    from proxy_service.backends.base import Backend
    from proxy_service.settings import Settings

log = logging.getLogger(__name__)


def load_backend(settings: Settings) -> Backend:
    """Return the backend that the settings name; `auto` is docker where its daemon has the image, else bubblewrap."""
    name: str = settings.sandbox_backend
    if name == "auto":
        from proxy_service.backends.docker import DockerBackend

        name = "docker" if DockerBackend.is_usable(settings) else "bubblewrap"
        log.info("SANDBOX_BACKEND is auto: using %s", name)
    if name == "docker":
        from proxy_service.backends.docker import DockerBackend

        return DockerBackend(settings)
    if name == "podman":
        from proxy_service.backends.podman import PodmanBackend

        return PodmanBackend(settings)
    if name == "fake":
        from proxy_service.backends.fake import FakeBackend

        return FakeBackend(settings)
    from proxy_service.backends.bubblewrap import BubblewrapBackend

    return BubblewrapBackend(settings)
