"""The rows that are the truth about sessions."""

from __future__ import annotations

from sessions_app.models.api_key import ApiKey
from sessions_app.models.artifact import Artifact
from sessions_app.models.clock import ClockAnchor
from sessions_app.models.event import Actor, SessionEvent
from sessions_app.models.execution import Execution
from sessions_app.models.idempotency import IdempotencyRecord
from sessions_app.models.library_rule import LibraryRule
from sessions_app.models.policy import TimeoutPolicy
from sessions_app.models.session import Session
from sessions_app.models.sweep import ReaperSweep
from sessions_app.models.template import SandboxTemplate
from sessions_app.models.user_policy import UserPolicy

__all__ = [
    "Actor",
    "ApiKey",
    "Artifact",
    "ClockAnchor",
    "Execution",
    "IdempotencyRecord",
    "LibraryRule",
    "ReaperSweep",
    "SandboxTemplate",
    "Session",
    "SessionEvent",
    "TimeoutPolicy",
    "UserPolicy",
]
