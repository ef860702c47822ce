"""The wish for ready sandboxes, as the templates state it."""

from __future__ import annotations

from typing import Any

from sessions_app.models import SandboxTemplate
from sessions_app.proxy_client import proxy
from sessions_app.services.connections import release_connection


def pool_targets() -> list[dict[str, Any]]:
    """Return every pooled template with its size: whatever is not named has no pool."""
    pooled = SandboxTemplate.objects.pooled()
    return [{**template.spec(), "warm_pool_size": template.warm_pool_size} for template in pooled]


def push_pool() -> int:
    """Tell the proxy; return how many templates have a pool. Saying it again changes nothing there."""
    targets = pool_targets()
    release_connection()
    proxy().put_pool(targets)
    return len(targets)
