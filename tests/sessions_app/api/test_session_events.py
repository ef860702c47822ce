"""What happened to a session, over HTTP."""

from __future__ import annotations

import pytest
import time_machine

from sessions_app import reaper
from sessions_app.attempts import Reaper
from sessions_app.models import Session
from tests.sessions_app.api.conftest import Caller

pytestmark = pytest.mark.django_db


def test_a_sessions_events_tell_of_its_approaching_end(api: Caller) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        session_id = api.post("/sessions", {"idle_timeout": 100}).json()["session_id"]
        clock.shift(80)
        reaper.announce_ends(Reaper(workers=1))
        clock.shift(1)
        api.post(f"/sessions/{session_id}/renew", {})
        api("delete", f"/sessions/{session_id}")
        rows = api.get(f"/sessions/{session_id}/events").json()["results"]
    assert [(row["type"], row["to_status"], row["reason"]) for row in rows] == [
        ("session_state", "terminated", "user"),
        ("session_state", "terminating", "user"),
        ("renewed", None, None),
        ("expiring", None, "idle"),
        ("session_state", "active", None),
    ]
    assert rows[3]["data"] == {"expires_at": "2030-01-01T00:01:40Z"}
    assert (rows[3]["actor"], rows[3]["created_at"]) == ("reaper", "2030-01-01T00:01:20Z")


def test_they_come_in_pages_and_name_the_execution(api: Caller, session: Session) -> None:
    execution_id = api.post(f"/sessions/{session.pk}/execute", {"code": "1"}).json()["execution_id"]
    page = api.get(f"/sessions/{session.pk}/events?page_size=1").json()
    assert (page["count"], page["results"][0]["execution_id"]) == (2, execution_id)
    assert api.get(f"/sessions/{session.pk}/events?page=nonsense").status_code == 400


def test_they_are_their_owners_alone(api: Caller, stranger: Caller, session: Session) -> None:
    assert stranger.get(f"/sessions/{session.pk}/events").status_code == 404
    assert api.get("/sessions/nothing/events").status_code == 404
