"""Form fields that speak people's units: mebibytes, and lines instead of JSON."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from sessions_app.limits import MIB

LINES = {"rows": 4, "cols": 60, "class": "sbx-lines"}


class MebibytesField(forms.IntegerField):
    """A number of bytes, typed in MiB."""

    def prepare_value(self, value: Any) -> Any:
        """Show bytes as MiB; what somebody typed is in MiB already."""
        return value // MIB if isinstance(value, int) else value

    def to_python(self, value: Any) -> int | None:
        """Return bytes."""
        number = super().to_python(value)
        return None if number is None else number * MIB


class LinesField(forms.CharField):
    """A list of names, one a line."""

    def __init__(self, **kwargs: Any) -> None:
        """Show a small box of lines."""
        super().__init__(**{"widget": forms.Textarea(attrs=LINES), "required": False, **kwargs})

    def prepare_value(self, value: Any) -> Any:
        """Show a list as lines."""
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        """Return the lines that are not empty."""
        if isinstance(value, list):
            return value
        return [line.strip() for line in str(value or "").splitlines() if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare lists."""
        return bool(self.to_python(data) != (initial or []))


class PairsField(forms.CharField):
    """Names and their texts, `NAME=value` a line."""

    def __init__(self, **kwargs: Any) -> None:
        """Show a small box of lines."""
        super().__init__(**{"widget": forms.Textarea(attrs=LINES), "required": False, **kwargs})

    def prepare_value(self, value: Any) -> Any:
        """Show a mapping as lines."""
        return "\n".join(f"{name}={text}" for name, text in value.items()) if isinstance(value, dict) else value

    def to_python(self, value: Any) -> Any:
        """Return the mapping; refuse a line without `=`."""
        if isinstance(value, dict):
            return value
        lines = [line for line in str(value or "").splitlines() if line.strip()]
        for line in lines:
            if "=" not in line:
                raise ValidationError(f"“{line.strip()}” is not of the form NAME=value.")
        return {name.strip(): text for name, _, text in (line.partition("=") for line in lines)}

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare mappings; what cannot be read has changed."""
        try:
            return bool(self.to_python(data) != (initial or {}))
        except ValidationError:
            return True
