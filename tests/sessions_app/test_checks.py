"""System checks: each finds its misconfiguration, and none speaks without one."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import connection

from sessions_app import checks
from sessions_app.models import SandboxTemplate, TimeoutPolicy


def found(**options: Any) -> set[str]:
    messages = run_checks(databases=["default"], **options)
    return {str(message.id) for message in messages if str(message.id).startswith("sessions_app.")}


@pytest.fixture(autouse=True)
def configured(settings: Any, db: None) -> None:
    settings.PROXY_URL, settings.PROXY_TOKEN = "http://127.0.0.1:8000", "token"


def test_a_good_configuration_is_silent() -> None:
    assert found(include_deployment_checks=True) == set()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x", "http://"])
def test_an_address_that_is_none(settings: Any, url: str) -> None:
    settings.PROXY_URL = url
    assert found() == {checks.E001}


def test_an_empty_token(settings: Any) -> None:
    settings.PROXY_TOKEN = ""
    assert found() == {checks.W001}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy.example:8000", {checks.W002}),
        ("http://10.0.0.1:8000", {checks.W002}),
        ("https://proxy.example", set()),
        ("http://localhost:8000", set()),
        ("http://[::1]:8000", set()),
    ],
)
def test_a_token_in_clear(settings: Any, url: str, expected: set[str]) -> None:
    settings.PROXY_URL = url
    assert found(include_deployment_checks=True) == expected


def test_missing_defaults() -> None:
    TimeoutPolicy.objects.update(is_default=False)
    SandboxTemplate.objects.update(is_default=False)
    assert found() == {checks.W003, checks.W004}


def test_sqlite_without_immediate_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})
    assert found() == ({checks.E002} if connection.vendor == "sqlite" else set())
