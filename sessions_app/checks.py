"""System checks: misconfiguration is said at start, with an id, before anybody's request finds it."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, connections

E001 = "sessions_app.E001"
E002 = "sessions_app.E002"
W001 = "sessions_app.W001"
W002 = "sessions_app.W002"
W003 = "sessions_app.W003"
W004 = "sessions_app.W004"


@register()
def proxy_is_configured(**_kwargs: Any) -> Iterable[CheckMessage]:
    """The app must know where the proxy is and how to show itself there."""
    parts = urlsplit(settings.PROXY_URL)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield Error(
            f"PROXY_URL is {settings.PROXY_URL!r}, which is no HTTP address.",
            hint="Give it as http://127.0.0.1:8000.",
            id=E001,
        )
    if not settings.PROXY_TOKEN:
        yield Warning(
            "PROXY_TOKEN is empty, so the proxy will refuse every request and no code can run.",
            hint="Set it to the token that the proxy was started with; start_all.sh does.",
            id=W001,
        )


@register(Tags.security, deploy=True)
def token_is_not_sent_in_clear(**_kwargs: Any) -> Iterable[CheckMessage]:
    """Beyond this machine the proxy's token travels in TLS only."""
    parts = urlsplit(settings.PROXY_URL)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        yield Warning(
            f"The proxy's token is sent to {parts.hostname} unencrypted.",
            hint="Use https://, or keep the network between the two servers private.",
            id=W002,
        )


@register(Tags.database)
def sqlite_takes_its_lock_first(databases: Iterable[str] | None = None, **_kwargs: Any) -> Iterable[CheckMessage]:
    """Without IMMEDIATE transactions two writers on SQLite fail each other half-way."""
    for alias in databases or ():
        options = connections[alias].settings_dict.get("OPTIONS", {})
        if connections[alias].vendor == "sqlite" and options.get("transaction_mode") != "IMMEDIATE":
            yield Error(
                f"The SQLite database {alias!r} does not use IMMEDIATE transactions.",
                hint='Set OPTIONS["transaction_mode"] = "IMMEDIATE".',
                id=E002,
            )


@register(Tags.database)
def defaults_exist(databases: Iterable[str] | None = None, **_kwargs: Any) -> Iterable[CheckMessage]:
    """A session that names nothing needs a default policy and a default template."""
    from sessions_app.models import SandboxTemplate, TimeoutPolicy

    if "default" not in (databases or ()):
        return
    try:
        has_policy = TimeoutPolicy.objects.filter(is_default=True).exists()
        has_template = SandboxTemplate.objects.enabled().filter(is_default=True).exists()
    except DatabaseError:
        return  # not migrated yet
    if not has_policy:
        yield Warning(
            "No time-out policy is the default; built-in numbers hold.",
            hint="Mark one as the default in the admin.",
            id=W003,
        )
    if not has_template:
        yield Warning(
            "No enabled template is the default of a language, so sessions must name theirs.",
            hint="Mark one as the default in the admin.",
            id=W004,
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
