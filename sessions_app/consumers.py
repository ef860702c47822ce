"""Sessions over WebSockets: code in, its events out as they come."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from channels.generic.websocket import AsyncWebsocketConsumer  # type: ignore[import-untyped]
from rest_framework.exceptions import APIException, AuthenticationFailed, NotAuthenticated, NotFound, ParseError
from rest_framework.exceptions import PermissionDenied as Denied

from sessions_app.api.errors import BodyTooLargeError, to_api_error
from sessions_app.api.handler import ApiExceptionFormatter
from sessions_app.api.serializers import Execute, SendStdin
from sessions_app.api.views import OWN_SESSION, parsed, reader
from sessions_app.auth import KEY_HEADER, key_of, owner_of
from sessions_app.exceptions import SandboxwebError
from sessions_app.limits import MAX_BODY_BYTES
from sessions_app.models import Actor, Execution, Session
from sessions_app.services import executions
from sessions_app.services.contexts import interrupt_context
from sessions_app.services.sessions import require_active
from sessions_app.services.stdin import encoded, send_stdin
from sessions_app.threads import in_thread
from sessions_app.watching import FellBehind, watching

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

# Codes of a close that say what HTTP would: 4000 and the status.
CLOSE_OFFSET = 4000
# What a page offers beside `key.…`.
PROTOCOL, KEY_PROTOCOL = "sandboxweb", "key."
# A client that takes nothing for so long, though there is something, is cut off; and one that takes less a second.
STALL_S = 30.0
SLOWEST_BYTES_PER_S = 16 * 1024


def caller_of(scope: dict[str, Any]) -> User:
    """Return who opened the socket: by a key, or by the cookie of a page of this very server.

    A key comes in a header, or, since a page can set none, as a subprotocol `key.sbx_…` or in the query as `key`.
    A browser sends its cookie from any page, so a cookie counts only beside an `Origin` that is ours.
    """
    headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in scope["headers"]}
    raw_key = key_of(headers.get("authorization", ""), headers.get(KEY_HEADER.lower(), "")) or key_of_page(scope)
    if raw_key is not None:
        api_key = owner_of(raw_key)
        if api_key is None:
            raise AuthenticationFailed("This API key is unknown, expired or revoked.")
        owner: User = api_key.owner
        return owner
    user = scope.get("user")
    if user is None or not user.is_authenticated:
        raise NotAuthenticated
    if urlsplit(headers.get("origin", "")).netloc != headers.get("host", ""):
        raise Denied("A page of another site may not use this session.")
    found: User = user
    return found


def key_of_page(scope: dict[str, Any]) -> str | None:
    """Return the key that a page gave where it can give one."""
    for name in scope.get("subprotocols", ()):
        if name.startswith(KEY_PROTOCOL):
            return str(name.removeprefix(KEY_PROTOCOL))
    found = parse_qs(scope.get("query_string", b"").decode("latin1")).get("key")
    return found[0] if found else None


def subprotocol_of(scope: dict[str, Any]) -> str | None:
    """Return the subprotocol to speak: a client that offered some wants to hear one of them, and never its key."""
    return PROTOCOL if PROTOCOL in scope.get("subprotocols", ()) else None


def find_session(scope: dict[str, Any]) -> Session:
    """Return the session that the socket is for, if it is the caller's and can run code."""
    session_id = parsed(scope["url_route"]["kwargs"]["session_id"])
    session = OWN_SESSION.first(id=session_id, owner=caller_of(scope).pk)
    if session is None:
        raise NotFound("There is no such session.")
    return require_active(session, actor=Actor.API)


class SessionConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # the package is not typed
    """One socket on one session: code and its input in, all that happens in the session out.

    Executions go on when it is closed; `GET /executions/{id}` has what came of them.
    """

    # Watchers are fed from the proxy's stream: no broker is needed, and none is asked.
    channel_layer_alias = "none"
    session: Session
    work: set[asyncio.Task[None]]
    is_ready: asyncio.Event

    async def connect(self) -> None:
        """Open for the session's owner; anybody else is told why not, and closed."""
        await self.accept(subprotocol_of(self.scope))
        self.work = set()
        try:
            self.session = await in_thread(find_session, self.scope)
        except (APIException, SandboxwebError) as error:
            status = await self.tell(error)
            await self.close(CLOSE_OFFSET + status)
        else:
            self.is_ready = asyncio.Event()
            self.spawn(self.watch())

    async def disconnect(self, code: int) -> None:
        """Stop watching."""
        for task in self.work:
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Work beside the socket, until that is closed."""
        task = asyncio.ensure_future(work)
        self.work.add(task)
        task.add_done_callback(self.work.discard)

    async def watch(self) -> None:
        """Send all that happens in the session; cut off a client that does not read."""
        try:
            with watching(self.session.pk) as watcher:
                await watcher.connected()
                await self.say({"type": "ready", "session_id": str(self.session.pk)})
                self.is_ready.set()
                while texts := await watcher.read():
                    async with asyncio.timeout(STALL_S + sum(map(len, texts)) / SLOWEST_BYTES_PER_S):
                        for text in texts:
                            await self.send(text_data=text)
                    # Sending may take no turn of the loop at all, and others want theirs.
                    await asyncio.sleep(0)
            await self.close(CLOSE_OFFSET + 410, "The session has ended.")
        except (FellBehind, TimeoutError):
            logger.info("A watcher of session %s was too slow", self.session.pk)
            await self.close(CLOSE_OFFSET + 408, "You did not read fast enough. Come again.")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take one message; what is wrong with it is said, and the socket stays open."""
        request_id: Any = None
        try:
            message = parse(text_data)
            request_id = message.pop("request_id", None)
            await self.is_ready.wait()
            match message.pop("type", None):
                case "execute":
                    await self.execute(reader(Execute).run_validation(message), request_id)
                case "stdin":
                    execution = await in_thread(self.own, message.pop("execution_id", None))
                    given = reader(SendStdin).run_validation(message)
                    await in_thread(partial(send, execution, given))
                case "cancel" | "interrupt" as how:
                    execution = await in_thread(self.own, message.get("execution_id"))
                    await in_thread(partial(stop if how == "cancel" else interrupt, execution, self.session))
                case _:
                    raise ParseError("`type` must be `execute`, `stdin`, `interrupt` or `cancel`.")
        except (APIException, SandboxwebError) as error:
            await self.tell(error, request_id)

    async def execute(self, said: dict[str, Any], request_id: Any) -> None:
        """Accept code, and only then hand it over, so that its events come after its id."""
        given = {name: value for name, value in said.items() if value is not None and name != "wait"}
        execution = await in_thread(self.submit, given)
        accepted = {"type": "accepted", "execution_id": str(execution.pk), "status": execution.status}
        await self.say(accepted | asked_as(request_id))
        await in_thread(partial(executions.start_execution, execution, actor=Actor.API))

    def submit(self, given: dict[str, Any]) -> Execution:
        """Write the row of an execution."""
        self.session.refresh_from_db()
        session = require_active(self.session, actor=Actor.API)
        return executions.submit_execution(session=session, actor=Actor.API, **given)

    def own(self, execution_id: Any) -> Execution:
        """Return an execution of the session; without an id the one that runs."""
        rows = Execution.objects.select_related("session__template").filter(session_id=self.session.pk)
        if execution_id is None:
            execution = rows.filter(status=Execution.Status.RUNNING).first()
        else:
            execution = rows.filter(pk=parsed(str(execution_id))).first()
        if execution is None:
            raise NotFound("There is no such execution in this session.")
        return execution

    async def tell(self, error: APIException | SandboxwebError, request_id: Any = None) -> int:
        """Send an error in the API's shape; return the status that HTTP would have."""
        face = to_api_error(error) if isinstance(error, SandboxwebError) else error
        context: Any = {"view": None, "args": (), "kwargs": {}, "request": None}
        body = ApiExceptionFormatter(face, context, error).run()
        said = {**body, "type": "error", "kind": body["type"], "status": face.status_code}
        await self.say(said | asked_as(request_id))
        return int(face.status_code)

    async def say(self, message: dict[str, Any]) -> None:
        """Send one message."""
        await self.send(text_data=json.dumps(message, ensure_ascii=False))


def asked_as(request_id: Any) -> dict[str, Any]:
    """Return what tells a client which of its messages this answers, if it gave that a name."""
    return {} if request_id is None else {"request_id": request_id}


def parse(text: str | None) -> dict[str, Any]:
    """Return a message's object."""
    if text is None:
        raise ParseError("Messages are text.")
    if len(text) > MAX_BODY_BYTES:
        raise BodyTooLargeError
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError(f"JSON parse error - {error}") from error
    if not isinstance(message, dict):
        raise ParseError("A message is an object.")
    return message


def send(execution: Execution, given: dict[str, Any]) -> None:
    """Send standard input to code that runs."""
    send_stdin(execution=execution, data=encoded(given.get("data") or ""), eof=given["eof"])


def interrupt(execution: Execution, session: Session) -> None:
    """Interrupt code as Ctrl-C does, so that its context keeps its state; stop what has none."""
    if not execution.context:
        stop(execution, session)
    elif execution.status == Execution.Status.RUNNING:
        interrupt_context(session=session, context_id=execution.context, actor=Actor.API)


def stop(execution: Execution, session: Session) -> None:
    """Stop an execution; its end comes with its events."""
    executions.cancel_execution(execution=execution, actor=Actor.API, user=session.owner)


class NowhereConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # the package is not typed
    """What answers at every other address."""

    async def connect(self) -> None:
        """Refuse."""
        await self.close()
