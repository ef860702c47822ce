"""What executions left, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import IO, Any
from urllib.parse import quote

from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from sessions_app.api import docs_files as docs
from sessions_app.api.bodies import artifact_body
from sessions_app.api.files import SAFETY, Unnegotiated
from sessions_app.api.pagination import Pages
from sessions_app.api.sessions import Links, session_links
from sessions_app.api.views import ApiView, own_session, parsed
from sessions_app.models import Artifact
from sessions_app.querysets import ArtifactQuerySet
from sessions_app.services.artifact_kinds import SHOWN_IN_PLACE
from sessions_app.services.artifacts import open_bytes
from sessions_app.threads import in_thread

CHUNK_BYTES = 256 * 1024


class SessionArtifacts(ApiView):
    """What the executions of a session left, the newest first."""

    name = "Artifacts"
    pagination_class = Pages
    queryset = Artifact.objects.all()

    def get_queryset(self) -> ArtifactQuerySet:
        """Read those of the caller's session."""
        if getattr(self, "swagger_fake_view", False):
            return Artifact.objects.none()
        return Artifact.objects.filter(session_id=own_session(self.request, self.kwargs["session_id"]).pk)

    @docs.list_artifacts
    def get(self, request: Request, session_id: str) -> Response:
        """List."""
        page: list[Artifact] = self.paginate_queryset(self.get_queryset()) or []
        return self.get_paginated_response([artifact_body(artifact) for artifact in page])

    def links(self, data: Any) -> Links:
        """Lead to each."""
        rows = data.get("results", ()) if isinstance(data, dict) else ()
        return [*session_links(self.kwargs["session_id"]), *((row["name"], row["url"]) for row in rows[:10])]


class ArtifactContent(ApiView):
    """One artifact: its bytes."""

    name = "Artifact"
    content_negotiation_class = Unnegotiated

    @docs.get_artifact
    def get(self, request: Request, artifact_id: str) -> HttpResponseBase:
        """Download."""
        artifact = Artifact.objects.owned_by(request.user.pk).filter(pk=parsed(artifact_id)).first()
        if artifact is None:
            raise NotFound("There is no such artifact.")
        return download(artifact)


def download(artifact: Artifact) -> StreamingHttpResponse:
    """Return the bytes of an artifact as an answer that no browser takes for a page of this server."""
    place = "inline" if artifact.content_type in SHOWN_IN_PLACE else "attachment"
    headers = {
        **SAFETY,
        "Content-Length": str(artifact.size),
        "Content-Disposition": f"{place}; filename*=UTF-8''{quote(artifact.name, safe='')}",
        "ETag": f'"{artifact.sha256}"',
        "Cache-Control": "private, max-age=3600",
    }
    file = open_bytes(artifact)
    answer = StreamingHttpResponse(_bytes(file), content_type=artifact.content_type, headers=headers)
    # Also when nobody reads it, as after a HEAD.
    answer._resource_closers.append(file.close)  # type: ignore[attr-defined]
    return answer


async def _bytes(file: IO[bytes]) -> AsyncIterator[bytes]:
    while data := await in_thread(file.read, CHUNK_BYTES):
        yield data
