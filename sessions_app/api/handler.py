"""The one shape of every error answer of the API."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import HttpResponseRedirect
from django.utils.http import urlencode
from drf_standardized_errors.formatter import ExceptionFormatter
from drf_standardized_errors.handler import ExceptionHandler
from rest_framework import exceptions as drf
from rest_framework import status
from rest_framework.response import Response

from sessions_app.api.errors import ApiError, BodyTooLargeError, to_api_error
from sessions_app.exceptions import SandboxwebError

logger = logging.getLogger(__name__)


class ApiExceptionHandler(ExceptionHandler):
    """Turn the services' exceptions, and Django's, into the one shape of errors."""

    def convert_known_exceptions(self, exc: Exception) -> Exception:
        """Return the DRF exception for one that we know."""
        match exc:
            case SandboxwebError():
                return to_api_error(exc)
            case RequestDataTooBig():
                return BodyTooLargeError()
            case SuspiciousOperation():
                return drf.ParseError("The request cannot be read.")
            case OperationalError() | InterfaceError():
                logger.exception("The database cannot serve a request")
                return ApiError(503, "database_unavailable", "The database is not available.", retry_after_s=2)
            case _:
                converted: Exception = super().convert_known_exceptions(exc)
                return converted

    def get_response(self, exc: drf.APIException, data: dict[str, Any]) -> Any:
        """Answer; a reader who is not logged in is shown the way to."""
        request = self.context["request"]
        renderer = getattr(request, "accepted_renderer", None)
        if request is not None and isinstance(exc, drf.NotAuthenticated) and getattr(renderer, "format", None) == "api":
            return HttpResponseRedirect(f"/login?{urlencode({'next': request.get_full_path()})}")
        return Response(data, status=exc.status_code, headers=self.get_headers(exc))

    def report_exception(self, exc: drf.APIException, response: Response) -> None:
        """Log what nobody foresaw with its trace; what the services raised was said in full."""
        if isinstance(exc, ApiError):
            if exc.status_code >= status.HTTP_500_INTERNAL_SERVER_ERROR:
                logger.warning("%s %s: %s", exc.status_code, exc.get_codes(), exc.detail)
            return
        super().report_exception(exc, response)


class ApiExceptionFormatter(ExceptionFormatter):
    """Name the field of errors that are no validation errors too, and add what belongs to them."""

    def run(self) -> dict[str, Any]:
        """Return the body of the answer."""
        body: dict[str, Any] = super().run()
        if isinstance(self.exc, ApiError):
            if self.exc.status_code == status.HTTP_400_BAD_REQUEST:
                body["type"] = "validation_error"
            for error in body["errors"]:
                error["attr"] = self.exc.field
            body |= self.exc.extra
        return body
