"""What this server can run: the languages that have a template and that the proxy's backend can run now."""

from __future__ import annotations

from typing import Any

from sessions_app.exceptions import SandboxwebError
from sessions_app.models import SandboxTemplate
from sessions_app.proxy_client import proxy
from sessions_app.services.connections import release_connection


def languages() -> list[dict[str, Any]]:
    """Return each language with its version. Raises ProxyUnavailable."""
    ours = _with_template()
    release_connection()
    return [language for language in proxy().languages() if language.get("lang") in ours]


def names() -> list[str]:
    """Return the languages' names; while the proxy is away, of all that have a template."""
    try:
        return sorted(str(language["lang"]) for language in languages())
    except SandboxwebError:
        return sorted(_with_template())


def _with_template() -> set[str]:
    templates = SandboxTemplate.objects.enabled().filter(is_default=True)
    return set(templates.values_list("lang", flat=True))
