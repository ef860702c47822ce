"""What is known of an execution that ended, for its hint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sessions_app.models import Execution, SandboxTemplate


@dataclass(frozen=True)
class Facts:
    """What is known of an execution that ended; sizes in bytes, durations in seconds."""

    status: str
    lang: str = "python"
    stderr: str = ""
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    """What the sandbox itself says of the end."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Where the code was at its time-out: `line`, `function`, and `file` when it was not the code itself."""
    has_stdin: bool = False
    libraries: Sequence[str] = ()
    timeout_s: float = 0
    max_rss_bytes: int | None = None
    template: str = ""
    network: str = SandboxTemplate.Network.NONE
    memory_bytes: int = 0
    disk_bytes: int = 0
    pids: int = 0

    @property
    def has_network(self) -> bool:
        """Tell whether the sandbox can reach more than itself."""
        return self.network != SandboxTemplate.Network.NONE


def facts_of(execution: Execution, status: str, values: Mapping[str, Any], told: Mapping[str, Any]) -> Facts:
    """Gather what is known: `values` are the columns of the end, `told` what the sandbox said beside them."""
    template = execution.session.template
    where = told.get("where")
    return Facts(
        status=status,
        lang=execution.session.lang,
        stderr=str(values.get("stderr", "")) + _traceback(values.get("exception")),
        exit_code=values.get("exit_code"),
        signal=values.get("signal"),
        message=str(told.get("message") or ""),
        where=where if isinstance(where, Mapping) else {},
        has_stdin=execution.stdin is not None or execution.stdin_stream,
        libraries=[*template.libraries, *execution.session.libraries, *execution.libraries],
        timeout_s=execution.timeout_s,
        max_rss_bytes=values.get("max_rss_bytes"),
        template=template.name,
        network=template.network,
        memory_bytes=template.memory_bytes,
        disk_bytes=template.disk_bytes,
        pids=template.pids,
    )


def _traceback(exception: object) -> str:
    """Return what an interpreter of its own would have written of an exception: a context's tells it apart."""
    lines = exception.get("traceback") if isinstance(exception, Mapping) else None
    return "".join(f"{line}\n" for line in lines) if isinstance(lines, list) else ""
