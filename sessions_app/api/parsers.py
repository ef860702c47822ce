"""Bodies of requests, read with a bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from django.http import QueryDict
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.parsers import (  # type: ignore[attr-defined]  # newer than the stubs
    FormParser,
    JSONParser,
    get_encoding,
)
from rest_framework.utils import json

from sessions_app import limits
from sessions_app.api.errors import BodyTooLargeError


def read_bounded(stream: IO[bytes]) -> bytes:
    """Return the whole body; refuse one of more than `limits.MAX_BODY_BYTES`."""
    body = stream.read(limits.MAX_BODY_BYTES + 1)
    if len(body) > limits.MAX_BODY_BYTES:
        raise BodyTooLargeError
    return body


class BoundedJSONParser(JSONParser):
    """JSON of a bounded size and depth."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the body's value; whatever is wrong with it is a 400 or a 413."""
        body = read_bounded(stream)
        try:
            return json.loads(body.decode(get_encoding(parser_context or {})), parse_constant=json.strict_constant)
        except RecursionError as error:
            raise ParseError("JSON parse error - nested too deeply") from error
        except ValueError as error:
            raise ParseError(f"JSON parse error - {error}") from error


class BoundedFormParser(FormParser):
    """A form of a bounded size; JSON that was sent under a form's name is told so."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the form's fields."""
        body = read_bounded(stream)
        if body.lstrip()[:1] in (b"{", b"["):
            raise UnsupportedMediaType(
                self.media_type, "The body looks like JSON: send it with `Content-Type: application/json`."
            )
        return QueryDict(body, encoding=get_encoding(parser_context or {}))
