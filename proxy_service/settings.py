"""Every setting of the proxy, typed, read in this one place from the environment or `.env`."""

from __future__ import annotations

import hashlib
import hmac
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, SecretStr, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

from proxy_service.backends.base import Limits

MIB = 1024 * 1024

BackendName = Literal["auto", "bubblewrap", "docker", "podman", "fake"]
Instance = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


class Settings(BaseSettings):
    """Hold the proxy's settings; the environment variable of each bears its name in capitals."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    # --- who may call, and where
    proxy_token: SecretStr = Field(min_length=16)
    proxy_host: str = "127.0.0.1"
    proxy_port: int = Field(8000, ge=0, le=65535)
    proxy_instance: Instance | None = None
    """Whose sandboxes are ours on a shared engine; the token's digest when unset."""
    data_dir: Path = Path("var")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    # --- what runs the sandboxes
    sandbox_backend: BackendName = "auto"
    sandbox_runtime: str | None = None
    """The container engine's runtime, for example `runsc` for gVisor."""
    sandbox_image_prefix: str = "sandboxweb"
    docker_host: str | None = None
    podman_url: str | None = None

    # --- what a sandbox may use when its template says nothing
    sandbox_memory: ByteSize = ByteSize(512 * MIB)
    sandbox_cpus: float = Field(1.0, gt=0)
    sandbox_pids: int = Field(128, ge=8)
    sandbox_disk: ByteSize = ByteSize(512 * MIB)
    """Room for files and libraries: numpy, pandas, matplotlib and scikit-learn unpacked take about 330 MiB."""
    allow_host_network: bool = True
    """Whether a template may ask for `"network": "host"`; no sandbox has a network unless its template asks."""

    # --- libraries
    library_cache_dir: Path | None = None
    library_cache_size: ByteSize = ByteSize(4096 * MIB)
    library_timeout_s: float = Field(180.0, gt=0)

    # --- bounds
    max_code_bytes: int = Field(1 * MIB, gt=0)
    max_body_bytes: int = Field(8 * MIB, gt=0)
    default_timeout_s: float = Field(30.0, gt=0)
    max_timeout_s: float = Field(24 * 3600.0, gt=0)
    default_output_limit_bytes: int = Field(1 * MIB, gt=0)
    max_output_limit_bytes: int = Field(16 * MIB, gt=0)
    max_upload_size: ByteSize = ByteSize(4096 * MIB)
    """The largest body that is taken as a file or an archive, if the sandbox's disk has room for it."""
    max_archive_members: int = Field(100_000, ge=1)
    max_listed_files: int = Field(10_000, ge=1)
    upload_silence_s: float = Field(60.0, gt=0)
    """How long an upload may send nothing before it is given up."""
    max_waiting_executions: int = Field(16, ge=0)
    max_sandboxes: int = Field(2000, gt=0)
    start_timeout_s: float = Field(30.0, gt=0)
    """How long a sandbox may take from its creation to its agent's first answer."""
    agent_ping_s: float = Field(5.0, gt=0)
    agent_silence_s: float = Field(15.0, gt=0)
    """How long an agent may be silent before its sandbox counts as broken."""
    create_timeout_s: float = Field(60.0, gt=0)
    """How long a sandbox may take to be made, its image at hand or not, before its creation is given up."""
    body_timeout_s: float = Field(30.0, gt=0)
    """How long a request's JSON body may take to arrive."""
    reader_silence_s: float = Field(60.0, gt=0)
    """How long the reader of a stream may take nothing before the stream is cut off."""
    engine_patience_s: float = Field(120.0, gt=0)
    """How long a container engine may be away before the sessions that run on it count as lost."""
    pool_parallel_starts: int = Field(2, ge=1)
    stop_timeout_s: float = Field(8.0, gt=0)

    @cached_property
    def token(self) -> str:
        """Return the bearer token in clear; never log it."""
        return self.proxy_token.get_secret_value()

    @cached_property
    def instance(self) -> str:
        """Return the name that marks this proxy's sandboxes on a shared engine."""
        return self.proxy_instance or hashlib.sha256(self.token.encode()).hexdigest()[:12]

    @cached_property
    def libraries_dir(self) -> Path:
        """Return the directory that keeps unpacked libraries."""
        return (self.library_cache_dir or self.data_dir / "libraries").absolute()

    @property
    def default_limits(self) -> Limits:
        """Return the limits of a sandbox whose template names none."""
        return Limits(
            memory_bytes=int(self.sandbox_memory),
            cpus=self.sandbox_cpus,
            pids=self.sandbox_pids,
            disk_bytes=int(self.sandbox_disk),
        )

    def agent_secret(self, sandbox_name: str) -> bytes:
        """Return the 16 bytes that resynchronise a sandbox's agent; a new proxy computes the same."""
        return hmac.digest(self.token.encode(), sandbox_name.encode(), "sha256")[:16]
