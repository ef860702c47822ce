"""Fields that take JSON strictly and a browser's form kindly."""

from __future__ import annotations

import math
from typing import Any

from rest_framework import serializers
from rest_framework.fields import empty
from rest_framework.utils import html


class TextField(serializers.CharField):
    """Text as it was sent: nothing stripped, and nothing but a string taken for one.

    A browser sends the lines of a form with CR LF; the code was typed with plain line ends and gets them back.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Take text as it comes, white space included."""
        kwargs.setdefault("trim_whitespace", False)
        super().__init__(**kwargs)

    def get_value(self, dictionary: Any) -> Any:
        """Read the value, with a form's line ends made plain."""
        value = super().get_value(dictionary)
        if html.is_html_input(dictionary) and isinstance(value, str):
            return value.replace("\r\n", "\n")
        return value

    def to_internal_value(self, data: Any) -> str:
        """Refuse numbers and other things that would pass for text."""
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class LinesField(serializers.ListField):
    """A list of short texts; in a form one a line, or separated by commas."""

    def __init__(self, **kwargs: Any) -> None:
        """Show the field of a form as lines."""
        kwargs.setdefault("style", {"template": "sandboxweb/api/lines.html"})
        super().__init__(**kwargs)

    def get_value(self, dictionary: Any) -> Any:
        """Read a list from JSON, or the lines of a form."""
        if not html.is_html_input(dictionary):
            return dictionary.get(self.field_name, empty)
        if self.field_name not in dictionary:
            return empty
        text = ",".join(dictionary.getlist(self.field_name))
        return [part.strip() for line in text.splitlines() for part in line.split(",") if part.strip()]


class MapField(serializers.DictField):
    """Names and their texts; in a form `NAME=value`, one a line."""

    def __init__(self, **kwargs: Any) -> None:
        """Show the field of a form as lines, and take nothing but text for a value."""
        kwargs.setdefault("child", TextField(allow_blank=True))
        kwargs.setdefault("style", {"template": "sandboxweb/api/pairs.html"})
        super().__init__(**kwargs)

    def get_value(self, dictionary: Any) -> Any:
        """Read an object from JSON, or the pairs of a form."""
        if not html.is_html_input(dictionary):
            return dictionary.get(self.field_name, empty)
        if self.field_name not in dictionary:
            return empty
        lines = [line for line in str(dictionary[self.field_name]).splitlines() if line.strip()]
        if any("=" not in line for line in lines):
            # Not a mapping: the field's own validation says so, under its name.
            return lines
        return {name.strip(): value for name, _, value in (line.partition("=") for line in lines)}


class SecondsField(serializers.FloatField):
    """A finite duration in seconds, above zero."""

    def to_internal_value(self, data: Any) -> float:
        """Refuse what Python would take for a number and a caller would not."""
        if isinstance(data, bool):
            self.fail("invalid")
        value = float(super().to_internal_value(data))
        if not math.isfinite(value):
            self.fail("invalid")
        if value <= 0:
            raise serializers.ValidationError("A time-out must be more than 0 seconds.", code="min_value")
        return value
