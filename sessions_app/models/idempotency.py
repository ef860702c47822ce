"""IdempotencyRecord: the first answer to a request, kept so that a repetition gets it again."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from sessions_app import clock
from sessions_app.exceptions import IdempotencyInProgress
from sessions_app.limits import MAX_IDEMPOTENCY_KEY_CHARS
from sessions_app.models.execution import Execution
from sessions_app.models.session import Session


class IdempotencyRecord(models.Model):
    """Tie an owner's key to one request, to what it made and to its answer."""

    class State(models.TextChoices):
        # Somebody is answering the first request, or died in it.
        IN_PROGRESS = "in_progress", "In progress"
        # The answer stands.
        DONE = "done", "Done"

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    key = models.CharField(max_length=MAX_IDEMPOTENCY_KEY_CHARS)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of method, path and body.")
    state = models.CharField(max_length=16, choices=State, default=State.IN_PROGRESS)
    claimed_at = models.DateTimeField(default=clock.now)
    session = models.ForeignKey(Session, on_delete=models.CASCADE, null=True, blank=True)
    execution = models.ForeignKey(Execution, on_delete=models.CASCADE, null=True, blank=True)
    response_status = models.PositiveSmallIntegerField(null=True, blank=True)
    response_body = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "key"], name="idempotency_one_a_key")]
        indexes = [models.Index(fields=["created_at"], name="idempotency_oldest")]

    def __str__(self) -> str:
        return self.key

    def attach(self, *, session: Session, execution: Execution | None = None) -> None:
        """Tie it to what its request made, in the transaction that makes it.

        Raises IdempotencyInProgress, so that nothing is made, when a repetition has taken the key over meanwhile.
        """
        if not self.ours().filter(session=None, execution=None).update(session=session, execution=execution):
            raise IdempotencyInProgress("A repetition of this request is being answered.")
        self.session, self.execution = session, execution

    def ours(self) -> models.QuerySet[IdempotencyRecord]:
        """Return the row, unless somebody has claimed it since this object was read."""
        return IdempotencyRecord.objects.filter(pk=self.pk, state=self.State.IN_PROGRESS, claimed_at=self.claimed_at)
