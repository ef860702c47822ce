"""The API in a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework import status
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.request import Request


class BrowsableRenderer(BrowsableAPIRenderer):
    """DRF's pages with ways on to what belongs to them, and forms that keep what was typed."""

    def get_context(
        self, data: Any, accepted_media_type: str | None, renderer_context: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Add the links of the view; a page of nothing but a form is no error to a reader."""
        view = renderer_context["view"]
        request: Request = renderer_context["request"]
        response = renderer_context["response"]
        form_only = request.method == "GET" and response.status_code == status.HTTP_405_METHOD_NOT_ALLOWED
        if form_only:
            response.status_code = status.HTTP_200_OK
        context: dict[str, Any] = super().get_context(data, accepted_media_type, renderer_context)
        links = getattr(view, "links", None)
        output = data if isinstance(data, dict) and "stdout" in data else None
        return {**context, "links": links(data) if links else [], "form_only": form_only, "output": output}

    def get_rendered_html_form(self, data: Any, view: Any, method: str, request: Request) -> Any:
        """Fill the form with what was posted, so that a mistake costs no typing."""
        if method != "POST" or request.method != "POST" or not hasattr(view, "get_serializer"):
            return super().get_rendered_html_form(data, view, method, request)
        if not self.show_form_for_method(view, method, request, None):
            return None
        return self.render_form_for_serializer(view.get_serializer(data=request.data))

    def get_filter_form(self, data: Any, view: Any, request: Request) -> Any:
        """Offer filters where there are some; the `results` of an execution are no list of rows."""
        return super().get_filter_form(data, view, request) if getattr(view, "filter_backends", ()) else None
