"""Keys: shown once, kept as a hash, refused when they should be."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.utils import timezone

from sessions_app.models import ApiKey


def test_a_key_is_found_by_what_was_shown_and_kept_as_a_hash(owner: User, django_assert_num_queries) -> None:  # type: ignore[no-untyped-def]
    row, key = ApiKey.objects.create_key(owner=owner, name="one")
    assert key.startswith(f"sbx_{row.prefix}.")
    secret = key.partition(".")[2]
    assert secret not in row.hashed_key and secret not in row.pk
    with django_assert_num_queries(1):
        assert ApiKey.objects.get_from_key(key).owner == owner


@pytest.mark.parametrize(
    "mangle", [lambda key: key[4:], lambda key: key[:-1], lambda key: key + "x", lambda key: "sbx_"]
)
def test_another_key_is_unknown(owner: User, mangle) -> None:  # type: ignore[no-untyped-def]
    _, key = ApiKey.objects.create_key(owner=owner, name="one")
    with pytest.raises(ApiKey.DoesNotExist):
        ApiKey.objects.get_from_key(mangle(key))


@pytest.mark.parametrize("text", ["", "sbx_\x00.x", "sbx_é.x", "sbx_" + "a" * 10000, "Bearer"])
def test_nonsense_is_unknown_too(db: None, text: str) -> None:
    with pytest.raises(ApiKey.DoesNotExist):
        ApiKey.objects.get_from_key(text)


def test_a_revoked_key_an_expired_one_and_one_of_an_inactive_user_are_refused(owner: User) -> None:
    revoked = ApiKey.objects.create_key(owner=owner, name="a", revoked=True)[1]
    expired = ApiKey.objects.create_key(owner=owner, name="b", expiry_date=timezone.now() - timedelta(seconds=1))[1]
    good = ApiKey.objects.create_key(owner=owner, name="c")[1]
    for key in (revoked, expired):
        with pytest.raises(ApiKey.DoesNotExist):
            ApiKey.objects.get_from_key(key)
    owner.is_active = False
    owner.save()
    with pytest.raises(ApiKey.DoesNotExist):
        ApiKey.objects.get_from_key(good)


def test_use_is_noted_to_the_minute(owner: User, django_assert_num_queries) -> None:  # type: ignore[no-untyped-def]
    row, _ = ApiKey.objects.create_key(owner=owner, name="one")
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        row.touch()
        first = row.last_used_at
        with django_assert_num_queries(0):
            row.touch()
        clock.shift(60)
        row.touch()
    row.refresh_from_db()
    assert row.last_used_at - first == timedelta(minutes=1)
