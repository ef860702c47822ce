"""Prepared queries answer as the querysets that they are made of."""

from __future__ import annotations

import uuid

import pytest
from django.contrib.auth.models import User

from sessions_app.api.views import OWN_EXECUTION, OWN_SESSION
from sessions_app.auth import USABLE_KEY
from sessions_app.models import ApiKey, Execution, Session

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
