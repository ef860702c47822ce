"""Administrators and their browsers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from sessions_app.api.server import proxy_health
from tests.sessions_app.fake_proxy import FakeProxy


@pytest.fixture(autouse=True)
def _fresh_health() -> Iterator[None]:
    """Let no test see how the proxy of another one was."""
    proxy_health.forget()
    yield
    proxy_health.forget()


@pytest.fixture
def administrator(db: None) -> User:
    """A superuser."""
    return User.objects.create_superuser("root")


@pytest.fixture
def admin(administrator: User, proxy: FakeProxy) -> Client:
    """A superuser's browser."""
    client = Client()
    client.force_login(administrator)
    return client


@pytest.fixture
def viewer(db: None, proxy: FakeProxy) -> Client:
    """The browser of one of the staff who may look at everything and change nothing."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client
