"""Prepared queries answer as the querysets that they are made of."""

from __future__ import annotations

import uuid

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from sessions_app.api.views import OWN_EXECUTION, OWN_SESSION
from sessions_app.auth import USABLE_KEY
from sessions_app.models import ApiKey, Execution, Session
from sessions_app.models.execution import FINISH
from sessions_app.prepared import insert

pytestmark = pytest.mark.django_db


def values(row: object) -> dict[str, object]:
    """Return the columns of a row."""
    return {name: value for name, value in vars(row).items() if not name.startswith("_")}


def test_a_session_comes_with_its_template(session: Session) -> None:
    for _ in range(2):
        row = OWN_SESSION.first(id=session.pk, owner=session.owner_id)
        assert row is not None
        assert values(row) == values(Session.objects.get(pk=session.pk))
        assert values(row.template) == values(session.template)
        assert "template" in row._state.fields_cache


def test_an_execution_comes_with_its_session(running: Execution) -> None:
    row = OWN_EXECUTION.first(id=running.pk, owner=running.session.owner_id)
    assert row is not None
    assert values(row) == values(Execution.objects.get(pk=running.pk))
    assert row.session.template.name == "python"


def test_what_is_not_there_or_anothers_is_none(session: Session) -> None:
    other = User.objects.create_user("eve")
    assert OWN_SESSION.first(id=uuid.uuid4(), owner=session.owner_id) is None
    assert OWN_SESSION.first(id=session.pk, owner=other.pk) is None


def test_a_row_from_a_prepared_query_is_saved_like_any_other(session: Session) -> None:
    row = OWN_SESSION.first(id=session.pk, owner=session.owner_id)
    assert row is not None
    row.metadata = {"a": "b"}
    row.save(update_fields=["metadata"])
    assert Session.objects.get().metadata == {"a": "b"}


def test_a_revoked_key_is_none(owner: User) -> None:
    api_key, _ = ApiKey.objects.create_key(owner=owner, name="test")
    assert USABLE_KEY.first(prefix=api_key.prefix) == api_key
    ApiKey.objects.update(revoked=True)
    assert USABLE_KEY.first(prefix=api_key.prefix) is None


def test_a_prepared_update_does_what_the_querysets_does(running: Execution) -> None:
    values = {"status": "failed", "finished_at": timezone.now(), "attend_at": None, "results": [{"text": "ö"}]}
    assert FINISH(values, id=uuid.uuid4()) == 0
    assert FINISH(values, id=running.pk) == 1
    assert FINISH(values, id=running.pk) == 0, "it has ended"
    row = Execution.objects.get(pk=running.pk)
    assert {name: getattr(row, name) for name in values} == values


def test_an_inserted_row_is_the_one_that_save_writes(running: Execution) -> None:
    def fresh() -> Execution:
        return Execution(session=running.session, status="queued", code="é", timeout_s=1.5, attend_at=timezone.now())

    by_insert, by_save = fresh(), fresh()
    insert(by_insert)
    by_save.save(force_insert=True)
    rows = [values(Execution.objects.get(pk=row.pk)) for row in (by_insert, by_save)]
    for row in rows:
        del row["id"], row["created_at"], row["attend_at"]
    assert rows[0] == rows[1]
    by_insert.code = "2"
    by_insert.save(update_fields=["code"])
    with pytest.raises(IntegrityError), transaction.atomic():
        insert(by_insert)
