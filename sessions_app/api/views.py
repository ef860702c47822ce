"""What the views have in common: finding what is the caller's, and reading what the caller sent."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, cast

from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.generics import GenericAPIView
from rest_framework.pagination import BasePagination
from rest_framework.request import Request

from sessions_app.api.serializers import Request as RequestSerializer
from sessions_app.models import Execution, Session

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    _View = GenericAPIView[Any]
else:
    _View = GenericAPIView


class ApiView(_View):
    """A view that reads its body by `serializer_class`."""

    serializer_class: type[serializers.Serializer[Any]] | None = None
    # Lists name theirs.
    pagination_class: type[BasePagination] | None = None
    filter_backends: Any = ()

    def given(self, request: Request) -> dict[str, Any]:
        """Return what the caller said in the body; raise ValidationError for what is wrong with it."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        assert isinstance(serializer, RequestSerializer)  # noqa: S101  # every serializer_class here is one
        return serializer.given


def caller(request: Request) -> User:
    """Return who asks; the permissions let nobody through who is nobody."""
    return cast("User", request.user)


def parsed(text: str) -> uuid.UUID:
    """Return an id; what is none is the id of nothing."""
    try:
        return uuid.UUID(text)
    except ValueError:
        raise NotFound("This is not the id of anything: ids are UUIDs.") from None


def own_session(request: Request, session_id: str) -> Session:
    """Return the caller's session; another's is as unknown as one that never was."""
    session = Session.objects.owned_by(request.user).select_related("template").filter(pk=parsed(session_id)).first()
    if session is None:
        raise NotFound("There is no such session.")
    return session


def own_execution(request: Request, execution_id: str) -> Execution:
    """Return the caller's execution, with its session."""
    executions = Execution.objects.owned_by(request.user).select_related("session__template")
    execution = executions.filter(pk=parsed(execution_id)).first()
    if execution is None:
        raise NotFound("There is no such execution.")
    return execution
