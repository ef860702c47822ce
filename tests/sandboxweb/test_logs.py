"""Logs without secrets."""

from __future__ import annotations

import logging

import pytest

from sandboxweb.logs import LineFormatter, redact


@pytest.mark.parametrize(
    "text",
    [
        "key sbx_AbCd1234.SECRETSECRETSECRET was used",
        "Authorization: Bearer SECRETSECRETSECRET",
        "headers={'X-API-Key': 'SECRETSECRETSECRET'}",
        "postgres said password=SECRETSECRETSECRET;",
        '{"token": "SECRETSECRETSECRET"}',
    ],
)
def test_a_secret_is_redacted(text: str) -> None:
    assert "SECRET" not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize("text", ["GET /sessions 200", "a token was refused", "Bearer of news", "the secret garden"])
def test_other_text_stays_readable(text: str) -> None:
    assert redact(text).split()[0] == text.split()[0]
    assert redact("a token was refused") == "a token was refused"


def test_a_trace_is_redacted_too() -> None:
    try:
        raise ValueError("token=SECRETSECRET")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "%s failed", ("it",), (type(error), error, None))
    text = LineFormatter("{message}", style="{").format(record)
    assert "it failed" in text
    assert "ValueError" in text
    assert "SECRET" not in text
