"""Sandboxes of images without Python: no agent, llm-sandbox's own session and its execs.

What that costs is said in `capabilities`: executions are known to this proxy alone, their output comes at the end, and
nothing resumes after the proxy. Files are not in memory, so their size is not bound.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import DockerException, NotFound
from docker.utils.socket import STDERR, STDOUT, frames_iter
from llm_sandbox.core.session_base import BaseSession
from llm_sandbox.data import ConsoleOutput
from llm_sandbox.docker import DockerContainerAPI, SandboxDockerSession
from llm_sandbox.exceptions import SandboxTimeoutError

from proxy_service.backends.agent_sandbox import WORKDIR
from proxy_service.backends.base import ExecRequest, Sandbox, SandboxEvent, SandboxSpec
from proxy_service.backends.container_sandbox import Engine
from proxy_service.backends.containment import CODE_USER, DROP_IMAGE, common
from proxy_service.backends.engine import EngineName
from proxy_service.errors import SandboxBroken, SandboxError, UnknownExecution

USER = f"{CODE_USER}:{CODE_USER}"
MAX_JOURNALS = 32
WAIT_COMMAND = ["-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"]


class PlainContainerAPI(DockerContainerAPI):
    """Make containers that only wait, and run commands in them as the code's user, with bounded output."""

    def __init__(self, client: docker.DockerClient, session: PlainSession, profile: Mapping[str, Any]) -> None:
        super().__init__(client)
        self._session = session
        self._profile = profile
        self.limit_bytes = 1024 * 1024
        self.env: dict[str, str] = {}
        self._streams: dict[int, bytearray] = {}

    def heard(self) -> ConsoleOutput:
        """Return what the last command has written so far; it was killed."""
        stdout, stderr = (bytes(self._streams.get(kind, b"")).decode(errors="replace") for kind in (STDOUT, STDERR))
        return ConsoleOutput(exit_code=137, stdout=stdout, stderr=stderr)

    def create_container(self, config: Any) -> Any:
        """Create the container with the work directory that its code's user owns."""
        merged = {**config, **self._profile}
        if self._session.drops_image:
            merged["labels"] = {**merged["labels"], DROP_IMAGE: "true"}
        container = self.client.containers.create(**merged)
        container.put_archive("/", _archive({WORKDIR.lstrip("/"): None}))
        return container

    def execute_command(self, container: Any, command: str, **kwargs: Any) -> tuple[int, Any]:
        """Run a shell line, keeping the head of each stream and counting the rest."""
        api = self.client.api
        workdir = kwargs.get("workdir") or WORKDIR
        run = api.exec_create(
            container.id, ["/bin/sh", "-c", command], user=USER, workdir=workdir, environment=self.env
        )
        streams = self._streams = {STDOUT: bytearray(), STDERR: bytearray()}
        socket: Any = api.exec_start(run["Id"], socket=True)
        try:
            for kind, chunk in frames_iter(socket, tty=False):  # type: ignore[no-untyped-call]
                stream = streams[kind]
                stream += chunk[: max(0, self.limit_bytes - len(stream))]
        finally:
            socket._response.close()
            socket.close()
        code = api.exec_inspect(run["Id"])["ExitCode"]
        return int(code or 0), (bytes(streams[STDOUT]), bytes(streams[STDERR]))

    def copy_to_container(self, container: Any, src: str, dest: str, **_kwargs: Any) -> None:
        """Copy a file as the code's user's own."""
        name = dest.lstrip("/")
        container.put_archive("/", _archive({name: Path(src).read_bytes()}))


class PlainSession(SandboxDockerSession):
    """llm-sandbox's Docker session in a container that has no agent."""

    container: Any
    docker_image: Any

    def __init__(self, client: docker.DockerClient, *, profile: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(client=client, skip_environment_setup=True, encoding_errors="replace", **kwargs)
        self.api = PlainContainerAPI(client, self, profile)
        self.container_api = self.api

    @property
    def drops_image(self) -> bool:
        """Tell whether the image was pulled for this session and is not to be kept."""
        return bool(self.is_create_template and not self.keep_template)

    def kill_code(self) -> None:
        """Kill every process of the code's user; the container's own is another's."""
        self.container.exec_run(["/bin/sh", "-c", "kill -9 -1"], user=USER)

    def _handle_timeout(self) -> None:
        """Kill what ran too long; the session lives on."""
        self.kill_code()

    def close(self) -> None:
        """Forget the container, which the sandbox removes."""
        BaseSession.close(self)
        self.container = None


def plain_profile(spec: SandboxSpec, *, engine: EngineName, runtime: str | None) -> dict[str, Any]:
    """Return the profile of a container without an agent; its root is writable, for nothing else can be."""
    profile = common(spec, engine=engine, runtime=runtime)
    options = f"rw,nosuid,nodev,exec,size={spec.limits.disk_bytes},mode=1777"
    return {
        **profile,
        "entrypoint": ["/bin/sh"],
        "command": WAIT_COMMAND,
        "user": "0:0",
        "stdin_open": False,
        "environment": {"HOME": WORKDIR, "LANG": "C.UTF-8"},
        "tmpfs": {"/tmp": options},  # noqa: S108
    }


class PlainSandbox(Sandbox):
    """A container that code is put into by execs, one after another."""

    def __init__(self, name: str, spec: SandboxSpec, session: PlainSession, engine: Engine) -> None:
        super().__init__(name, spec)
        self._session = session
        self._engine = engine
        self._container_id = str(session.container.id)
        self._drop_image = str(session.docker_image.id) if session.drops_image else None
        self._env: dict[str, str] = {}
        self._runs: dict[str, asyncio.Task[list[SandboxEvent]]] = {}
        self._cancelled: set[str] = set()
        self._destroyed = False

    async def assign(self, session_id: str, digest: str, env: Mapping[str, str]) -> None:
        self.session_id, self.assigned_digest, self._env = session_id, digest, dict(env)

    async def execute(self, request: ExecRequest) -> AsyncIterator[SandboxEvent]:
        if request.execution_id not in self._runs:
            self._forget_old()
            self._runs[request.execution_id] = asyncio.create_task(self._run(request))
        yield SandboxEvent(1, "started", time.time())
        async for event in self.events(request.execution_id, 1):
            yield event

    async def _run(self, request: ExecRequest) -> list[SandboxEvent]:
        self._session.api.limit_bytes = request.output_limit_bytes
        self._session.api.env = {**self._env, **request.env}
        code = request.code.decode(errors="replace")
        began, reason = time.monotonic(), "exited"
        try:
            output: ConsoleOutput = await self._engine.call(lambda: self._session.run(code, timeout=request.timeout_s))
        except SandboxTimeoutError:
            output, reason = self._session.api.heard(), "timed_out"
        except NotFound as error:
            self.mark_broken("its container is gone")
            raise SandboxBroken("The sandbox's container is gone.") from error
        except (DockerException, requests.RequestException) as error:
            raise SandboxError(f"The engine could not run the code: {error}") from error
        if request.execution_id in self._cancelled:
            reason = "cancelled"
        return _events(output, reason, time.monotonic() - began)

    def _forget_old(self) -> None:
        finished = [key for key, run in self._runs.items() if run.done()]
        for key in finished[: max(0, len(self._runs) - MAX_JOURNALS)]:
            del self._runs[key]

    async def events(self, execution_id: str, after: int = 0) -> AsyncIterator[SandboxEvent]:
        run = self._runs.get(execution_id)
        if run is None:
            raise UnknownExecution(execution_id)
        for event in await asyncio.shield(run):
            if event.seq > after:
                yield event

    async def cancel(self, execution_id: str) -> None:
        run = self._runs.get(execution_id)
        if run is None:
            raise UnknownExecution(execution_id)
        if not run.done():
            self._cancelled.add(execution_id)
            await self._engine.call(self._session.kill_code)

    async def put_tar(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        raise SandboxError("An image without Python takes no archives.")

    async def stats(self) -> dict[str, Any]:
        numbers = await self._engine.call(
            lambda: self._engine.client.api.stats(self._container_id, stream=False, one_shot=True)
        )
        return {
            "memory_bytes": numbers.get("memory_stats", {}).get("usage"),
            "cpu_ms": numbers.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0) / 1e6,
            "processes": numbers.get("pids_stats", {}).get("current"),
            "disk_bytes": None,
            "disk_limit_bytes": None,
        }

    async def destroy(self) -> None:
        if not self._destroyed:
            self._destroyed = True
            self.forget(self)
            await self._engine.remove(self._container_id, drop_image=self._drop_image)
            await asyncio.gather(*self._runs.values(), return_exceptions=True)


def _events(output: ConsoleOutput, reason: str, duration_s: float) -> list[SandboxEvent]:
    now, events = time.time(), [SandboxEvent(1, "started", time.time() - duration_s)]
    stdout, stderr = output.stdout.encode(), output.stderr.encode()
    for kind, body in (("stdout", stdout), ("stderr", stderr)):
        if body:
            events.append(SandboxEvent(len(events) + 1, kind, now, body=body))
    killed = reason != "exited"
    data = {
        "exit_code": None if killed else output.exit_code,
        "signal": 9 if killed else None,
        "reason": reason,
        "duration_ms": round(duration_s * 1000, 3),
        "cpu_ms": None,
        "max_rss_bytes": None,
        "stdout_bytes": len(stdout),
        "stderr_bytes": len(stderr),
        "background": 0,
    }
    return [*events, SandboxEvent(len(events) + 1, "exit", now, data)]


def _archive(files: Mapping[str, bytes | None]) -> bytes:
    """Return a tar archive of files, and of directories where there is no content, that the code's user owns."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.uid = member.gid = CODE_USER
            member.mode, member.type = (0o755, tarfile.DIRTYPE) if content is None else (0o644, tarfile.REGTYPE)
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()
