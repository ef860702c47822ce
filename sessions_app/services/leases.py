"""Holding on to a row that is worked on for longer than its lease."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from uuid import UUID

from django.db import DatabaseError, connection

from sessions_app import clock
from sessions_app.models import Session
from sessions_app.models.session import PENDING_LEASE

logger = logging.getLogger(__name__)

# Shorter than the time after which a repeated request takes a session up whose maker seems dead.
RENEW_EVERY_S = 3.0


@contextmanager
def held_while_made(session_id: UUID) -> Iterator[None]:
    """Renew a pending session's lease for as long as the block takes: a reaper takes it from whoever died in it."""
    done = Event()
    thread = Thread(target=_renew, args=(session_id, done), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def _renew(session_id: UUID, done: Event) -> None:
    while not done.wait(RENEW_EVERY_S):
        try:
            rows = Session.objects.filter(pk=session_id, status=Session.Status.PENDING)
            if rows.update(attend_at=clock.now() + PENDING_LEASE) == 0:
                return
        except DatabaseError as error:
            logger.warning("The lease of session %s could not be renewed: %s", session_id, error)
        finally:
            # It is used for a moment every few seconds, and others may need it.
            connection.close()
