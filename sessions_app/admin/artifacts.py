"""Artifacts in the admin: what is kept, whose it is, and until when."""

from __future__ import annotations

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from sessions_app.admin import columns
from sessions_app.admin.base import RecordPage
from sessions_app.api.artifacts import download
from sessions_app.exceptions import ArtifactMissing
from sessions_app.models import Artifact


@admin.register(Artifact)
class ArtifactAdmin(RecordPage):
    """Every artifact of everybody. To delete one removes its bytes too."""

    list_display = ("name", "load", "content_type", "how_large", "owner", "created", "expires", "of_execution")
    list_filter = ("content_type", "created_at")
    list_select_related = ("owner",)
    search_fields = ("name__istartswith", "owner__username__istartswith")
    search_help_text = "Beginning of a name, or of its owner's name."
    ordering = ("-created_at", "-id")
    fields = (
        ("name", "load"),
        "path",
        "content_type",
        "how_large",
        "sha256",
        "owner",
        "of_session",
        "of_execution",
        ("created_at", "expires_at"),
    )
    readonly_fields = ("load", "how_large", "of_session", "of_execution")

    def get_urls(self) -> list[URLPattern]:
        """Add the download."""
        own = path("<uuid:pk>/bytes", self.admin_site.admin_view(self.bytes), name="sessions_app_artifact_bytes")
        return [own, *super().get_urls()]

    def bytes(self, request: HttpRequest, pk: object) -> HttpResponseBase:
        """Give an artifact's bytes to one who may look at it."""
        artifact = get_object_or_404(Artifact, pk=pk)
        if not self.has_view_permission(request, artifact):
            raise PermissionDenied
        try:
            return download(artifact)
        except ArtifactMissing as error:
            page = {"status": 404, "title": "Nothing here", "detail": error.message}
            return render(None, "sandboxweb/error.html", page, status=404)

    @admin.display(description="bytes")
    def load(self, artifact: Artifact) -> SafeString:
        """Lead to the bytes."""
        return format_html(
            '<a href="{}">Download</a>', reverse("admin:sessions_app_artifact_bytes", args=[artifact.pk])
        )

    @admin.display(description="size", ordering="size")
    def how_large(self, artifact: Artifact) -> str:
        """Show the size."""
        return columns.size(artifact.size)

    @admin.display(description="created", ordering="created_at")
    def created(self, artifact: Artifact) -> SafeString | str:
        """Show its age."""
        return columns.relative(artifact.created_at)

    @admin.display(description="expires", ordering="expires_at")
    def expires(self, artifact: Artifact) -> SafeString | str:
        """Show how long it stays."""
        return columns.relative(artifact.expires_at)

    @admin.display(description="session")
    def of_session(self, artifact: Artifact) -> SafeString | str:
        """Lead to the session."""
        return columns.link_to("session", artifact.session_id)

    @admin.display(description="execution")
    def of_execution(self, artifact: Artifact) -> SafeString | str:
        """Lead to the execution."""
        return columns.link_to("execution", artifact.execution_id)
