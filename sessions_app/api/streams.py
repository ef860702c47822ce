"""Events of executions over HTTP: as JSON, or as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from sessions_app.api import docs
from sessions_app.api.bodies import result_body
from sessions_app.api.renderers import BrowsableRenderer
from sessions_app.api.sessions import Links
from sessions_app.api.views import ApiView, own_execution
from sessions_app.exceptions import SandboxwebError
from sessions_app.models import Actor, Execution
from sessions_app.proxy_streams import Event
from sessions_app.services.following import event_of, follow_execution, journal_of
from sessions_app.threads import in_thread

# A buffer on the way (nginx, a browser's proxy) would keep the first byte back until there are many.
HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


class EventStreamRenderer(BaseRenderer):
    """Events as a browser's `EventSource` reads them; the class is for the negotiation alone."""

    media_type = "text/event-stream"
    format = "events"
    alive = b": alive\n\n"

    @staticmethod
    def line(event: Event) -> bytes:
        """Return one event. One without a number, or with 0, gives its reader no place to go on from."""
        number = b"id: %d\n" % event.seq if event.seq else b""
        return b"%sevent: %s\ndata: %s\n\n" % (number, event.type.encode(), event.raw)


class LinesRenderer(BaseRenderer):
    """Events as lines of JSON."""

    media_type = "application/x-ndjson"
    format = "lines"
    alive = b"\n"

    @staticmethod
    def line(event: Event) -> bytes:
        """Return one event."""
        return event.raw + b"\n"


STREAMS = (EventStreamRenderer, LinesRenderer)


class Streaming(APIView):
    """A view that answers with a stream where one is asked for, and with its errors in JSON."""

    renderer_classes = (JSONRenderer, BrowsableRenderer, *STREAMS)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Render what is no stream, such as an error, in JSON, also for one who asked for a stream."""
        if isinstance(response, Response) and wants_stream(request):
            renderer = JSONRenderer()
            request.accepted_renderer, request.accepted_media_type = renderer, renderer.media_type
        return super().finalize_response(request, response, *args, **kwargs)


def wants_stream(request: Request) -> bool:
    """Tell whether the caller asked for events as they come."""
    return isinstance(getattr(request, "accepted_renderer", None), STREAMS)


def stream_of(request: Request, execution: Execution, *, after: int, is_new: bool = False) -> HttpResponseBase:
    """Answer with the events after `after` as they come; `is_new` says that the caller does not know its id yet."""
    form: Any = request.accepted_renderer
    parts = _parts(execution, after, line=form.line, alive=form.alive, is_new=is_new)
    headers = {**HEADERS, "X-Execution-Id": str(execution.pk)}
    return StreamingHttpResponse(parts, content_type=form.media_type, headers=headers)


async def _parts(
    execution: Execution, after: int, *, line: Callable[[Event], bytes], alive: bytes, is_new: bool
) -> AsyncGenerator[bytes]:
    known = {"execution_id": str(execution.pk), "session_id": str(execution.session_id)}
    if is_new:
        yield line(event_of(0, "accepted", {**known, "status": execution.status}, None))
    last = after
    try:
        async with aclosing(follow_execution(execution, actor=Actor.API, after=after)) as batches:
            async for batch in batches:
                yield b"".join(map(line, batch)) or alive
                last = batch[-1].seq if batch else last
        yield line(await in_thread(finished, execution, last))
    except SandboxwebError as error:
        # It has no number: whoever comes again goes on after the last event.
        yield line(event_of(0, "interrupted", {**known, "code": error.code, "detail": error.message}, None))


def finished(execution: Execution, last: int) -> Event:
    """Return what ends a stream: the answer that a request without one gets, less the output that has gone by.

    It may ask the database, for the session and for the clock.
    """
    body = result_body(execution)
    del body["stdout"], body["stderr"]
    return event_of(max(last, execution.last_seq) + 1, "finished", body, None)


class ExecutionEvents(Streaming, ApiView):
    """What happened in an execution, one event after the other."""

    name = "Events"

    @docs.execution_events
    def get(self, request: Request, execution_id: str) -> HttpResponseBase:
        """Show what there is, or follow to the end."""
        execution = own_execution(request, execution_id)
        after = sequence_number(request)
        if not wants_stream(request):
            return Response({"events": journal_of(execution, actor=Actor.API, after=after)})
        if after > execution.last_seq > 0 and not execution.is_live:
            # What tells a browser that has seen `finished` to come no more.
            return HttpResponse(status=204)
        return stream_of(request, execution, after=after)

    def links(self, data: Any) -> Links:
        """Lead back to it."""
        return [("Execution", f"/executions/{self.kwargs['execution_id']}")]


def sequence_number(request: Request) -> int:
    """Return after which event to begin: `Last-Event-ID` of a browser that comes again, else `after`, else 0."""
    text = request.headers.get("Last-Event-ID") or request.query_params.get("after") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValidationError({"after": "A whole number from 0."})
    return int(text)
