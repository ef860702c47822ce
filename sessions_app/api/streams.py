"""Events of executions over HTTP: as JSON, or as they come."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from sessions_app.api import docs
from sessions_app.api.renderers import BrowsableRenderer
from sessions_app.api.sessions import Links
from sessions_app.api.views import ApiView, own_execution
from sessions_app.exceptions import ExecutionUnknown, SandboxFailed, SandboxwebError
from sessions_app.models import Actor, Execution
from sessions_app.services.executions import follow_execution, settle_execution
from sessions_app.threads import each_in_thread

Event = dict[str, Any]

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventStreamRenderer(BaseRenderer):
    """The name of the media type, for the negotiation alone: streams are rendered as they come."""

    media_type = "text/event-stream"
    format = "events"


def kept_events(execution: Execution, after: int) -> Iterator[Event]:
    """Yield what the row has kept of the events: its output in one piece, for whoever has seen nothing of it."""
    ended = execution.finished_at.timestamp() if execution.finished_at else None
    began = execution.started_at.timestamp() if execution.started_at else ended
    events: list[tuple[str, Any, float | None]] = []
    if after == 0:
        events = [("started", {}, began)]
        events += [(name, text, ended) for name in ("stdout", "stderr") if (text := getattr(execution, name))]
    end = {
        name: getattr(execution, name)
        for name in ("status", "exit_code", "signal", "duration_ms", "cpu_ms", "max_rss_bytes")
    }
    events.append(("exit", end, ended))
    # Counted backwards from the last number that the journal had, so that whoever goes on from here has seen all.
    first = max(execution.last_seq, len(events)) - len(events) + 1
    for seq, (kind, data, at) in enumerate(events, start=first):
        if seq > after:
            yield {"seq": seq, "type": kind, "data": data, "at": at}


def events_of(execution: Execution, after: int) -> Iterator[Event]:
    """Yield events to the end: the sandbox's own while it has them, else what was kept."""
    if execution.session.is_live:
        try:
            yield from follow_execution(execution, actor=Actor.API, after=after)
        except (ExecutionUnknown, SandboxFailed):
            settle_execution(execution, actor=Actor.API)
        else:
            return
    if not execution.is_live:
        yield from kept_events(execution, after)


async def event_stream(execution: Execution, after: int) -> AsyncIterator[bytes]:
    """Yield events as a browser's `EventSource` reads them."""
    try:
        async for event in each_in_thread(events_of(execution, after)):
            text = json.dumps(event, ensure_ascii=False)
            yield f"id: {event['seq']}\nevent: {event['type']}\ndata: {text}\n\n".encode()
    except SandboxwebError as error:
        # No id: whoever comes again goes on after the last event.
        yield f"event: interrupted\ndata: {json.dumps({'code': error.code, 'detail': error.message})}\n\n".encode()


class ExecutionEvents(ApiView):
    """What happened in an execution, one event after the other."""

    name = "Events"
    renderer_classes = (JSONRenderer, BrowsableRenderer, EventStreamRenderer)

    @docs.execution_events
    def get(self, request: Request, execution_id: str) -> HttpResponseBase:
        """Show what there is, or follow to the end."""
        execution = own_execution(request, execution_id)
        after = sequence_number(request)
        if isinstance(getattr(request, "accepted_renderer", None), EventStreamRenderer):
            stream = event_stream(execution, after)
            return StreamingHttpResponse(stream, content_type="text/event-stream", headers=HEADERS)
        execution = settle_execution(execution, actor=Actor.API)
        return Response({"events": [] if execution.is_live else list(kept_events(execution, after))})

    def handle_exception(self, exc: Exception) -> Response:
        """Answer an error in JSON, also to one who asked for a stream."""
        renderer = JSONRenderer()
        if isinstance(getattr(self.request, "accepted_renderer", None), EventStreamRenderer):
            self.request.accepted_renderer, self.request.accepted_media_type = renderer, renderer.media_type
        return super().handle_exception(exc)

    def links(self, data: Any) -> Links:
        """Lead back to it."""
        return [("Execution", f"/executions/{self.kwargs['execution_id']}")]


def sequence_number(request: Request) -> int:
    """Return after which event to begin: `Last-Event-ID` of a browser that comes again, else `after`, else 0."""
    text = request.headers.get("Last-Event-ID") or request.query_params.get("after") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValidationError({"after": "A whole number from 0."})
    return int(text)
