"""The one place where exceptions become HTTP answers."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse


def error_body(kind: str, code: str, detail: str, attr: str | None = None) -> dict[str, object]:
    """Return the body of an error answer with one error in it."""
    return {"type": kind, "errors": [{"code": code, "detail": detail, "attr": attr}]}


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form that came without its CSRF token."""
    return JsonResponse(
        error_body("client_error", "csrf_failed", f"CSRF verification failed. {reason}".strip()), status=403
    )
