"""SessionEvent: one row for every change of state, with who did it and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models

from sessions_app import clock
from sessions_app.prepared import insert

if TYPE_CHECKING:
    from sessions_app.models.execution import Execution
    from sessions_app.models.session import Session


class Actor(models.TextChoices):
    """Where a change came from."""

    API = "api", "API"
    ADMIN = "admin", "Admin"
    REAPER = "reaper", "Reaper"
    COMMAND = "command", "Command"
    SYSTEM = "system", "System"


class SessionEvent(models.Model):
    """Record a change; written in the transaction of the change itself, never altered."""

    class Type(models.TextChoices):
        SESSION_STATE = "session_state", "Session changed state"
        EXECUTION_STATE = "execution_state", "Execution changed state"
        RENEWED = "renewed", "Session renewed"
        UPDATED = "updated", "Session updated"
        EXPIRING = "expiring", "Session is about to end"

    session = models.ForeignKey("Session", on_delete=models.CASCADE, related_name="events")
    execution = models.ForeignKey("Execution", on_delete=models.CASCADE, null=True, blank=True, related_name="events")
    type = models.CharField(max_length=32, choices=Type)
    from_status = models.CharField(max_length=16, blank=True)
    to_status = models.CharField(max_length=16, blank=True)
    actor = models.CharField(max_length=16, choices=Actor)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True)
    reason = models.TextField(blank=True)
    data = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        ordering = ["created_at", "id"]
        indexes = [models.Index(fields=["-created_at"], name="event_newest")]

    def __str__(self) -> str:
        return f"{self.get_type_display()}: {self.from_status or '-'} → {self.to_status or '-'}"

    @classmethod
    def of_session(
        cls,
        session: Session,
        *,
        from_status: str,
        actor: str,
        user_id: int | None = None,
        reason: str = "",
    ) -> None:
        """Write that the session came from a state to the one it is in now."""
        insert(
            cls(
                session_id=session.pk,
                type=cls.Type.SESSION_STATE,
                from_status=from_status,
                to_status=session.status,
                actor=actor,
                user_id=user_id,
                reason=reason,
            )
        )

    @classmethod
    def of_execution(
        cls, execution: Execution, *, from_status: str, actor: str, user_id: int | None = None, reason: str = ""
    ) -> None:
        """Write that the execution came from a state to the one it is in now."""
        insert(
            cls(
                session_id=execution.session_id,
                execution_id=execution.pk,
                type=cls.Type.EXECUTION_STATE,
                from_status=from_status,
                to_status=execution.status,
                actor=actor,
                user_id=user_id,
                reason=reason,
            )
        )
