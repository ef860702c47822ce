"""What callers get: rows as plain dictionaries.

Plain functions, because building a serializer costs more than the queries of the request it answers;
`answers.py` describes the same keys for the documentation, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sessions_app import clock
from sessions_app.models import Artifact, Execution, SandboxTemplate, Session, SessionEvent
from sessions_app.services import artifacts

SERVER_ERROR = "SandboxwebError"
"""The name of an error that is this server's, where that of an exception stands otherwise."""


def instant(value: datetime | None) -> str | None:
    """Return an instant as ISO 8601 in UTC, with a `Z`."""
    if value is None:
        return None
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def deadline(value: datetime | None) -> str | None:
    """Return a deadline, which is kept in the time of the database's clock, as an instant of the wall's."""
    return instant(value and clock.on_the_wall(value))


def session_body(session: Session) -> dict[str, Any]:
    """Return a session. Its environment stays out of it: people put secrets there."""
    return {
        "session_id": str(session.pk),
        "status": session.status,
        "lang": session.lang,
        "template": session.template.name,
        "expires_at": deadline(session.expires_at),
        "capabilities": session.capabilities,
        "metadata": session.metadata,
        "idle_timeout": session.idle_timeout_s,
        "max_lifetime": session.max_lifetime_s,
        "execution_timeout": session.execution_timeout_s,
        "keep_template": session.keep_template,
        "libraries": session.libraries,
        "backend": session.backend,
        "created_at": instant(session.created_at),
        "started_at": instant(session.started_at),
        "last_activity_at": instant(session.last_activity_at),
        "finished_at": instant(session.finished_at),
        "termination_reason": session.termination_reason or None,
        "error": session.error or None,
    }


def session_event_body(event: SessionEvent) -> dict[str, Any]:
    """Return something that happened to a session or to an execution of it."""
    return {
        "type": event.type,
        "from_status": event.from_status or None,
        "to_status": event.to_status or None,
        "reason": event.reason or None,
        "actor": event.actor,
        "execution_id": event.execution_id and str(event.execution_id),
        "data": event.data,
        "created_at": instant(event.created_at),
    }


def result_body(execution: Execution) -> dict[str, Any]:
    """Return what came of an execution. It may ask the database for the session, unless that has been read."""
    session = execution.session
    return {
        "execution_id": str(execution.pk),
        "session_id": str(execution.session_id),
        "status": execution.status,
        "stdout": execution.stdout,
        "stderr": execution.stderr,
        "exit_code": execution.exit_code,
        "signal": execution.signal,
        "phase": execution.phase or None,
        "duration_ms": execution.duration_ms,
        "cpu_ms": execution.cpu_ms,
        "max_rss_bytes": execution.max_rss_bytes,
        "results": execution.results,
        "artifacts": execution.artifacts,
        "files": execution.files,
        "files_truncated": execution.files_truncated,
        "truncated": execution.truncated,
        "hint": execution.hint or None,
        "error": error_body(execution),
        "context_restarted": execution.context_restarted,
        "expires_at": deadline(session.expires_at) if session.is_live else None,
        "created_at": instant(execution.created_at),
        "started_at": instant(execution.started_at),
        "finished_at": instant(execution.finished_at),
    }


def error_body(execution: Execution) -> dict[str, Any] | None:
    """Return what code in a context raised and nothing caught, or else what went wrong on this server's side."""
    if execution.exception is not None:
        return dict(execution.exception)
    return {"name": SERVER_ERROR, "value": execution.error, "traceback": []} if execution.error else None


def context_body(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return a context, as the proxy tells of it."""
    created_at = datetime.fromtimestamp(float(context.get("created_at") or 0), UTC)
    names = ("context_id", "lang", "state", "executions", "restarts")
    return {**{name: context.get(name) for name in names}, "created_at": instant(created_at)}


def execution_body(execution: Execution) -> dict[str, Any]:
    """Return an execution: what was asked for, and what came of it."""
    return {
        **result_body(execution),
        "code": execution.code,
        "libraries": execution.libraries,
        "timeout": execution.timeout_s,
        "output_limit_bytes": execution.output_limit_bytes,
        "context": execution.context or None,
    }


def template_body(template: SandboxTemplate) -> dict[str, Any]:
    """Return what a caller may know of a template."""
    return {
        "name": template.name,
        "lang": template.lang,
        "description": template.description,
        "is_default": template.is_default,
        "limits": {
            "memory_bytes": template.memory_bytes,
            "cpus": template.cpus,
            "pids": template.pids,
            "disk_bytes": template.disk_bytes,
        },
        "network": template.network,
        "libraries": template.libraries,
        "preload": template.preload,
        "warm_pool_size": template.warm_pool_size,
    }


def artifact_body(artifact: Artifact) -> dict[str, Any]:
    """Return what a caller may know of an artifact."""
    return {
        **artifacts.brief(artifact),
        "sha256": artifact.sha256,
        "execution_id": artifact.execution_id and str(artifact.execution_id),
        "session_id": artifact.session_id and str(artifact.session_id),
        "created_at": instant(artifact.created_at),
        "expires_at": deadline(artifact.expires_at),
    }
