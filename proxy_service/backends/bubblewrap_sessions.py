"""llm-sandbox's bubblewrap session on one long-lived namespace with the agent, instead of one a command."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from pathlib import Path
from typing import Any

from llm_sandbox.bubblewrap import BubblewrapSession
from llm_sandbox.data import ConsoleOutput, StreamCallback
from llm_sandbox.local.files import safe_remove_tree
from pydantic import SecretStr

from proxy_service.backends.base import SandboxSpec
from proxy_service.backends.bubblewrap import BubblewrapBackend, BubblewrapSandbox
from proxy_service.backends.bwrap import find_bwrap
from proxy_service.backends.llm_sessions import AgentRunner, LoopThread, fresh_secret
from proxy_service.settings import Settings


class AgentBubblewrapSession(BubblewrapSession):
    """A namespace that lives as long as the session; commands run through its agent.

    Files, copies and artifacts are llm-sandbox's own: they work on the host's side of the workspace.
    """

    is_open: bool

    def __init__(self, **kwargs: Any) -> None:
        kwargs.pop("skip_environment_setup", None)
        super().__init__(bwrap_path=find_bwrap(), skip_environment_setup=True, **kwargs)
        self.runner: AgentRunner | None = None
        self._thread: LoopThread | None = None
        self._backend: BubblewrapBackend | None = None
        self._data_dir: Path | None = None

    def open(self) -> None:
        """Start the namespace and its agent."""
        with self._operation_lock:
            if self.is_open:
                return
            self._thread = LoopThread()
            self._data_dir = Path(tempfile.mkdtemp(prefix="sandboxweb-"))
            token = SecretStr(fresh_secret().hex())
            settings = Settings(_env_file=None, proxy_token=token, data_dir=self._data_dir)
            self._backend = BubblewrapBackend(settings)
            spec = SandboxSpec(
                lang=str(self.config.lang), limits=settings.default_limits, network=self.sandbox_config.network
            )
            sandbox = self._wait(self._make(self._backend, spec))
            self.runner = AgentRunner(sandbox, self._thread.loop)
            self.workspace = self.container = sandbox.process.directory / "workspace"
            self.tempdir = sandbox.process.directory / "tmp"
            self._generation += 1
            self._closing = False
            self.is_open = True
            self._start_session_timer()

    @staticmethod
    async def _make(backend: BubblewrapBackend, spec: SandboxSpec) -> BubblewrapSandbox:
        await backend.prepare()
        sandbox = await backend.create(spec, f"llm-{uuid.uuid4().hex[:12]}")
        assert isinstance(sandbox, BubblewrapSandbox)  # noqa: S101
        return sandbox

    def _wait(self, work: Any) -> Any:
        assert self._thread is not None  # noqa: S101
        return asyncio.run_coroutine_threadsafe(work, self._thread.loop).result()

    def _execute_command(
        self,
        command: str,
        workdir: str,
        on_stdout: StreamCallback | None,
        on_stderr: StreamCallback | None,
    ) -> ConsoleOutput:
        self._require_open()
        assert self.runner is not None  # noqa: S101
        return self.runner.run(
            command,
            workdir,
            timeout_s=self._remaining_time(),
            errors=self.config.encoding_errors,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
        )

    def _handle_timeout(self) -> None:
        """Do nothing: what ran too long was killed, and the session lives on."""

    def _close_generation(self, generation: int) -> None:
        with self._process_lock:
            if generation != self._generation or not self.is_open:
                return
            self._closing = True
        if self.runner is not None:
            self.runner.cancel()
        with self._operation_lock:
            self._stop_session_timer()
            self.is_open = False
            self.container = None
            self._take_down()

    def _take_down(self) -> None:
        if self._backend is not None and self._thread is not None:
            self._wait(self._backend.close())
            self._thread.close()
        if self._data_dir is not None:
            safe_remove_tree(self._data_dir)
        self.runner = self._backend = self._thread = self._data_dir = None
