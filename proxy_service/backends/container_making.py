"""Make one sandbox on a container engine, through llm-sandbox's session: with an agent, or plain without Python."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from docker.errors import DockerException, ImageNotFound
from docker.models.images import Image
from llm_sandbox.exceptions import ImagePullError

from proxy_service.agent import AGENT_FILE
from proxy_service.agent_events import AgentBroken, AgentGone
from proxy_service.backends import containment
from proxy_service.backends.agent_sandbox import agent_config
from proxy_service.backends.base import Sandbox, SandboxSpec
from proxy_service.backends.container_sandbox import ContainerSandbox, Engine, engine_error
from proxy_service.backends.container_sessions import AgentDockerSession
from proxy_service.backends.fifo_channel import make_pipes, remove_pipes
from proxy_service.backends.languages import language_handler
from proxy_service.backends.plain import PlainSandbox, PlainSession, plain_profile
from proxy_service.errors import (
    BackendUnavailable,
    ProxyError,
    SandboxStartFailed,
    UnsupportedLanguage,
    UnsupportedSpec,
)
from proxy_service.images import AGENT_LABEL, agent_digest, image_name
from proxy_service.library_links import store_of
from proxy_service.settings import Settings

NOT_FOUND = 127
"""What a shell ends with that cannot find a program."""

log = logging.getLogger(__name__)


class _NoPythonError(Exception):
    """The image cannot run the agent."""


class ContainerMaker:
    """Makes containers; remembers which images have no Python."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        mountable: bool,
        security_opt: tuple[str, ...] = (),
        pipes_dir: Path | None = None,
    ) -> None:
        self._settings = settings
        self._security_opt = security_opt
        self._pipes_dir = pipes_dir
        self._engine = engine
        self._mountable = mountable
        self._without_python: set[str] = set()
        self._libraries = store_of(settings.libraries_dir) if mountable else None

    async def make(self, spec: SandboxSpec, name: str) -> Sandbox:
        """Make a sandbox that is ready to execute. Raises ProxyError; leaves nothing behind then."""
        try:
            image = await self._engine.call(lambda: self._image(spec))
            if image is not None and image.id in self._without_python:
                return await self._plain(spec, name)
            try:
                return await self._with_agent(spec, name, image)
            except _NoPythonError:
                log.info("image %s has no Python: its sandboxes are plain", self._image_name(spec))
                return await self._plain(spec, name)
            except DockerException as error:
                if self._libraries is None or str(self._libraries) not in str(error):
                    raise
                # This proxy is itself in a container: its directories are not the engine's.
                log.info("the engine does not see %s: libraries are streamed into sandboxes", self._libraries)
                self._libraries = None
                return await self._with_agent(spec, name, image)
        except ImagePullError as error:
            raise UnsupportedSpec(f"There is no image {spec.image}: {error}", field="image") from error
        except (AgentBroken, DockerException) as error:
            raise SandboxStartFailed(f"The sandbox could not be started: {engine_error(error)}") from error
        except requests.RequestException as error:
            # What the engine itself refuses is an exception of both kinds, and was caught above.
            raise BackendUnavailable(f"The {self._engine.name} engine does not answer: {error}") from error

    def _image_name(self, spec: SandboxSpec) -> str:
        return spec.image or image_name(self._settings, spec.lang)

    def _image(self, spec: SandboxSpec) -> Image | None:
        """Return the image when the engine has it; None when llm-sandbox shall pull it."""
        try:
            return self._engine.client.images.get(self._image_name(spec))
        except ImageNotFound:
            if spec.image is None:
                raise UnsupportedLanguage(spec.lang, []) from None
            return None

    def _common(self, spec: SandboxSpec) -> dict[str, Any]:
        return {
            "image": self._image_name(spec),
            # llm-sandbox knows no bash: what is run does not come from its table.
            "lang": "python" if spec.lang == "bash" else spec.lang,
            "keep_template": spec.keep_template,
        }

    def _secured(self, profile: dict[str, Any]) -> dict[str, Any]:
        return {**profile, "security_opt": [*profile["security_opt"], *self._security_opt]}

    async def _with_agent(self, spec: SandboxSpec, name: str, image: Image | None) -> ContainerSandbox:
        created_at, secret = time.time(), self._settings.agent_secret(name)
        config = agent_config(
            secret, spec, user=containment.CODE_USER, rlimits=containment.agent_rlimits(spec), env=containment.CODE_ENV
        )
        pipes = self._pipes_dir / name if self._pipes_dir is not None else None
        profile = containment.with_agent(
            spec,
            config,
            engine=self._engine.name,
            runtime=self._settings.sandbox_runtime,
            agent_file=self._agent_file(spec, image),
            pipes=pipes,
            libraries=(libraries := self._shared_libraries(spec)),
        )
        labels = containment.labels(self._settings.instance, name, spec, created_at)
        if libraries is not None:
            labels[containment.LIBRARIES] = str(libraries)
        if pipes is not None:
            labels[containment.PIPES] = str(pipes)
            make_pipes(pipes)
        session = AgentDockerSession(
            self._engine.client,
            profile={**self._secured(profile), "name": name, "labels": labels},
            engine=self._engine.name,
            **self._common(spec),
        )
        try:
            await self._engine.call(session.open)
        except BaseException as error:
            if pipes is not None:
                remove_pipes(pipes)
            if image_lacks_python(error):
                self._without_python.add(str(session.docker_image.id))
                raise _NoPythonError from error
            raise
        container_id = str(session.container.id)
        drop_image = str(session.docker_image.id) if session.drops_image else None
        try:
            sandbox = await self.attach(
                spec, name, container_id, created_at=created_at, drop_image=drop_image, pipes=pipes
            )
            sandbox.shares_libraries = libraries is not None
        except BaseException as error:
            lacks_python = isinstance(error, AgentGone) and await self._engine.exit_code(container_id) == NOT_FOUND
            await self._engine.remove(container_id, drop_image=drop_image)
            if pipes is not None:
                remove_pipes(pipes)
            if lacks_python:
                self._without_python.add(str(session.docker_image.id))
                raise _NoPythonError from error
            raise
        try:
            await sandbox.ready(self._settings.start_timeout_s)
        except ProxyError:
            await sandbox.destroy()
            raise
        return sandbox

    def sees_libraries(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a container was made with the directory of unpacked packages that this proxy writes to."""
        return labels.get(containment.LIBRARIES) == str(store_of(self._settings.libraries_dir))

    def _shared_libraries(self, spec: SandboxSpec) -> Path | None:
        """Return the directory that a sandbox is to see, where the engine can see it."""
        if self._libraries is None or spec.lang != "python":
            return None
        self._libraries.mkdir(parents=True, exist_ok=True)
        return self._libraries

    async def attach(
        self,
        spec: SandboxSpec,
        name: str,
        container_id: str,
        *,
        created_at: float,
        drop_image: str | None,
        pipes: Path | None,
    ) -> ContainerSandbox:
        """Attach to the agent of a running container. Raises AgentBroken."""
        secret = self._settings.agent_secret(name)
        link = await self._engine.link(container_id, secret, pipes)
        return ContainerSandbox(
            name,
            spec,
            link,
            engine=self._engine,
            container_id=container_id,
            secret=secret,
            pipes=pipes,
            drop_image=drop_image,
            created_at=created_at,
        )

    def _agent_file(self, spec: SandboxSpec, image: Image | None) -> str | None:
        """Return the agent to mount, or None when the image's own is to run."""
        baked = image.labels.get(AGENT_LABEL) if image is not None else None
        if baked == agent_digest():
            return None
        if self._mountable:
            return str(AGENT_FILE)
        if baked is None:
            detail = (
                f"The engine is on another machine, and {spec.image} has no agent: build it from a sandboxweb image."
            )
            raise UnsupportedSpec(detail, field="image")
        return None

    async def _plain(self, spec: SandboxSpec, name: str) -> PlainSandbox:
        labels = containment.labels(self._settings.instance, name, spec, time.time())
        profile = plain_profile(spec, engine=self._engine.name, runtime=self._settings.sandbox_runtime)
        session = PlainSession(
            self._engine.client,
            profile={**self._secured(profile), "name": name, "labels": {**labels, containment.PLAIN: "true"}},
            **self._common(spec),
        )
        session.language_handler = language_handler(spec.lang)
        try:
            await self._engine.call(session.open)
        except BaseException:
            if session.container is not None:
                await self._engine.remove(str(session.container.id))
            raise
        sandbox = PlainSandbox(name, spec, session, self._engine)
        sandbox.capabilities = {"contexts": False, "resume": False, "files": False, "libraries": False, "stdin": False}
        sandbox.capabilities |= {"python": None, "limits": ["cpu", "memory", "pids"], "backend": self._engine.name}
        return sandbox


def image_lacks_python(error: BaseException) -> bool:
    """Tell whether a container did not start because its image has no `python3`."""
    said = engine_error(error).lower() if isinstance(error, DockerException) else ""
    return "python3" in said and ("not found" in said or "no such file" in said)
