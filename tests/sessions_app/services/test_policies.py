"""Which policy holds for whom, and when a change of it takes effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError
from django.db.models import ProtectedError

from sessions_app.exceptions import InvalidInput
from sessions_app.models import SandboxTemplate, Session, TimeoutPolicy, UserPolicy
from sessions_app.services.executions import run_once, submit_execution
from sessions_app.services.policies import policy_for
from sessions_app.services.sessions import renew_session, update_session
from tests.sessions_app.fake_proxy import FakeProxy

MakeSession = Callable[..., Session]

pytestmark = pytest.mark.django_db


def policy(name: str, idle_s: int, **values: int) -> TimeoutPolicy:
    """Make a policy whose idle time-out is `idle_s`, and twice that at most."""
    return TimeoutPolicy.objects.create(
        name=name, **{"idle_timeout_default_s": idle_s, "idle_timeout_max_s": 2 * idle_s, **values}
    )


def terms_of(session: Session) -> tuple[int, int, int]:
    return session.idle_timeout_s, session.max_lifetime_s, session.execution_timeout_s


def test_the_users_policy_goes_before_the_templates_and_that_before_the_default(owner: User) -> None:
    own, named = policy("own", 10), policy("named", 20)
    plain = SandboxTemplate.objects.get(name="python")
    special = SandboxTemplate(name="special", timeout_policy=named)
    default = TimeoutPolicy.objects.get(is_default=True)
    assert policy_for(owner_id=owner.pk, template=plain) == default
    assert policy_for(owner_id=owner.pk, template=special) == named
    UserPolicy.objects.create(user=owner, policy=own)
    assert policy_for(owner_id=owner.pk, template=plain) == own
    assert policy_for(owner_id=owner.pk, template=special) == own
    other = User.objects.create_user("eve")
    assert policy_for(owner_id=other.pk, template=special) == named


def test_without_any_policy_the_built_in_numbers_hold(owner: User) -> None:
    TimeoutPolicy.objects.all().delete()
    assert policy_for(owner_id=owner.pk, template=SandboxTemplate()).idle_timeout_default_s == 300


def test_a_user_has_one_policy_and_one_in_use_is_not_deleted(owner: User) -> None:
    own = policy("own", 10)
    UserPolicy.objects.create(user=owner, policy=own)
    with pytest.raises(ProtectedError):
        own.delete()
    with pytest.raises(IntegrityError):
        UserPolicy.objects.create(user=owner, policy=own)


def test_the_users_ceilings_hold_for_everything_they_may_ask_for(
    owner: User, make_session: MakeSession, proxy: FakeProxy
) -> None:
    own = policy("own", 10, execution_timeout_default_s=5, execution_timeout_max_s=6, max_lifetime_max_s=3600)
    UserPolicy.objects.create(user=owner, policy=own)
    session = make_session()
    assert terms_of(session) == (10, 3600, 5)
    asked: list[tuple[str, int, Callable[[], Any]]] = [
        ("idle_timeout", 20, lambda: make_session(idle_timeout=21)),
        ("max_lifetime", 3600, lambda: make_session(max_lifetime=3601)),
        ("idle_timeout", 20, lambda: renew_session(session=session, idle_timeout=21, actor="api")),
        ("idle_timeout", 20, lambda: update_session(session=session, idle_timeout=21, actor="api")),
        ("max_lifetime", 3600, lambda: update_session(session=session, max_lifetime=3601, actor="api")),
        ("execution_timeout", 6, lambda: update_session(session=session, execution_timeout=7, actor="api")),
        ("timeout", 6, lambda: submit_execution(session=session, code="1", timeout=7, actor="api")),
        ("timeout", 6, lambda: run_once(owner=owner, code="1", timeout=7, actor="api")),
    ]
    for field, most, ask in asked:
        with pytest.raises(InvalidInput) as caught:
            ask()
        assert (caught.value.field, f"at most {most} s" in caught.value.message) == (field, True), field
    assert Session.objects.count() == 1


def test_a_changed_policy_counts_from_the_next_renewal_on(make_session: MakeSession) -> None:
    session = make_session(idle_timeout=1000)
    assert terms_of(session) == (1000, 3600, 30)
    TimeoutPolicy.objects.update(idle_timeout_default_s=60, idle_timeout_max_s=90, max_lifetime_default_s=7200)
    session.refresh_from_db()
    assert terms_of(session) == (1000, 3600, 30)
    renew_session(session=session, actor="api")
    # What its user chose is cut to the ceiling; what they left to the policy follows it.
    assert terms_of(session) == (90, 7200, 30)
    assert session.expires_at == session.last_activity_at + (session.lifetime_ends_at - session.started_at) / 80  # type: ignore[operator]
    event = session.events.get(type="renewed")
    assert event.data == {"idle_timeout_s": 90, "max_lifetime_s": 7200}
    assert terms_of(make_session()) == (60, 7200, 30)


def test_a_wish_at_the_renewal_is_remembered_at_the_next(make_session: MakeSession) -> None:
    session = make_session()
    renew_session(session=session, idle_timeout=500, actor="api")
    update_session(session=session, execution_timeout=50, actor="api")
    renew_session(session=session, actor="api")
    assert terms_of(session) == (500, 3600, 50)


def test_a_user_whose_policy_is_set_later_is_held_to_it_at_the_renewal(owner: User, make_session: MakeSession) -> None:
    session = make_session()
    UserPolicy.objects.create(user=owner, policy=policy("own", 10))
    renew_session(session=session, actor="api")
    assert session.idle_timeout_s == 10


@pytest.mark.parametrize(
    ("values", "grace_s"),
    [({}, 30), ({"idle_timeout": 20}, 10), ({"max_lifetime": 8}, 4), ({"idle_timeout": 1}, 0), ({"one_shot": True}, 0)],
)
def test_the_grace_is_at_most_half_of_what_a_session_may_live_for(
    make_session: MakeSession, values: dict[str, Any], grace_s: int
) -> None:
    assert make_session(**values).grace_s == grace_s


def test_the_grace_follows_a_change(make_session: MakeSession) -> None:
    session = make_session()
    update_session(session=session, idle_timeout=10, actor="api")
    session.refresh_from_db()
    assert session.grace_s == 5
