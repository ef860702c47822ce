"""What follows from a change of a row that was not made by a service."""

from __future__ import annotations

import logging

from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from sessions_app.exceptions import SandboxwebError
from sessions_app.models import SandboxTemplate
from sessions_app.services.pool import push_pool

logger = logging.getLogger(__name__)


@receiver([post_save, post_delete], sender=SandboxTemplate, dispatch_uid="push_pool_when_a_template_changes")
def push_pool_when_a_template_changes(**_kwargs: object) -> None:
    """Have a new pool size take effect at once; the reaper says it again in every sweep."""
    transaction.on_commit(_push_pool, robust=True)


def _push_pool() -> None:
    try:
        push_pool()
    except SandboxwebError as error:
        logger.warning("The warm pool's new sizes wait for the reaper: %s", error)
