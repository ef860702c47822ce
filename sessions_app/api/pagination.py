"""Pages of a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import PageNumberPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


class Pages(PageNumberPagination):
    """Numbered pages, 50 rows each unless the caller asks for another size."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def paginate_queryset(
        self, queryset: QuerySet[Any, Any] | Sequence[Any], request: Request, view: APIView | None = None
    ) -> list[Any] | None:
        """Return the rows of the page that was asked for; a page that is no number is refused by name."""
        for name in (self.page_query_param, self.page_size_query_param):
            given = request.query_params.get(name)
            if given is not None and not (
                given.isascii() and given.isdigit() and int(given[:9]) > 0 and len(given) < 10
            ):
                raise ValidationError({name: "A whole number from 1."})
        return super().paginate_queryset(queryset, request, view=view)

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Say in the words of OpenAPI 3.1 that the first page has none before it, and the last none after it."""
        described: dict[str, Any] = super().get_paginated_response_schema(schema)
        for name in ("next", "previous"):
            link = described["properties"][name]
            link.pop("nullable", None)
            link["type"] = ["string", "null"]
        return described


class SessionPages(Pages):
    """Pages of sessions, which carry the bare ids beside the rows."""

    def get_paginated_response(self, data: list[dict[str, Any]]) -> Response:
        """Answer with `sessions` (ids) before the keys of every list."""
        response = super().get_paginated_response(data)
        return Response({"sessions": [row["session_id"] for row in data], **response.data})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Describe `sessions` too."""
        described: dict[str, Any] = super().get_paginated_response_schema(schema)
        ids = {"type": "array", "items": {"type": "string", "format": "uuid"}}
        described["properties"] = {"sessions": ids, **described["properties"]}
        described["required"] = ["sessions", *described.get("required", [])]
        return described
