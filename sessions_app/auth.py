"""Who is asking: keys of programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed

from sessions_app.models import ApiKey
from sessions_app.models.api_key import KEY_START
from sessions_app.prepared import Parameter, Prepared

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from rest_framework.request import Request

KEY_HEADER = "X-API-Key"
SCHEME = "bearer"

USABLE_KEY: Prepared[ApiKey] = Prepared(
    lambda: ApiKey.objects.get_usable_keys().select_related("owner").filter(prefix=Parameter("prefix")),
    prefix=lambda: ApiKey._meta.get_field("prefix"),
)


def key_of(authorization: str, api_key: str) -> str | None:
    """Return the key that two headers carry, `Authorization` first; None when neither has one."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == SCHEME:
        return credentials.strip()
    return api_key.strip() or None


def owner_of(raw_key: str) -> ApiKey | None:
    """Return the usable key, with its owner, and note its use; None for any other text."""
    prefix = raw_key.removeprefix(KEY_START).partition(".")[0]
    if not raw_key.startswith(KEY_START) or not prefix.isalnum():
        return None
    api_key = USABLE_KEY.first(prefix=prefix)
    if api_key is None or not api_key.is_valid(raw_key) or api_key.has_expired or not api_key.owner.is_active:
        return None
    api_key.touch()
    return api_key


class ApiKeyAuthentication(BaseAuthentication):
    """Take `Authorization: Bearer sbx_…` or `X-API-Key: sbx_…`."""

    def authenticate(self, request: Request) -> tuple[User, ApiKey] | None:
        """Return the key's owner and the key; None when there is no key at all."""
        raw_key = key_of(request.headers.get("Authorization", ""), request.headers.get(KEY_HEADER, ""))
        if raw_key is None:
            return None
        api_key = owner_of(raw_key)
        if api_key is None:
            raise AuthenticationFailed("This API key is unknown, expired or revoked.")
        return api_key.owner, api_key

    def authenticate_header(self, request: Request) -> str:
        """Name the scheme: so a request without a key is answered 401, not 403."""
        return 'Bearer realm="sandboxweb"'
