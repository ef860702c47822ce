"""A caller with a key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client

from sessions_app.api.server import proxy_health
from sessions_app.models import ApiKey
from tests.sessions_app.fake_proxy import FakeProxy


class Caller:
    """Speak JSON with a key; a fault of the server is an answer here, as it is for a caller."""

    def __init__(self, key: str | None, **headers: str) -> None:
        self.client = Client(raise_request_exception=False)
        self.headers = {"Accept": "application/json", **headers}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"

    def __call__(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Any:
        """Return the answer; its `json()` is there for any but HTML."""
        sent: dict[str, Any] = {} if body is None and raw is None else {"content_type": "application/json"}
        if body is not None:
            sent["data"] = body
        if raw is not None:
            sent["data"] = raw
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        answer: HttpResponse = getattr(self.client, method)(path, headers={**self.headers, **spelled}, **sent)
        return answer

    def get(self, path: str, **headers: str) -> Any:
        return self("get", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self("post", path, {} if body is None else body, **headers)


@pytest.fixture(autouse=True)
def _fresh_health() -> Iterator[None]:
    """Let no test see how the proxy of another one was."""
    proxy_health.forget()
    yield
    proxy_health.forget()


@pytest.fixture
def raw_key(owner: User) -> str:
    """The owner's key."""
    return str(ApiKey.objects.create_key(owner=owner, name="test")[1])


@pytest.fixture
def api(raw_key: str, proxy: FakeProxy) -> Caller:
    """The owner, with a key."""
    return Caller(raw_key)


@pytest.fixture
def stranger(db: None, proxy: FakeProxy) -> Caller:
    """Another user, with a key."""
    user = User.objects.create_user("eve")
    return Caller(str(ApiKey.objects.create_key(owner=user, name="test")[1]))


@pytest.fixture
def nobody(db: None, proxy: FakeProxy) -> Caller:
    """A caller without a key."""
    return Caller(None)


def errors(answer: Any) -> list[tuple[str, str | None]]:
    """Return code and field of each error, after a look at the shape."""
    body = answer.json()
    assert body["type"] in ("validation_error", "client_error", "server_error")
    assert all(set(error) == {"code", "detail", "attr"} and error["detail"] for error in body["errors"])
    return [(error["code"], error["attr"]) for error in body["errors"]]
