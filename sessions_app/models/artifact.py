"""Artifact: bytes that an execution left, kept when its sandbox is gone."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from sessions_app import clock
from sessions_app.models.execution import Execution
from sessions_app.models.session import Session
from sessions_app.querysets import ArtifactQuerySet


class Artifact(models.Model):
    """Know whose bytes lie where, and for how long. The bytes are a file that bears the row's id."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="artifacts")
    # It may outlive the rows of both.
    session = models.ForeignKey(Session, null=True, on_delete=models.SET_NULL, related_name="artifacts")
    execution = models.ForeignKey(Execution, null=True, on_delete=models.SET_NULL, related_name="kept_artifacts")
    name = models.CharField(max_length=255)
    path = models.TextField(blank=True, help_text="Where it lay in the workspace; empty for what was no file there.")
    content_type = models.CharField(max_length=100)
    size = models.PositiveBigIntegerField("size (bytes)")
    sha256 = models.CharField("SHA-256", max_length=64)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="When it is removed; never, if empty.")

    objects = ArtifactQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            # Whoever settles an execution keeps its artifacts; two that do it at once keep them once.
            models.UniqueConstraint(fields=["execution", "path", "name"], name="artifact_once_an_execution"),
        ]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="artifact_newest"),
            models.Index(fields=["owner", "-created_at", "-id"], name="artifact_newest_of_owner"),
            models.Index(fields=["session", "-created_at", "-id"], name="artifact_newest_of_session"),
            models.Index(fields=["expires_at"], condition=models.Q(expires_at__isnull=False), name="artifact_expires"),
        ]

    def __str__(self) -> str:
        return self.name
