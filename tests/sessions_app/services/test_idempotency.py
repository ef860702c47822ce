"""Idempotency keys."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.utils import timezone

from sessions_app.exceptions import IdempotencyInProgress, IdempotencyMismatch, InvalidInput
from sessions_app.models import Execution, IdempotencyRecord, Session
from sessions_app.services import idempotency
from sessions_app.services.executions import submit_execution
from sessions_app.services.sessions import create_session
from tests.sessions_app.fake_proxy import FakeProxy

SAME = idempotency.fingerprint(method="POST", path="/sessions", body=b"{}")
OTHER = idempotency.fingerprint(method="POST", path="/sessions", body=b'{"lang":"r"}')


def claim(owner: User, fingerprint: str = SAME, key: str = "k") -> idempotency.Claim:
    return idempotency.claim(owner=owner, key=key, fingerprint=fingerprint)


def test_the_first_answer_is_given_again(owner: User) -> None:
    first = claim(owner)
    assert first.answer is None
    idempotency.finish(first.record, status=201, body={"a": [1]})
    assert claim(owner).answer == (201, {"a": [1]})


def test_the_key_of_another_request_is_refused(owner: User) -> None:
    claim(owner)
    with pytest.raises(IdempotencyMismatch):
        claim(owner, OTHER)


def test_keys_belong_to_their_owner(owner: User) -> None:
    claim(owner)
    assert claim(User.objects.create_user("bob"), OTHER).answer is None


def test_a_request_under_way_is_not_begun_twice(owner: User) -> None:
    claim(owner)
    with pytest.raises(IdempotencyInProgress):
        claim(owner)


def test_the_claim_of_a_process_that_died_at_once_passes_on_to_one_other(owner: User) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        claim(owner)
        clock.shift(10)
        assert claim(owner).record.execution is None
        with pytest.raises(IdempotencyInProgress):
            claim(owner)


@pytest.mark.usefixtures("proxy")
def test_who_was_slow_makes_nothing_once_a_repetition_has_taken_over(owner: User, session: Session) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        slow = claim(owner).record
        clock.shift(10)
        fast = claim(owner).record
        Session.objects.update(expires_at=timezone.now() + timedelta(hours=1))
        with pytest.raises(IdempotencyInProgress):
            submit_execution(session=session, code="1", actor="api", claim=slow)
        with pytest.raises(IdempotencyInProgress):
            create_session(owner=owner, actor="api", claim=slow)
        idempotency.release(slow)
        made = submit_execution(session=session, code="1", actor="api", claim=fast)
        assert claim(owner).record.execution == made
    assert (Execution.objects.count(), Session.objects.count()) == (1, 1)


def test_what_the_first_request_made_is_found(owner: User, proxy: FakeProxy) -> None:
    record = claim(owner).record
    session = create_session(owner=owner, actor="api", claim=record)
    assert claim(owner).record.session == session
    second = claim(owner, key="other").record
    execution = submit_execution(session=session, code="1", actor="api", claim=second)
    found = claim(owner, key="other")
    assert (found.record.execution, found.answer) == (execution, None)


def test_a_refused_request_leaves_its_claim_untouched(owner: User, session: Session) -> None:
    record = claim(owner).record
    with pytest.raises(InvalidInput):
        submit_execution(session=session, code="", actor="api", claim=record)
    record.refresh_from_db()
    assert record.execution is None
    idempotency.release(record)
    assert claim(owner, OTHER).answer is None


def test_a_key_is_free_again_after_a_day(owner: User) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        idempotency.finish(claim(owner).record, status=200, body=None)
        clock.shift(24 * 3600)
        assert claim(owner, OTHER).answer is None


def test_old_records_are_dropped_in_bounded_batches(owner: User) -> None:
    with time_machine.travel("2030-01-01T00:00:00Z", tick=False) as clock:
        for key in "abc":
            claim(owner, key=key)
        clock.shift(24 * 3600 + 1)
        claim(owner, key="new")
        assert idempotency.drop_old(limit=2) == 2
        assert idempotency.drop_old(limit=2) == 1
    assert IdempotencyRecord.objects.get().key == "new"


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "\x00"])
def test_a_key_that_is_none_is_refused(owner: User, key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        claim(owner, key=key)
    assert caught.value.field == "Idempotency-Key"


def test_an_answer_is_not_released(owner: User) -> None:
    record = claim(owner).record
    idempotency.finish(record, status=200, body=timezone.now().year)
    idempotency.release(record)
    assert IdempotencyRecord.objects.count() == 1
