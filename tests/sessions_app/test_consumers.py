"""Sessions over WebSockets."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User
from rest_framework.exceptions import NotAuthenticated, PermissionDenied

from sandboxweb.asgi import application
from sessions_app import watching
from sessions_app.consumers import caller_of
from sessions_app.limits import MAX_BODY_BYTES
from sessions_app.models import ApiKey, Execution, Session
from sessions_app.services.executions import start_execution, submit_execution
from sessions_app.services.sessions import terminate_session
from tests.sessions_app.fake_proxy import FakeProxy

# Sockets work on threads of their own, which see only what is committed.
pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)

HOST = (b"host", b"testserver")
BAD_MESSAGES: dict[str, tuple[Any, int, str | None]] = {
    "half an object": ("{", 400, None),
    "a list": ("[]", 400, None),
    "no type": ({}, 400, None),
    "no code": ({"type": "execute"}, 400, "code"),
    "NUL in code": ({"type": "execute", "code": "\0"}, 400, "code"),
    "a negative time-out": ({"type": "execute", "code": "x", "timeout": -1}, 400, "timeout"),
    "a time-out over the ceiling": ({"type": "execute", "code": "x", "timeout": 10**6}, 400, "timeout"),
    "no name of a context": ({"type": "execute", "code": "x", "context": "a b"}, 400, "context"),
    "a message above the limit": ({"type": "execute", "code": "#" * MAX_BODY_BYTES}, 413, None),
    "code above its limit": ({"type": "execute", "code": "#" * 3_000_000}, 413, "code"),
    "nothing to cancel": ({"type": "cancel"}, 404, None),
    "nothing to write to": ({"type": "stdin", "data": "x"}, 404, None),
    "an id that is none": ({"type": "cancel", "execution_id": "nonsense"}, 404, None),
    "an id of nothing": ({"type": "cancel", "execution_id": str(uuid.uuid4())}, 404, None),
}


class Socket:
    """A client of one socket."""

    def __init__(self, communicator: WebsocketCommunicator) -> None:
        self.communicator = communicator

    async def say(self, message: Any) -> None:
        await self.communicator.send_to(text_data=message if isinstance(message, str) else json.dumps(message))

    async def hear(self) -> Any:
        return json.loads(await self.communicator.receive_from(timeout=10))

    async def hear_until(self, kind: str) -> list[Any]:
        """Return the messages up to the first of a kind."""
        heard = [await self.hear()]
        while heard[-1]["type"] != kind:
            heard.append(await self.hear())
        return heard

    async def begin(self, **said: Any) -> str:
        """Run code that ends when the fake is told so; return its id once nothing of its start is left to be done."""
        await self.say({"type": "execute", "code": "wait", **said})
        execution_id = str((await self.hear_until("accepted"))[-1]["execution_id"])
        await self.say({"type": "nonsense"})
        await self.hear_until("error")
        return execution_id

    async def closed(self) -> int:
        message = await self.communicator.receive_output(timeout=10)
        assert message["type"] == "websocket.close"
        return int(message["code"])


@asynccontextmanager
async def socket(session_id: object, *headers: tuple[bytes, bytes]) -> AsyncIterator[Socket]:
    """Open a socket on a session."""
    communicator = WebsocketCommunicator(application, f"/ws/sessions/{session_id}", [HOST, *headers])
    assert (await communicator.connect(timeout=10))[0]
    try:
        yield Socket(communicator)
    finally:
        await communicator.disconnect()


@pytest.fixture
def key(session: Session) -> tuple[bytes, bytes]:
    """The header of the owner's key."""
    return b"x-api-key", ApiKey.objects.create_key(owner=session.owner, name="test")[1].encode()


def end(proxy: FakeProxy, execution_id: str, output: str = "") -> None:
    """End code, with some output before."""
    execution = next(runs[execution_id] for runs in proxy.sandboxes.values() if execution_id in runs)
    if output:
        execution.say("stdout", output)
    execution.end()


async def test_code_runs_and_its_events_come(session: Session, proxy: FakeProxy, key: tuple[bytes, bytes]) -> None:
    async with socket(session.pk, key) as client, socket(session.pk, key) as other:
        for one in (client, other):
            assert await one.hear() == {"type": "ready", "session_id": str(session.pk)}
        execution_id = await client.begin()
        end(proxy, execution_id, "a\n")
        heard = await other.hear_until("finished")
    assert [message["type"] for message in heard] == ["started", "stdout", "exit", "finished"]
    assert {message["execution_id"] for message in heard} == {execution_id}
    assert (heard[1]["data"], heard[-1]["data"]["status"]) == ("a\n", "succeeded")
    assert [message["seq"] for message in heard] == [1, 2, 3, 4]


async def test_an_id_comes_before_the_events_and_with_what_the_request_was_called(
    session: Session, key: tuple[bytes, bytes]
) -> None:
    async with socket(session.pk, key) as client:
        await client.hear()
        await client.say({"type": "execute", "code": "wait", "request_id": "a"})
        accepted = await client.hear()
        assert (accepted["type"], accepted["request_id"], accepted["status"]) == ("accepted", "a", "running")
        assert (await client.hear())["type"] == "started"
        await client.say({"type": "nonsense", "request_id": ["b"]})
        assert (await client.hear_until("error"))[-1]["request_id"] == ["b"]


async def test_what_runs_is_cancelled(session: Session, key: tuple[bytes, bytes]) -> None:
    async with socket(session.pk, key) as client:
        execution_id = await client.begin()
        await client.say({"type": "cancel", "execution_id": execution_id})
        await client.say({"type": "nonsense"})
        await client.hear_until("error")
    row = await Execution.objects.aget()
    assert row.status == "cancelled"


async def test_watchers_see_the_same_also_of_what_came_over_http(
    session: Session, proxy: FakeProxy, key: tuple[bytes, bytes]
) -> None:
    async with socket(session.pk, key) as one, socket(session.pk, key) as other:
        assert [(await client.hear())["type"] for client in (one, other)] == ["ready", "ready"]
        execution = await sync_to_async(submit_execution)(session=session, code="wait", actor="api")
        await sync_to_async(start_execution)(execution, actor="api")
        end(proxy, str(execution.pk), "b\n")
        heard = [await client.hear_until("finished") for client in (one, other)]
    assert heard[0] == heard[1]
    assert [message["type"] for message in heard[0]] == ["started", "stdout", "exit", "finished"]
    assert {message["execution_id"] for message in heard[0]} == {str(execution.pk)}


async def test_who_comes_later_sees_what_runs_from_its_beginning(
    session: Session, proxy: FakeProxy, key: tuple[bytes, bytes], running: Execution
) -> None:
    proxy.execution(running).say("stdout", "a")
    async with socket(session.pk, key) as one:
        first = await one.hear_until("stdout")
        async with socket(session.pk, key) as other:
            assert await other.hear_until("stdout") == first
            proxy.execution(running).end()
            assert await one.hear_until("finished") == await other.hear_until("finished")


async def test_input_reaches_what_runs_and_its_end_too(session: Session, key: tuple[bytes, bytes]) -> None:
    async with socket(session.pk, key) as client:
        execution_id = await client.begin(stdin_stream=True)
        await client.say({"type": "stdin", "execution_id": execution_id, "data": "one\n"})
        assert (await client.hear_until("stdout"))[-1]["data"] == "one\n"
        await client.say({"type": "stdin", "eof": True})  # without an id: what runs
        assert (await client.hear_until("finished"))[-1]["data"]["status"] == "succeeded"
        await client.say({"type": "stdin", "execution_id": execution_id, "data": "late"})
        answer = await client.hear()
        assert (answer["status"], answer["errors"][0]["code"]) == (409, "stdin_closed")


async def test_what_runs_is_interrupted(session: Session, key: tuple[bytes, bytes]) -> None:
    async with socket(session.pk, key) as client:
        await client.begin()
        await client.say({"type": "interrupt"})
        await client.say({"type": "nonsense"})
        await client.hear_until("error")
    assert (await Execution.objects.aget()).status == "cancelled"


async def test_what_runs_in_a_context_is_interrupted_and_not_killed(
    session: Session, proxy: FakeProxy, key: tuple[bytes, bytes]
) -> None:
    async with socket(session.pk, key) as client:
        await client.begin(context="default")
        await client.say({"type": "interrupt"})
        await client.say({"type": "nonsense"})
        await client.hear_until("error")
    assert (await Execution.objects.aget()).status == "running"
    assert f"POST /sessions/{session.pk}/contexts/default/interrupt" in proxy.requests


async def test_a_watcher_outlasts_a_proxy_that_is_away_for_a_moment(
    session: Session, proxy: FakeProxy, key: tuple[bytes, bytes], running: Execution
) -> None:
    async with socket(session.pk, key) as client:
        await client.hear_until("started")
        proxy.away = True
        proxy.execution(running).say("stdout", "a")
        proxy.away = False
        proxy.execution(running).end()
        heard = await client.hear_until("finished")
    assert [(message["seq"], message["type"]) for message in heard] == [(2, "stdout"), (3, "exit"), (4, "finished")]


async def test_the_end_of_the_session_is_told_and_closes_the_socket(
    session: Session, key: tuple[bytes, bytes], running: Execution
) -> None:
    async with socket(session.pk, key) as client:
        await client.hear_until("started")
        await sync_to_async(terminate_session)(session=session, reason="user", actor="api")
        heard = await client.hear_until("session")
        assert await client.closed() == 4410
    assert (heard[-1]["status"], heard[-1]["termination_reason"]) == ("terminated", "user")
    assert [message["data"]["status"] for message in heard if message["type"] == "finished"] == ["cancelled"]


async def test_a_watcher_that_is_too_slow_is_cut_off_and_the_others_are_not(
    session: Session, key: tuple[bytes, bytes], running: Execution, proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watching.watching(session.pk) as slow, watching.watching(session.pk) as quick:
        monkeypatch.setattr(slow._pump.log, "_max_bytes", 1000)
        heard = await quick.read()
        for _ in range(40):
            proxy.execution(running).say("stdout", "x" * 20)
            while len(heard) < len(proxy.execution(running).events):
                heard += await quick.read()
        assert len(heard) == 41
        with pytest.raises(watching.FellBehind):
            await slow.read()


@pytest.mark.parametrize("where", ["subprotocol", "query"])
async def test_a_page_gives_its_key_where_it_can(session: Session, key: tuple[bytes, bytes], where: str) -> None:
    raw_key = key[1].decode()
    path, protocols = f"/ws/sessions/{session.pk}", None
    if where == "query":
        path += f"?key={raw_key}"
    else:
        protocols = ["sandboxweb", f"key.{raw_key}"]
    communicator = WebsocketCommunicator(application, path, [HOST], subprotocols=protocols)
    assert await communicator.connect(timeout=10) == (True, protocols and "sandboxweb")
    assert (await Socket(communicator).hear())["type"] == "ready"
    await communicator.disconnect()


@pytest.mark.parametrize("what", BAD_MESSAGES)
async def test_a_bad_message_is_said_so_and_the_socket_stays(
    session: Session, key: tuple[bytes, bytes], what: str
) -> None:
    message, status, field = BAD_MESSAGES[what]
    async with socket(session.pk, key) as client:
        await client.hear()
        await client.say(message)
        answer = await client.hear()
        assert (answer["type"], answer["status"], answer["errors"][0]["attr"]) == ("error", status, field)
        assert await client.begin()


@pytest.mark.parametrize(
    ("header", "status"),
    [(None, 401), ((b"authorization", b"Bearer sbx_wrong.key"), 401), ((b"x-api-key", b"\xff"), 401)],
)
async def test_without_a_key_there_is_no_way_in(session: Session, header: Any, status: int) -> None:
    async with socket(session.pk, *([header] if header else [])) as client:
        assert (await client.hear())["status"] == status
        assert await client.closed() == 4000 + status


@pytest.mark.parametrize("session_id", ["nonsense", "8f14e45f-ceea-467f-a8d1-3b2f1c9d7e52"])
async def test_a_session_that_is_none_is_not_found(key: tuple[bytes, bytes], session_id: str) -> None:
    async with socket(session_id, key) as client:
        assert (await client.hear())["errors"][0]["code"] == "not_found"
        assert await client.closed() == 4404


async def test_anothers_session_is_not_found(session: Session) -> None:
    async with socket(session.pk, (b"x-api-key", await key_of_another())) as client:
        assert (await client.hear())["status"] == 404


@sync_to_async
def key_of_another() -> bytes:
    """Return the key of another user."""
    eve = User.objects.create_user("eve")
    return str(ApiKey.objects.create_key(owner=eve, name="test")[1]).encode()


async def test_a_session_that_ended_says_why(session: Session, key: tuple[bytes, bytes]) -> None:
    await Session.objects.filter(pk=session.pk).aupdate(expires_at=session.created_at)
    async with socket(session.pk, key) as client:
        answer = await client.hear()
        assert (answer["status"], answer["termination_reason"]) == (410, "idle")
        assert await client.closed() == 4410


def scope(user: Any, **headers: str) -> dict[str, Any]:
    """Return the scope of a socket whose cookie belongs to a user."""
    return {"user": user, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}


def test_a_cookie_counts_on_our_own_pages(owner: User) -> None:
    assert caller_of(scope(owner, host="testserver", origin="http://testserver")) == owner


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://testserver.evil.example", ""])
def test_a_cookie_does_not_count_elsewhere(owner: User, origin: str) -> None:
    with pytest.raises(PermissionDenied):
        caller_of(scope(owner, host="testserver", origin=origin))


def test_nobody_is_nobody_on_our_own_pages_too() -> None:
    with pytest.raises(NotAuthenticated):
        caller_of(scope(AnonymousUser(), host="testserver", origin="http://testserver"))


async def test_another_address_is_refused() -> None:
    communicator = WebsocketCommunicator(application, "/ws/nowhere", [HOST])
    assert not (await communicator.connect(timeout=10))[0]
