"""UserPolicy: the time-out policy of one user, whatever they make sessions from."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from sessions_app.models.policy import TimeoutPolicy


class UserPolicy(models.Model):
    """Hold a user to a policy, in the place of the template's."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="own_timeout_policy")
    policy = models.ForeignKey(TimeoutPolicy, on_delete=models.PROTECT, related_name="user_policies")

    class Meta:
        verbose_name_plural = "user policies"
        ordering = ["user"]

    def __str__(self) -> str:
        return f"{self.user}: {self.policy}"
