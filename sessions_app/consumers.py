"""Sessions over WebSockets: code in, its events out as they come."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from channels.generic.websocket import AsyncWebsocketConsumer  # type: ignore[import-untyped]
from rest_framework.exceptions import APIException, AuthenticationFailed, NotAuthenticated, NotFound, ParseError
from rest_framework.exceptions import PermissionDenied as Denied

from sessions_app.api.bodies import result_body
from sessions_app.api.errors import BodyTooLargeError, to_api_error
from sessions_app.api.handler import ApiExceptionFormatter
from sessions_app.api.serializers import Execute
from sessions_app.api.views import OWN_SESSION, parsed, reader
from sessions_app.auth import KEY_HEADER, key_of, owner_of
from sessions_app.exceptions import SandboxwebError
from sessions_app.limits import MAX_BODY_BYTES
from sessions_app.models import Actor, Execution, Session
from sessions_app.services import executions
from sessions_app.services.following import follow_execution
from sessions_app.services.sessions import require_active
from sessions_app.threads import in_thread

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# Codes of a close that say what HTTP would: 4000 and the status.
CLOSE_OFFSET = 4000


def caller_of(scope: dict[str, Any]) -> User:
    """Return who opened the socket: by a key in a header, or by the cookie of a page of this very server.

    A browser sends its cookie from any page, so a cookie counts only beside an `Origin` that is ours.
    """
    headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in scope["headers"]}
    raw_key = key_of(headers.get("authorization", ""), headers.get(KEY_HEADER.lower(), ""))
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


def find_session(scope: dict[str, Any]) -> Session:
    """Return the session that the socket is for, if it is the caller's and can run code."""
    session_id = parsed(scope["url_route"]["kwargs"]["session_id"])
    session = OWN_SESSION.first(id=session_id, owner=caller_of(scope).pk)
    if session is None:
        raise NotFound("There is no such session.")
    return require_active(session, actor=Actor.API)


class SessionConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # the package is not typed
    """One socket on one session. Executions go on when it is closed; `GET /executions/{id}` has what came of them."""

    session: Session
    running: set[asyncio.Task[None]]

    async def connect(self) -> None:
        """Open for the session's owner; anybody else is told why not, and closed."""
        await self.accept()
        self.running = set()
        try:
            self.session = await in_thread(find_session, self.scope)
        except (APIException, SandboxwebError) as error:
            status = await self.tell(error)
            await self.close(CLOSE_OFFSET + status)
        else:
            await self.say({"type": "ready", "session_id": str(self.session.pk)})

    async def disconnect(self, code: int) -> None:
        """Stop following what runs."""
        for task in self.running:
            task.cancel()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take one message; what is wrong with it is said, and the socket stays open."""
        try:
            message = self.parse(text_data)
            match message.pop("type", None):
                case "execute":
                    task = asyncio.ensure_future(self.execute(reader(Execute).run_validation(message)))
                    self.running.add(task)
                    task.add_done_callback(self.running.discard)
                case "cancel":
                    await in_thread(self.cancel, str(message.get("execution_id", "")))
                case _:
                    raise ParseError("`type` must be `execute` or `cancel`.")
        except (APIException, SandboxwebError) as error:
            await self.tell(error)

    def parse(self, text: str | None) -> dict[str, Any]:
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

    async def execute(self, said: dict[str, Any]) -> None:
        """Run code; send its events as they come, and its result at the end."""
        given = {name: value for name, value in said.items() if value is not None and name != "wait"}
        try:
            execution = await in_thread(self.start, given)
            await self.say({"type": "accepted", "execution_id": str(execution.pk), "status": execution.status})
            async for batch in follow_execution(execution, actor=Actor.API):
                for event in batch:
                    await self.say({**json.loads(event.raw), "execution_id": str(execution.pk)})
            await self.say({**result_body(execution), "type": "finished"})
        except (APIException, SandboxwebError) as error:
            await self.tell(error)

    def start(self, given: dict[str, Any]) -> Execution:
        """Hand code over to the sandbox."""
        self.session.refresh_from_db()
        session = require_active(self.session, actor=Actor.API)
        execution = executions.submit_execution(session=session, actor=Actor.API, **given)
        return executions.start_execution(execution, actor=Actor.API)

    def cancel(self, execution_id: str) -> None:
        """Stop an execution of the session; its end comes with its events."""
        execution = Execution.objects.filter(pk=parsed(execution_id), session_id=self.session.pk).first()
        if execution is None:
            raise NotFound("There is no such execution in this session.")
        executions.cancel_execution(execution=execution, actor=Actor.API, user=self.session.owner)

    async def tell(self, error: APIException | SandboxwebError) -> int:
        """Send an error in the API's shape; return the status that HTTP would have."""
        face = to_api_error(error) if isinstance(error, SandboxwebError) else error
        context: Any = {"view": None, "args": (), "kwargs": {}, "request": None}
        body = ApiExceptionFormatter(face, context, error).run()
        await self.say({**body, "type": "error", "kind": body["type"], "status": face.status_code})
        return int(face.status_code)

    async def say(self, message: dict[str, Any]) -> None:
        """Send one message."""
        await self.send(text_data=json.dumps(message, ensure_ascii=False))


class NowhereConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # the package is not typed
    """What answers at every other address."""

    async def connect(self) -> None:
        """Refuse."""
        await self.close()
