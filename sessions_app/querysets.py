"""The words for reading rows. Transitions are methods of the models."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from django.db import models

if TYPE_CHECKING:  # named in strings below, where ruff does not look for types
    from sessions_app.models.artifact import Artifact  # noqa: F401
    from sessions_app.models.execution import Execution  # noqa: F401
    from sessions_app.models.session import Session  # noqa: F401
    from sessions_app.models.template import SandboxTemplate  # noqa: F401

SESSION_LIVE = ("pending", "active", "terminating")
SESSION_PASSING = ("pending", "terminating")
SESSION_ENDED = ("terminated", "failed")
EXECUTION_LIVE = ("queued", "running")


class SandboxTemplateQuerySet(models.QuerySet["SandboxTemplate"]):
    """Read templates."""

    def enabled(self) -> Self:
        """Those that sessions may be made from."""
        return self.filter(is_enabled=True)

    def pooled(self) -> Self:
        """Those that keep sandboxes ready."""
        return self.enabled().filter(warm_pool_size__gt=0)


class SessionQuerySet(models.QuerySet["Session"]):
    """Read sessions."""

    def owned_by(self, user: Any) -> Self:
        """Those of one user; nobody sees another's."""
        return self.filter(owner=user)

    def live(self) -> Self:
        """Those that have, or may have, a sandbox."""
        return self.filter(status__in=SESSION_LIVE)

    def active(self) -> Self:
        """Those that can run code."""
        return self.filter(status="active")

    def ended(self) -> Self:
        """Those that are over for good."""
        return self.filter(status__in=SESSION_ENDED)

    def due(self, now: datetime) -> Self:
        """Active ones whose deadline has come, the longest overdue first."""
        return self.active().filter(expires_at__lte=now).order_by("expires_at")

    def expiring(self, now: datetime, *, within: timedelta) -> Self:
        """Active ones that end within their grace, itself at most `within`, and of which nobody was told."""
        from sessions_app.models.deadlines import after

        soon = self.active().filter(expires_at__gt=now, expires_at__lte=now + within)
        told = models.Q(announced_for=models.F("expires_at"))
        grace_begun = models.Q(expires_at__lte=after(models.Value(now, models.DateTimeField()), models.F("grace_s")))
        return soon.filter(grace_begun, models.Q(announced_for=None) | ~told).order_by("expires_at")

    def stuck(self, now: datetime) -> Self:
        """Those in a passing state that whoever put them there should have left by now."""
        return self.filter(status__in=SESSION_PASSING, attend_at__lte=now).order_by("attend_at")


class ExecutionQuerySet(models.QuerySet["Execution"]):
    """Read executions."""

    def owned_by(self, user: Any) -> Self:
        """Those of one user's sessions."""
        return self.filter(session__owner=user)

    def live(self) -> Self:
        """Those whose result is not known yet."""
        return self.filter(status__in=EXECUTION_LIVE)

    def running(self) -> Self:
        """Those that run; at most one a session."""
        return self.filter(status="running")

    def queued(self) -> Self:
        """Those that wait for their turn, the next one first."""
        return self.filter(status="queued").order_by("created_at", "id")

    def unattended(self, now: datetime) -> Self:
        """Live ones that somebody should look at: their result may be ready and nobody may be waiting for it."""
        return self.live().filter(attend_at__lte=now).order_by("attend_at")


class ArtifactQuerySet(models.QuerySet["Artifact"]):
    """Artifacts, by whose they are and how long they stay."""

    def owned_by(self, owner: Any) -> Self:
        """Return those of a user."""
        return self.filter(owner=owner)

    def expired(self, now: datetime) -> Self:
        """Return those whose time is over, the longest first."""
        return self.filter(expires_at__lte=now).order_by("expires_at")
