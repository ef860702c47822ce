"""Standard input for code that runs, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ValidationError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from sessions_app.api import docs
from sessions_app.api.parsers import BoundedFormParser, BoundedJSONParser, read_bounded
from sessions_app.api.serializers import SendStdin
from sessions_app.api.sessions import Links
from sessions_app.api.views import ApiView, own_execution
from sessions_app.services.stdin import encoded, send_stdin

TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no", "")


class BytesParser(BaseParser):
    """A body that is nothing but bytes."""

    media_type = "application/octet-stream"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return them."""
        return read_bounded(stream)


class ExecutionStdin(ApiView):
    """Send standard input to code that runs: text as JSON, or bytes."""

    name = "Standard input"
    serializer_class = SendStdin
    parser_classes = (BoundedJSONParser, BoundedFormParser, BytesParser)

    @docs.send_stdin
    def post(self, request: Request, execution_id: str) -> Response:
        """Send."""
        execution = own_execution(request, execution_id)
        if isinstance(request.data, bytes):
            data, eof = request.data, _eof(request)
        else:
            given = self.given(request)
            data, eof = encoded(given.get("data", "")), given["eof"]
        unread = send_stdin(execution=execution, data=data, eof=eof)
        return Response({"execution_id": str(execution.pk), "unread_bytes": unread, "eof": eof})

    def links(self, data: Any) -> Links:
        """Lead back to it."""
        return [("Execution", f"/executions/{self.kwargs['execution_id']}")]


def _eof(request: Request) -> bool:
    text = request.query_params.get("eof", "").lower()
    if text not in TRUE + FALSE:
        raise ValidationError({"eof": "`true` or `false`."})
    return text in TRUE
