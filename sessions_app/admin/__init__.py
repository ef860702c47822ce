"""The admin: every model, seen and managed. One noun a module; importing them registers them."""

from __future__ import annotations

from sessions_app.admin import (
    artifacts,
    events,
    executions,
    keys,
    library_rules,
    policies,
    records,
    sandbox_templates,
    sessions,
)

__all__ = [
    "artifacts",
    "events",
    "executions",
    "keys",
    "library_rules",
    "policies",
    "records",
    "sandbox_templates",
    "sessions",
]
