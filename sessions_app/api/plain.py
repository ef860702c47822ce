"""Answers from outside the REST framework: unknown addresses, forms without a token, and what broke."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import Resolver404, resolve

TITLES = {400: "Bad request", 403: "Not allowed", 404: "Nothing here", 500: "Something broke"}


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer for an address that is none."""
    detail = "There is nothing at this address."
    bare = request.path.rstrip("/")
    if bare and bare != request.path and _is_address(bare):
        detail = f"Paths bear no trailing slash: this one is {bare}"
    return _answer(request, 404, "not_found", detail)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer a request that Django itself refused."""
    return _answer(request, 400, "bad_request", "The request cannot be read, or came for another host.")


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer one who may not."""
    return _answer(request, 403, "permission_denied", "You do not have permission to do this.")


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer for a fault of ours, without its trace."""
    return _answer(request, 500, "error", "Server Error (500)")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form that came without its CSRF token."""
    return _answer(request, 403, "csrf_failed", f"The form's token is missing or old: load the page again. {reason}")


def _answer(request: HttpRequest, status: int, code: str, detail: str) -> HttpResponse:
    if request.accepts("text/html") and "text/html" in request.headers.get("accept", ""):
        page = {"status": status, "title": TITLES[status], "detail": detail}
        return render(None, "sandboxweb/error.html", page, status=status)
    kind = "server_error" if status >= 500 else "client_error"
    return JsonResponse({"type": kind, "errors": [{"code": code, "detail": detail, "attr": None}]}, status=status)


def _is_address(path: str) -> bool:
    try:
        resolve(path)
    except Resolver404:
        return False
    return True
