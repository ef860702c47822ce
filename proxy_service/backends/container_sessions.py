"""llm-sandbox's Docker session with our containment profile and, in place of its execs, the agent."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound
from llm_sandbox.core.session_base import BaseSession
from llm_sandbox.docker import DockerContainerAPI, SandboxDockerSession

from proxy_service.agent import AGENT_FILE
from proxy_service.backends.agent_sandbox import agent_config
from proxy_service.backends.base import Limits, SandboxSpec
from proxy_service.backends.container_sandbox import ContainerSandbox, Engine
from proxy_service.backends.containment import CODE_ENV, CODE_USER, DROP_IMAGE, agent_rlimits, with_agent
from proxy_service.backends.engine import EngineName
from proxy_service.backends.llm_sessions import AgentCommands, AgentRunner, LoopThread, fresh_secret
from proxy_service.images import AGENT_LABEL, agent_digest

MIB = 1024 * 1024
STANDALONE_LIMITS = Limits(memory_bytes=512 * MIB, cpus=1.0, pids=128, disk_bytes=512 * MIB)


class AgentContainerAPI(DockerContainerAPI):
    """Make containers with a given profile, and reach into them through their agent."""

    def __init__(self, client: docker.DockerClient, session: AgentDockerSession, profile: Mapping[str, Any]) -> None:
        super().__init__(client)
        self._session = session
        self._profile = profile

    def create_container(self, config: Any) -> Any:
        """Create the container; the profile wins over what the session would like."""
        merged = {**config, **self._profile}
        if self._session.drops_image:
            merged["labels"] = {**merged.get("labels", {}), DROP_IMAGE: "true"}
        return self.client.containers.create(**merged)

    def stop_container(self, container: Any) -> None:
        """Kill the container: no shell in it waits for anything."""
        container.kill()

    def execute_command(self, container: Any, command: str, **kwargs: Any) -> tuple[int, Any]:
        """Run a shell line through the agent."""
        output = self._session.execute_command(command, workdir=kwargs.get("workdir"))
        return output.exit_code, (output.stdout.encode(), output.stderr.encode())

    def copy_to_container(self, container: Any, src: str, dest: str, **_kwargs: Any) -> None:
        """Copy a file or directory through the agent, as the user that code runs as."""
        self._session.agent().put(Path(src), dest)

    def copy_from_container(self, container: Any, src: str, **_kwargs: Any) -> tuple[bytes, dict[str, Any]]:
        """Copy a file out through the agent."""
        return self._session.agent().archive(src)


class AgentDockerSession(AgentCommands, SandboxDockerSession):
    """A container whose main process is the agent.

    The proxy gives the `profile` and attaches by itself. Without one, as llm-sandbox's registry makes it, the session
    attaches when it is opened and removes its container when it is closed.
    """

    container: Any
    docker_image: Any

    def __init__(
        self,
        client: docker.DockerClient | None = None,
        *,
        profile: Mapping[str, Any] | None = None,
        engine: EngineName = "docker",
        **kwargs: Any,
    ) -> None:
        kwargs.pop("skip_environment_setup", None)
        super().__init__(client=client, skip_environment_setup=True, **kwargs)
        self._engine_name = engine
        self._standalone = profile is None
        self._secret = fresh_secret()
        self._thread: LoopThread | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._spec = SandboxSpec(lang=str(self.config.lang), limits=STANDALONE_LIMITS, image=self.config.image)
        self.container_api = AgentContainerAPI(self.client, self, profile or {})

    @property
    def drops_image(self) -> bool:
        """Tell whether the image was pulled for this session and is not to be kept."""
        return bool(self.is_create_template and not self.keep_template)

    def open(self) -> None:
        """Create and start the container."""
        try:
            super().open()
            if self._standalone:
                self._attach()
        except BaseException:
            self.close()
            raise

    def _prepare_image(self) -> None:
        super()._prepare_image()
        if self._standalone:
            baked = self.docker_image.labels.get(AGENT_LABEL) == agent_digest()
            config = agent_config(
                self._secret, self._spec, user=CODE_USER, rlimits=agent_rlimits(self._spec), env=CODE_ENV
            )
            profile = with_agent(
                self._spec,
                config,
                engine=self._engine_name,
                runtime=None,
                agent_file=None if baked else str(AGENT_FILE),
            )
            self.container_api = AgentContainerAPI(self.client, self, profile)

    def _attach(self) -> None:
        self._thread = LoopThread()
        self._threads = ThreadPoolExecutor(max_workers=2)
        engine = Engine(self._engine_name, self._url(), self.client, self._threads)

        async def attach() -> ContainerSandbox:
            link = await engine.link(self.container.id, self._secret, None)
            return ContainerSandbox(
                f"llm-{uuid.uuid4().hex[:12]}",
                self._spec,
                link,
                engine=engine,
                container_id=self.container.id,
                secret=self._secret,
                created_at=time.time(),
            )

        self.runner = AgentRunner.attach(attach(), self._thread.loop)

    def _url(self) -> str:
        base_url = str(self.client.api.base_url)
        if not base_url.startswith("http+docker://"):
            return base_url
        adapter = self.client.api.get_adapter(base_url)
        return f"unix://{getattr(adapter, 'socket_path')}"  # noqa: B009

    def close(self) -> None:
        """Kill and remove the container, and the image if it was pulled for this session alone."""
        BaseSession.close(self)
        if self.runner is not None and self._thread is not None:
            self.runner.wait(self.runner.sandbox.destroy())
            self.runner = None
        elif self.container is not None:
            with suppress(NotFound):
                self.client.api.remove_container(self.container.id, v=True, force=True)
        if self.container is not None and self.drops_image:
            self._cleanup_image()
        self.container = None
        if self._thread is not None and self._threads is not None:
            self._thread.close()
            self._threads.shutdown()
            self._thread = None
