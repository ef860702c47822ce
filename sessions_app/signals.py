"""What follows from a change of a row that was not made by a service."""

from __future__ import annotations

import logging
from functools import partial

from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from sessions_app.exceptions import SandboxwebError
from sessions_app.models import Artifact, SandboxTemplate
from sessions_app.services.artifacts import remove_bytes
from sessions_app.services.pool import push_pool

logger = logging.getLogger(__name__)


@receiver([post_save, post_delete], sender=SandboxTemplate, dispatch_uid="push_pool_when_a_template_changes")
def push_pool_when_a_template_changes(**_kwargs: object) -> None:
    """Have a new pool size take effect at once; the reaper says it again in every sweep."""
    transaction.on_commit(_push_pool, robust=True)


@receiver(post_delete, sender=Artifact, dispatch_uid="remove_bytes_of_a_deleted_artifact")
def remove_bytes_of_a_deleted_artifact(instance: Artifact, **_kwargs: object) -> None:
    """Have the bytes go with their row, once it is certain that it went."""
    transaction.on_commit(partial(remove_bytes, instance.pk), robust=True)


def _push_pool() -> None:
    try:
        push_pool()
    except SandboxwebError as error:
        logger.warning("The warm pool's new sizes wait for the reaper: %s", error)
