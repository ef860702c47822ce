"""Rows and a fake proxy for the app's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from sessions_app.models import Execution, Session
from sessions_app.proxy_client import ProxyClient, using
from sessions_app.services.executions import start_execution, submit_execution
from sessions_app.services.sessions import create_session
from tests.sessions_app.fake_proxy import FakeProxy


@pytest.fixture
def proxy() -> Iterator[FakeProxy]:
    """A fake proxy that every service talks to."""
    fake = FakeProxy()
    with using(ProxyClient("http://proxy.test", "token", transport=fake.transport())):
        yield fake


@pytest.fixture
def owner(db: None) -> User:
    """A user."""
    return User.objects.create_user("ada")


@pytest.fixture
def make_session(owner: User, proxy: FakeProxy) -> Callable[..., Session]:
    """Make an active session."""

    def make(**values: Any) -> Session:
        return create_session(**{"owner": owner, "actor": "api", **values})

    return make


@pytest.fixture
def session(make_session: Callable[..., Session]) -> Session:
    """An active session."""
    return make_session()


@pytest.fixture
def running(session: Session, proxy: FakeProxy) -> Execution:
    """An execution that runs in the sandbox and that nobody waits for."""
    execution = submit_execution(session=session, code="wait", actor="api")
    return start_execution(execution, actor="api")


@pytest.fixture
def statements() -> Callable[[int], AbstractContextManager[None]]:
    """Expect that many statements: what a test's own transaction adds is not counted."""

    @contextmanager
    def expect(count: int) -> Iterator[None]:
        with CaptureQueriesContext(connection) as captured:
            yield
        own = [query["sql"] for query in captured.captured_queries if "SAVEPOINT" not in query["sql"]]
        assert len(own) == count, "\n".join(own)

    return expect
