"""What the front page and the metrics say of the reaper's work: due, overdue, done and failing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from sessions_app.attempts import Reaper
from sessions_app.metrics import exposition
from sessions_app.models import Session
from sessions_app.overview import overview
from sessions_app.reaper import sweep
from tests.sessions_app.fake_proxy import FakeProxy

pytestmark = pytest.mark.django_db

MakeSession = Callable[..., Session]


def samples() -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition().decode())
        for sample in family.samples
    }


def test_a_session_is_due_at_its_end_and_overdue_when_no_sweep_came(make_session: MakeSession) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        make_session(idle_timeout=10), make_session(idle_timeout=20)
        seen = []
        for _ in range(5):
            now = overview()
            seen.append((now.due, now.overdue))
            clock.shift(10)
    assert seen == [(0, 0), (1, 0), (2, 0), (2, 0), (2, 1)]


def test_the_front_page_sounds_the_alarm_for_what_is_overdue(make_session: MakeSession) -> None:
    client = Client()
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        make_session(idle_timeout=10)
        client.force_login(User.objects.create_superuser("root"))
        clock.shift(10)
        assert "none overdue" in client.get("/admin/").content.decode()
        clock.shift(30)
        page = client.get("/admin/").content.decode()
    assert "1 overdue" in page
    assert 'Due</span><strong class="sbx-alarm">1</strong>' in page


def test_metrics_add_up_what_was_done_and_name_what_fails(make_session: MakeSession, proxy: FakeProxy) -> None:
    reaper = Reaper(workers=1)
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        for count in (2, 1):
            for _ in range(count):
                make_session(idle_timeout=10)
            clock.shift(10)
            sweep(reaper)
        proxy.away = True
        sweep(reaper)
        found = samples()
    assert found["sandboxweb_reaper_handled_total", "end_expired"] == 3
    assert found["sandboxweb_reaper_last_sweep", "end_expired"] == 0
    assert found["sandboxweb_reaper_step_failed", "reconcile"] == 1
    assert found["sandboxweb_reaper_sweeps_total",] == 3
    assert (found["sandboxweb_sessions_due",], found["sandboxweb_sessions_overdue",]) == (0, 0)
