"""Whoever watches a session hears that it is about to end."""

from __future__ import annotations

from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async

from sessions_app import watching
from sessions_app.api.bodies import instant
from sessions_app.models import Session
from sessions_app.services.sessions import renew_session
from tests.sessions_app.test_consumers import key, socket

__all__ = ["key"]

# Sockets work on threads of their own, which see only what is committed.
pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


def announce(session: Session) -> str:
    """Do what the reaper does with a session that is about to end; return its deadline."""
    session.refresh_from_db()
    assert session.announce_end(actor="reaper")
    return str(instant(session.expires_at))


async def test_each_announcement_is_heard_once(
    session: Session, key: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "ANNOUNCEMENTS_EVERY_S", 0.02)
    first = await sync_to_async(announce)(session)
    async with socket(session.pk, key) as client, socket(session.pk, key) as other:
        for one in (client, other):
            await one.hear_until("ready")
            (heard,) = await one.hear_until("expiring")
            assert heard == {
                "type": "expiring",
                "session_id": str(session.pk),
                "expires_at": first,
                "reason": "idle",
            }
        renewed = await sync_to_async(renew_session)(session=session, idle_timeout=600, actor="api")
        assert renewed.expires_at > session.created_at + timedelta(seconds=500)  # type: ignore[operator]
        second = await sync_to_async(announce)(session)
        (heard,) = await client.hear_until("expiring")
        assert heard["expires_at"] == second != first
        await client.say({"type": "nonsense"})
        assert [message["type"] for message in await client.hear_until("error")] == ["error"]


async def test_an_end_that_was_moved_since_is_not_told(
    session: Session, key: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    await sync_to_async(announce)(session)
    await sync_to_async(renew_session)(session=session, idle_timeout=600, actor="api")
    assert await sync_to_async(watching._announced)(session.pk) is None
