"""What the views have in common: finding what is the caller's, and reading what the caller sent."""

from __future__ import annotations

import uuid
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.generics import GenericAPIView
from rest_framework.pagination import BasePagination
from rest_framework.request import Request

from sessions_app.models import Execution, Session
from sessions_app.prepared import Parameter, Prepared

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    _View = GenericAPIView[Any]
else:
    _View = GenericAPIView


OWN_SESSION: Prepared[Session] = Prepared(
    lambda: Session.objects.owned_by(Parameter("owner")).select_related("template").filter(pk=Parameter("id")),
    owner=lambda: Session._meta.get_field("owner"),
    id=lambda: Session._meta.get_field("id"),
)
OWN_EXECUTION: Prepared[Execution] = Prepared(
    lambda: (
        Execution.objects.owned_by(Parameter("owner")).select_related("session__template").filter(pk=Parameter("id"))
    ),
    owner=lambda: Session._meta.get_field("owner"),
    id=lambda: Execution._meta.get_field("id"),
)


class ApiView(_View):
    """A view that reads its body by `serializer_class`."""

    serializer_class: type[serializers.Serializer[Any]] | None = None
    # Lists name theirs.
    pagination_class: type[BasePagination] | None = None
    filter_backends: Any = ()

    def given(self, request: Request) -> dict[str, Any]:
        """Return what the caller said in the body and did not call null; raise ValidationError for what is wrong."""
        assert self.serializer_class is not None  # noqa: S101  # every view that reads a body names one
        said = reader(self.serializer_class).run_validation(request.data)
        return {name: value for name, value in said.items() if value is not None}


def caller(request: Request) -> User:
    """Return who asks; the permissions let nobody through who is nobody."""
    return cast("User", request.user)


@cache
def reader(shape: type[serializers.Serializer[Any]]) -> serializers.Serializer[Any]:
    """Return the one serializer that reads bodies of a shape: validating changes nothing in it, making one is dear."""
    return shape()


def parsed(text: str) -> uuid.UUID:
    """Return an id; what is none is the id of nothing."""
    try:
        return uuid.UUID(text)
    except ValueError:
        raise NotFound("This is not the id of anything: ids are UUIDs.") from None


def own_session(request: Request, session_id: str) -> Session:
    """Return the caller's session; another's is as unknown as one that never was."""
    session = OWN_SESSION.first(id=parsed(session_id), owner=request.user.pk)
    if session is None:
        raise NotFound("There is no such session.")
    return session


def own_execution(request: Request, execution_id: str) -> Execution:
    """Return the caller's execution, with its session."""
    execution = OWN_EXECUTION.first(id=parsed(execution_id), owner=request.user.pk)
    if execution is None:
        raise NotFound("There is no such execution.")
    return execution
