"""The one place where the services' exceptions get their HTTP status."""

from __future__ import annotations

from typing import Any

from rest_framework import exceptions as drf
from rest_framework import status

from sessions_app import exceptions as app
from sessions_app.limits import MAX_BODY_BYTES

STATUS: dict[type[app.SandboxwebError], int] = {
    app.InvalidInput: status.HTTP_400_BAD_REQUEST,
    app.TooLarge: status.HTTP_413_REQUEST_ENTITY_TOO_LARGE,
    app.ContextUnknown: status.HTTP_404_NOT_FOUND,
    app.Unsupported: status.HTTP_422_UNPROCESSABLE_ENTITY,
    app.Conflict: status.HTTP_409_CONFLICT,
    app.SessionGone: status.HTTP_410_GONE,
    app.QueueFull: status.HTTP_429_TOO_MANY_REQUESTS,
    app.ArtifactMissing: status.HTTP_404_NOT_FOUND,
    app.FileMissing: status.HTTP_404_NOT_FOUND,
    app.TooManyContexts: status.HTTP_429_TOO_MANY_REQUESTS,
    app.ExecutionUnknown: status.HTTP_404_NOT_FOUND,
    app.SandboxFailed: status.HTTP_502_BAD_GATEWAY,
    app.ProxyUnavailable: status.HTTP_503_SERVICE_UNAVAILABLE,
}


class ApiError(drf.APIException):
    """An error with a status, the field that it is about, and whatever else the caller needs to know."""

    def __init__(
        self,
        status_code: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        retry_after_s: int | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Keep what the answer is made of; `retry_after_s` becomes the `Retry-After` header."""
        super().__init__(detail, code)
        self.status_code = status_code
        self.field = field
        self.wait = retry_after_s
        self.extra = extra or {}


class BodyTooLargeError(ApiError):
    """The body is larger than a request may be."""

    def __init__(self) -> None:
        """Answer 413."""
        detail = f"The body is too large: at most {MAX_BODY_BYTES} bytes are taken."
        super().__init__(status.HTTP_413_REQUEST_ENTITY_TOO_LARGE, "too_large", detail)


def to_api_error(error: app.SandboxwebError) -> ApiError:
    """Return the HTTP face of an exception of the services."""
    known = next((kind for kind in type(error).__mro__ if kind in STATUS), None)
    reason = getattr(error, "termination_reason", None)
    return ApiError(
        STATUS[known] if known else status.HTTP_500_INTERNAL_SERVER_ERROR,
        error.code,
        error.message,
        field=getattr(error, "field", None),
        retry_after_s=getattr(error, "retry_after_s", None),
        extra={} if reason is None else {"termination_reason": reason},
    )
