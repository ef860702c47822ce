"""ApiKey: what a program shows to act for a user."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from rest_framework_api_key.crypto import KeyGenerator, concatenate
from rest_framework_api_key.models import AbstractAPIKey, BaseAPIKeyManager

KEY_START = "sbx_"
LAST_USED_RESOLUTION = timedelta(minutes=1)


class SbxKeyGenerator(KeyGenerator):
    """Make keys that secret scanners and people recognise: `sbx_PREFIX.SECRET`."""

    def generate(self) -> tuple[str, str, str]:
        """Return the key, its public prefix and its hash."""
        prefix = self.get_prefix()
        key = KEY_START + concatenate(prefix, self.get_secret_key())
        return key, prefix, self.hash(key)


class ApiKeyManager(BaseAPIKeyManager):
    """Find keys together with their owner, in one query."""

    key_generator = SbxKeyGenerator()

    def get_from_key(self, key: str) -> ApiKey:
        """Return the usable key with its owner; raise `ApiKey.DoesNotExist` for any other, expired ones included."""
        prefix = key.removeprefix(KEY_START).partition(".")[0]
        if not key.startswith(KEY_START) or not prefix.isalnum():
            raise self.model.DoesNotExist
        api_key: ApiKey = self.get_usable_keys().select_related("owner").get(prefix=prefix)
        if not api_key.is_valid(key) or api_key.has_expired or not api_key.owner.is_active:
            raise self.model.DoesNotExist
        return api_key


class ApiKey(AbstractAPIKey):
    """Belong to a user; kept as a hash, shown once."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys")
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects: ClassVar[ApiKeyManager] = ApiKeyManager()  # type: ignore[assignment]  # a manager of its own, by design

    class Meta(AbstractAPIKey.Meta):
        verbose_name = "API key"
        verbose_name_plural = "API keys"

    def touch(self) -> None:
        """Note that the key was used, to the minute: a write for every request would cost more than it tells."""
        now = timezone.now()
        if self.last_used_at and now - self.last_used_at < LAST_USED_RESOLUTION:
            return
        stale = Q(last_used_at=None) | Q(last_used_at__lte=now - LAST_USED_RESOLUTION)
        ApiKey.objects.filter(stale, pk=self.pk).update(last_used_at=now)
        self.last_used_at = now
