"""The warm pool's wish: from the templates to the proxy."""

from __future__ import annotations

from typing import Any

from sessions_app.attempts import Reaper
from sessions_app.models import SandboxTemplate, Session
from sessions_app.reaper import sweep
from tests.sessions_app.fake_proxy import FakeProxy

ONE = Reaper(workers=1)


def test_a_sweep_sets_the_pool(proxy: FakeProxy, db: None) -> None:
    SandboxTemplate.objects.create(name="mine", warm_pool_size=3, memory_bytes=2**26)
    SandboxTemplate.objects.create(name="off", warm_pool_size=3, is_enabled=False)
    sweep(ONE)
    assert proxy.pool is not None
    assert {target["template"]: target["warm_pool_size"] for target in proxy.pool} == {"python": 2, "mine": 3}
    (mine,) = [target for target in proxy.pool if target["template"] == "mine"]
    assert mine["limits"]["memory_bytes"] == 2**26


def test_a_session_asks_for_what_the_pool_holds(proxy: FakeProxy, session: Session) -> None:
    sweep(ONE)
    assert proxy.pool is not None
    (target,) = proxy.pool
    asked = proxy.made[str(session.pk)]
    assert {key: asked[key] for key in target if key != "warm_pool_size"} == {
        key: value for key, value in target.items() if key != "warm_pool_size"
    }


def test_a_saved_template_sets_the_pool_at_once(
    proxy: FakeProxy, db: None, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        SandboxTemplate.objects.filter(name="python").get().save()
    assert proxy.pool is not None
    proxy.away = True
    with django_capture_on_commit_callbacks(execute=True):
        SandboxTemplate.objects.create(name="mine", warm_pool_size=1)
    assert SandboxTemplate.objects.filter(name="mine").exists()
