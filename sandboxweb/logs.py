"""Logs without secrets."""

from __future__ import annotations

import logging
import re

# Keys of this service, bearer tokens, and anything that calls itself a password, token or secret.
SECRETS = re.compile(
    r"(?P<name>\bbearer\s+|\b(?:password|token|secret|authorization|x-api-key)[\"']?\s*[:=]\s*[\"']?(?:bearer\s+)?)(?P<value>[^\s\"',;&]+)"
    r"|\bsbx_[A-Za-z0-9._-]{8,}",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return `text` with every secret in it replaced by asterisks."""
    return SECRETS.sub(lambda match: f"{match.group('name') or 'sbx_'}***", text)


class LineFormatter(logging.Formatter):
    """Write a record, its trace included, without the secrets in it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the finished text, redacted."""
        return redact(super().format(record))
