"""Events in the admin: every change of state, newest first."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from sessions_app.admin import columns
from sessions_app.admin.base import RecordPage
from sessions_app.admin.sessions import transition
from sessions_app.models import SessionEvent


@admin.register(SessionEvent)
class SessionEventAdmin(RecordPage):
    """The diary of this server."""

    list_display = ("created_at", "change", "in_session", "of_execution", "actor", "user", "reason")
    list_filter = ("type", "actor", "to_status", "created_at")
    list_select_related = ("user",)
    search_fields = ("session__id__startswith", "execution__id__startswith")
    search_help_text = "Beginning of the id of a session or of an execution."
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    fields = ("created_at", "type", "change", "actor", "user", "reason", "in_session", "of_execution", "shown_data")
    readonly_fields = ("change", "in_session", "of_execution", "shown_data")

    @admin.display(description="change", ordering="to_status")
    def change(self, event: SessionEvent) -> SafeString:
        """Show from which state to which."""
        return transition(event)

    @admin.display(description="session")
    def in_session(self, event: SessionEvent) -> SafeString | str:
        """Lead to the session."""
        return columns.link_to("session", event.session_id)

    @admin.display(description="execution")
    def of_execution(self, event: SessionEvent) -> SafeString | str:
        """Lead to the execution."""
        return columns.link_to("execution", event.execution_id)

    @admin.display(description="data")
    def shown_data(self, event: SessionEvent) -> SafeString:
        """Show what else was noted."""
        return columns.json_block(event.data)

    def has_delete_permission(self, request: HttpRequest, obj: SessionEvent | None = None) -> bool:
        """Keep a diary that nobody tears pages from."""
        return False
