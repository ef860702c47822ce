"""Sandboxes on Docker."""

from __future__ import annotations

from docker.errors import DockerException

from proxy_service.backends.containers import ContainerBackend
from proxy_service.backends.engine import connect
from proxy_service.errors import BackendUnavailable
from proxy_service.images import image_name
from proxy_service.settings import Settings

PROBE_TIMEOUT_S = 3.0


class DockerBackend(ContainerBackend):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, "docker")

    @staticmethod
    def is_usable(settings: Settings) -> bool:
        """Tell, within seconds, whether Docker's daemon answers and has the image of Python."""
        try:
            client = connect("docker", settings, timeout_s=PROBE_TIMEOUT_S)
        except BackendUnavailable:
            return False
        try:
            client.images.get(image_name(settings, "python"))
        except (DockerException, OSError):
            return False
        finally:
            client.close()
        return True
